import json
import math
import os
import sys
from pathlib import Path

import orjson
import pytest

sys.path.append(str(Path(__file__).parents[2]))
from scoring_stub import Stub, vector

from milepost.embedding.vectors import VectorStore
from milepost.errors import CallError, ConfigError, ServerError
from milepost.scorers import CheckpointTask, check_scoring, load_scorer
from milepost.scorers.avert.candidates import candidate_groups
from milepost.scorers.avert.scorer import Scorer
from milepost.scorers.avert.settings import TEMPLATES, Settings, Template, settings_of
from milepost.scorers.avert.similarity import TextsToCompare, find_similarities
from milepost.scorers.avert.verdict import grouping_of, original_verdict_of

GOLDEN = Path(__file__).parents[2] / "golden"
GROUPS = json.loads((GOLDEN / "avert_candidate_groups.json").read_text())
SCORES = json.loads((GOLDEN / "avert_scores.json").read_text())["scores"]
REFUSALS = {name: GROUPS[8]["out"][name] for name in ("refusal", "formulation_mistake")}


def groups_of(arguments):
    texts = {
        "correct": arguments["correct_group_text"],
        "wrong": arguments["wrong_group_text"],
        "refusal": REFUSALS["refusal"],
        # The last three speak of options.
        "formulation_mistake": REFUSALS["formulation_mistake"][: 5 if arguments.get("with_options") else 2],
    }
    positions = None
    if arguments.get("with_options"):
        positions = {"correct": arguments["correct_group_idxs"], "wrong": arguments["wrong_group_idxs"]}
    return candidate_groups(
        {name: texts[name] for name in arguments["target_group_names_list"]},
        enhance=arguments["enhance"],
        positions=positions,
        symbols=arguments.get("option_symbol", "letters"),
        compat=True,
    )


@pytest.mark.parametrize("number", [n for n, row in enumerate(GROUPS) if "out" in row])
def test_candidates_of_the_original(number):
    ours, theirs = groups_of(GROUPS[number]["args"]), GROUPS[number]["out"]
    assert list(ours) == list(theirs)
    assert {name: ours[name] for name in ("correct", "wrong")} == {name: theirs[name] for name in ("correct", "wrong")}


def address_settings(url, api, method, template="empty", grouping="max", instruction="DEF instr"):
    query, document = TEMPLATES[template]
    return Settings(url, "m", api, method, Template(query, document, instruction), grouping, True)


@pytest.fixture(scope="module")
def server():
    stub = Stub()
    with stub.running() as url:
        stub.url = url
        yield stub


@pytest.fixture(autouse=True)
def clean(server, monkeypatch):
    server.faults, server.asked, server.max_chars = [], [], math.inf
    for name in [name for name in os.environ if name.startswith("AVERT_")]:
        monkeypatch.delenv(name)


def cities(correct):
    options = ["Paris", "Lyon", "Nice", "Lille"]
    return GROUPS[1]["args"] | {
        "correct_group_text": [options[correct]],
        "wrong_group_text": options[:correct] + options[correct + 1 :],
        "correct_group_idxs": [correct],
        "wrong_group_idxs": [at for at in range(4) if at != correct],
    }


LISTS = GROUPS[3]["args"] | {"with_options": False, "correct_group_text": ["a,b", "b,a"], "wrong_group_text": ["c"]}
NUMBERED = GROUPS[4]["args"] | {"option_symbol": "numbers"}
# What each case compares. The file does not say it of cases 1 and 7: these are the texts that give all of their numbers.
CASES = {
    **{0: GROUPS[0]["args"], 1: LISTS, 2: cities(0), 3: cities(1), 4: cities(2), 5: cities(3), 6: GROUPS[3]["args"]},
    7: NUMBERED,
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_scores_of_the_original(server, case):
    groups = groups_of(CASES[case])
    rows = [row for row in SCORES if row["case"] == case]
    assert len(rows) == 18
    for row in rows:
        instruction = {"default": "DEF instr", "special": "SP instr"}[row["task"]]
        settings = address_settings(
            server.url, row["endpoint_type"], row["method"], row["template"], row["grouping"], instruction
        )
        texts = [text for members in groups.values() for text in members]
        found = find_similarities(settings, TextsToCompare({row["response"]: texts}), double=True)
        assert found(row["response"], texts) == pytest.approx(row["all_scores"], abs=1e-9)
        similarities = {name: found(row["response"], members) for name, members in groups.items()}
        verdict = original_verdict_of(similarities, grouping_of(row["grouping"], compat=True))
        assert verdict.shares == pytest.approx(row["group_scores"], abs=1e-9)
        assert verdict.match == row["match"]


def item(target, choices, **rest):
    return {"id": target, "prompt": "?", "target": target, "choices": choices, **rest}


def answers_to(ident, *contents):
    return [{"id": ident, "sample": n, "content": content} for n, content in enumerate(contents)]


def use(monkeypatch, url, **variables):
    given = {
        "AVERT_MODEL_ENDPOINT": url,
        "AVERT_ENDPOINT_TYPE": "vllm",
        "AVERT_METHOD": "rerank",
        "AVERT_MODEL_NAME": "m",
        "AVERT_PROMPT_TEMPLATE": "empty",
    }
    for name, value in (given | variables).items():
        if value is not None:
            monkeypatch.setenv(name, value)


def vectors(texts):
    return list(map(vector, texts))


CITY = item("Lyon", ["Paris", "Lyon", "Nice", "Lille"])


@pytest.mark.parametrize("method", ["rerank", "embedding"])
@pytest.mark.parametrize("api", ["vllm", "openai", "tei"])
def test_the_scorer_in_compat_mode_gives_what_the_original_gave(server, monkeypatch, method, api):
    use(monkeypatch, server.url, AVERT_METHOD=method, AVERT_ENDPOINT_TYPE=api)
    row = next(
        row
        for row in SCORES
        if (row["case"], row["template"], row["method"], row["endpoint_type"]) == (3, "empty", method, api)
    )
    (score,) = Scorer(compat=True, letters=True, semscore=False, chance=False).score(
        [CITY], answers_to("Lyon", row["response"])
    )
    assert score["metrics"]["avert_correct"] == pytest.approx(row["group_scores"]["correct"], abs=1e-9)
    assert score["metrics"]["avert_wrong"] == pytest.approx(row["group_scores"]["wrong"], abs=1e-9)
    assert score["score"] == row["match"]
    paths = {path for path, _ in server.asked}
    # vLLM scores pairs of many answers in one request; the numbers are the same.
    expected = "/v1/score" if (api, method) == ("vllm", "rerank") else row["calls"][0]
    assert paths == {expected}
    cut = [body for _, body in server.asked if "truncation_direction" in body or "truncate_prompt_tokens" in body]
    assert bool(cut) == (api != "openai")
    assert all("model" not in body for _, body in server.asked) == (api == "tei")


def test_templates_of_the_environment(server, monkeypatch):
    variables = {"AVERT_QUERY_TEMPLATE": r"ä {instruction}\n{query}", "AVERT_DOCUMENT_TEMPLATE": "D {document}"}
    use(monkeypatch, server.url, AVERT_PROMPT_TEMPLATE=None, AVERT_INSTRUCTION_PROMPT=" look ", **variables)
    list(Scorer(chance=False).score([CITY], answers_to("Lyon", "It is {query}.")))
    (_, body), *_ = server.asked
    assert set(body["text_1"]) == {"ä look\nIt is {query}."}
    assert "D Lyon" in body["text_2"]


def test_instructions_by_task(tmp_path):
    file = tmp_path / "instructions.json"
    file.write_text(json.dumps({"default": "d", "babi": "b"}))
    environ = {
        "AVERT_MODEL_ENDPOINT": "http://127.0.0.1:1/",
        "AVERT_ENDPOINT_TYPE": "tei",
        "AVERT_METHOD": "embedding",
        "AVERT_PROMPT_TEMPLATE": "embedding-with-instruction",
        "AVERT_INSTRUCTION_CONFIG_PATH": str(file),
        "AVERT_GROUPING": "mean_top_k_3",
        "AVERT_ENHANCE": "No",
    }
    found = settings_of({}, "babi", environ)
    assert (found.template.queried("q"), found.grouping, found.enhance, found.method) == (
        *("bq", "mean_top_k_3", False),
        "embedding",
    )
    assert found.address.url == "http://127.0.0.1:1/v1"
    environ["AVERT_INSTRUCTION_PROMPT"] = "e"
    assert settings_of({}, "babi", environ).template.queried("q") == "bq"
    assert settings_of({}, "mmlu", environ).template.queried("q") == "eq"
    # What the task says goes before what the environment says.
    found = settings_of({"instruction": "t ", "grouping": "max"}, "babi", environ)
    assert (found.template.queried("q"), found.grouping) == ("t q", "max")
    assert settings_of({"endpoint": "minilm"}, "babi", environ).address is None


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AVERT_MODEL_ENDPOINT": "localhost"}, "must be an address"),
        ({"AVERT_ENDPOINT_TYPE": "http"}, "AVERT_ENDPOINT_TYPE must be.*vllm, openai, tei"),
        ({"AVERT_METHOD": None}, "AVERT_METHOD must be.*It is not set"),
        ({"AVERT_MODEL_NAME": None}, "AVERT_MODEL_NAME is not"),
        ({"AVERT_PROMPT_TEMPLATE": "qwen"}, "no template 'qwen'.*qwen3-reranker"),
        ({"AVERT_PROMPT_TEMPLATE": None, "AVERT_QUERY_TEMPLATE": "{query}"}, "both AVERT_QUERY_TEMPLATE"),
        (
            {"AVERT_PROMPT_TEMPLATE": None, "AVERT_QUERY_TEMPLATE": "q", "AVERT_DOCUMENT_TEMPLATE": "d"},
            "where the text goes",
        ),
        ({"AVERT_GROUPING": "median"}, "no grouping 'median'"),
        ({"AVERT_ENHANCE": "perhaps"}, "AVERT_ENHANCE is 'perhaps'"),
        ({"AVERT_INSTRUCTION_CONFIG_PATH": "/nowhere.json"}, "cannot be read"),
    ],
)
def test_what_the_environment_cannot_say(monkeypatch, variables, message):
    use(monkeypatch, "http://127.0.0.1:1", **variables)
    with pytest.raises(ConfigError, match=message):
        Scorer()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rerank"}, "no endpoint is named"),
        ({"compat": True, "reading": "statement"}, "Leave out `reading`"),
        ({"grouping": "mean"}, "reading: whole"),
        ({"template": "qwen3-rerank"}, "no template 'qwen3-rerank'.*Did you mean 'qwen3-reranker'"),
        ({"template": {"query": "{instruction}{query}", "document": "{instruction}{document}"}}, "Both templates"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(ConfigError, match=message):
        Scorer(**options)


def no_index(reply):
    rows = reply.get("results", reply.get("data")) if isinstance(reply, dict) else reply
    rows[0].pop("index")
    return orjson.dumps(reply)


def not_a_number(reply):
    reply["results"][0]["relevance_score"] = "SCORE"
    return orjson.dumps(reply).replace(b'"SCORE"', b"NaN")


def none(reply):
    reply["results"][0]["relevance_score"] = None
    return orjson.dumps(reply)


def fewer(reply):
    (rows,) = [value for value in reply.values() if isinstance(value, list)]
    rows.pop()
    return orjson.dumps(reply)


def shorter(reply):
    reply["data"][0]["embedding"].pop()
    return orjson.dumps(reply)


def infinite(reply):
    reply["data"][0]["embedding"][0] = "inf"
    return orjson.dumps(reply)


FAULTS = [
    ("openai", "rerank", no_index, "without the index"),
    ("openai", "rerank", not_a_number, "NaN"),
    ("openai", "rerank", none, "is None, not a finite number"),
    ("openai", "rerank", fewer, "11 scores for 12 documents"),
    ("openai", "rerank", lambda reply: b"{}", "without 'results'"),
    ("openai", "embedding", no_index, "without the index"),
    ("openai", "embedding", fewer, "11 vectors for 12 texts"),
    ("openai", "embedding", shorter, "different sizes: 63, 64"),
    ("openai", "embedding", infinite, "not.*finite|finite numbers"),
    ("vllm", "rerank", no_index, "without the index"),
    ("vllm", "rerank", fewer, "11 scores for 12 pairs"),
    ("vllm", "rerank", lambda reply: orjson.dumps({"data": [{"index": n} for n in range(12)]}), "no 'score'"),
    ("tei", "rerank", no_index, "without the index"),
    ("tei", "embedding", lambda reply: orjson.dumps(reply[1:]), "11 vectors for 12 texts"),
]


@pytest.fixture
def patient(monkeypatch):
    """No pauses between tries."""
    from milepost.client import client

    monkeypatch.setattr(client, "LONGEST_PAUSE_S", 0.001)


@pytest.mark.parametrize(("api", "method", "fault", "message"), FAULTS)
def test_a_reply_that_is_none_is_asked_for_again_and_then_named(
    server, monkeypatch, patient, api, method, fault, message
):
    use(monkeypatch, server.url, AVERT_METHOD=method, AVERT_ENDPOINT_TYPE=api)
    scorer = Scorer(reading="whole", semscore=False, chance=False)
    server.faults = [fault]
    (score,) = scorer.score([CITY], answers_to("Lyon", "Lyon"))
    assert score["score"] == 1
    server.faults = [fault] * 6
    with pytest.raises(CallError, match=message):
        list(scorer.score([CITY], answers_to("Lyon", "Lyon")))


def test_throttling_and_drops_are_waited_out_and_a_dead_server_is_named(server, monkeypatch, patient):
    use(monkeypatch, server.url)
    server.faults = [429, "drop", 503]
    (score,) = Scorer(chance=False).score([CITY], answers_to("Lyon", "Lyon"))
    assert score["score"] == 1
    with Stub().running() as url:
        pass
    use(monkeypatch, url)
    with pytest.raises(CallError, match=r"connection.*what it answered is kept"):
        list(Scorer(chance=False).score([CITY], answers_to("Lyon", "Lyon")))


def test_an_endpoint_is_asked_as_often_as_its_entry_says(server, monkeypatch, tmp_path, patient):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    entry = {"provider": "external", "kind": "embedding", "model": "m", "url": f"{server.url}/v1", "retries": 1}
    (tmp_path / "config/endpoints.yaml").write_text(json.dumps({"small": entry}))
    server.faults = [503, 503]
    with pytest.raises(CallError):
        list(Scorer(endpoint="small", chance=False, semscore=False).score([CITY], answers_to("Lyon", "Lyon")))


def compared(server):
    """What was asked for: texts, queries, or pairs."""
    return [
        text
        for _, body in server.asked
        for text in body.get("input")
        or list(zip(body.get("text_1", ()), body.get("text_2", ()), strict=True))
        or [body["query"]]
    ]


@pytest.mark.parametrize("ends", [[402] * 600, ["drop"] * 600], ids=["unpaid", "gone"])
@pytest.mark.parametrize(("api", "method"), [("vllm", "rerank"), ("openai", "rerank"), ("vllm", "embedding")])
def test_scoring_again_repeats_nothing(server, monkeypatch, tmp_path, patient, api, method, ends):
    use(monkeypatch, server.url, AVERT_METHOD=method, AVERT_ENDPOINT_TYPE=api)
    monkeypatch.chdir(tmp_path)
    spec = {"name": "avert", "reading": "whole", "chance": False}
    contents = [f"It is {name}, I think, number {n}." for n in range(40) for name in ("Lyon", "Nice")]
    server.faults = [None, *ends]
    with pytest.raises(CallError):
        list(load_scorer(spec, CheckpointTask("c", "t")).score([CITY], answers_to("Lyon", *contents)))
    server.faults = []
    del server.asked[1:]
    first = compared(server)
    server.asked.clear()
    scores = list(load_scorer(spec, CheckpointTask("c", "t")).score([CITY], answers_to("Lyon", *contents)))
    assert len(scores) == 80
    again = compared(server)
    assert again
    assert not set(first) & set(again)
    assert scores == list(load_scorer(spec).score([CITY], answers_to("Lyon", *contents)))
    server.asked.clear()
    assert list(load_scorer(spec, CheckpointTask("c", "t")).score([CITY], answers_to("Lyon", *contents))) == scores
    assert not server.asked
    # Another checkpoint: its candidates are known, its answers are not.
    list(load_scorer(spec, CheckpointTask("d", "t")).score([CITY], answers_to("Lyon", "Somewhere else.")))
    assert {text[0] if isinstance(text, tuple) else text for text in compared(server)} == {"Somewhere else."}


def test_vectors_of_another_size_than_before_name_another_model(server, monkeypatch, tmp_path, patient):
    use(monkeypatch, server.url, AVERT_METHOD="embedding")
    monkeypatch.chdir(tmp_path)
    server.faults = [None, lambda reply: orjson.dumps({"data": [{**one, "embedding": [1.0]} for one in reply["data"]]})]
    contents = [f"It is Lyon, number {n}." for n in range(80)]
    with pytest.raises(ServerError, match="vectors of 1 numbers, and before that of 64: another model answers"):
        list(Scorer(chance=False).score([CITY], answers_to("Lyon", *contents)))


def test_who_compared_stands_beside_the_numbers(tmp_path, monkeypatch):
    told = Scorer().provenance()
    assert told["compared_by"]["endpoint"] == "minilm"
    assert (told["compared_by"]["method"], told["compared_by"]["reading"]) == ("embedding", "statement")
    assert "semscore_by" not in told
    use(monkeypatch, "http://user:secret@127.0.0.1:1", AVERT_METHOD="rerank")
    told = Scorer(semscore=True).provenance()
    assert (told["compared_by"]["model"], told["compared_by"]["reading"]) == ("m", "whole")
    assert told["semscore_by"] == "all-MiniLM-L6-v2"
    assert "secret" not in str(told)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    digests = set()
    for revision in ("1", "2"):
        (tmp_path / "config/endpoints.yaml").write_text(
            f"small: {{provider: external, kind: embedding, model: m, revision: '{revision}', url: 'http://127.0.0.1:1/v1'}}"
        )
        who = Scorer(endpoint="small").provenance()["compared_by"]
        assert (who["endpoint"], who["model"], who["revision"]) == ("small", "m", revision)
        digests.add(who["digest"])
    assert len(digests) == 2


def test_a_server_without_scoring_of_pairs_reranks(server, monkeypatch):
    use(monkeypatch, server.url)
    server.faults = [404]
    (score,) = Scorer(chance=False).score([CITY], answers_to("Lyon", "Lyon"))
    assert score["score"] == 1
    assert [path for path, _ in server.asked] == ["/v1/score", "/v1/rerank"]


@pytest.mark.parametrize("method", ["rerank", "embedding"])
def test_an_answer_that_is_too_long_is_unscored_and_counted(server, monkeypatch, method):
    use(monkeypatch, server.url, AVERT_METHOD=method)
    server.max_chars = 500
    scorer = Scorer(reading="whole", semscore=False, chance=False)
    long, short = scorer.score([CITY], answers_to("Lyon", "Lyon " * 101, "Lyon"))
    assert (long["score"], short["score"]) == (None, 1.0)
    assert "context" in long["note"]


def test_a_long_answer_has_no_semscore_and_all_else(server, monkeypatch):
    """An embedder of OpenAI's kind cuts nothing: only the SemScore needs the whole answer, the verdict its last sentences."""
    use(monkeypatch, server.url, AVERT_METHOD="embedding", AVERT_ENDPOINT_TYPE="openai")
    server.max_chars = 2000
    long = "It rains a lot there. " * 200 + "The answer is Lyon."
    first, second = Scorer(chance=False).score([CITY], answers_to("Lyon", long, "Lyon"))
    assert (first["score"], second["score"]) == (1.0, 1.0)
    assert first["metrics"]["semscore"] is None
    assert "no SemScore" in first["note"]
    assert second["metrics"]["semscore"] == pytest.approx(1)
    assert "note" not in second


@pytest.mark.parametrize(("method", "api"), [("rerank", "openai"), ("rerank", "vllm"), ("embedding", "openai")])
def test_a_long_candidate_costs_its_own_item_only(server, monkeypatch, method, api):
    use(monkeypatch, server.url, AVERT_METHOD=method, AVERT_ENDPOINT_TYPE=api)
    server.max_chars = 500
    items = [CITY, {**CITY, "id": "b", "target": "Lyon " * 101, "choices": ["Lyon " * 101, "Nice"]}]
    answers = [*answers_to("Lyon", "Lyon"), {**answers_to("Lyon", "Lyon")[0], "id": "b"}]
    good, bad = Scorer(semscore=False, chance=False).score(items, answers)
    assert good["score"] == 1.0
    assert bad["score"] is None
    assert "not compared" in bad["note"]


def test_an_endpoint_by_name(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCORING_KEY", "secret")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/endpoints.yaml").write_text(
        f"small: {{provider: external, kind: reranker, model: m, url: '{server.url}/v1', key_env: SCORING_KEY}}\n"
    )
    spec = {"name": "avert", "endpoint": "small", "method": "rerank", "api": "openai"}
    (score,) = load_scorer(spec, CheckpointTask("c", "t")).score([CITY], answers_to("Lyon", "Lyon, I am sure."))
    assert score["winner"] == {"group": "correct", "candidate": "Lyon"}
    kept = tmp_path / "results/judged/small/c/t.jsonl"
    assert kept.exists()
    assert "secret" not in kept.read_text()
    with pytest.raises(ConfigError, match="Did you mean 'small'"):
        list(Scorer(endpoint="smal", method="rerank").score([CITY], answers_to("Lyon", "Lyon")))


def test_what_decides_scores_beside_the_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    entry = "{provider: external, kind: KIND, model: m, revision: REV, url: 'http://127.0.0.1:1/v1'}"

    def written(kind, revision):
        (tmp_path / "config/endpoints.yaml").write_text(
            f"small: {entry.replace('KIND', kind).replace('REV', repr(revision))}\n"
        )
        scorer = load_scorer({"name": "avert", "endpoint": "small"}, CheckpointTask(None, "t"))
        check_scoring(scorer, [], "config/tasks/t.yaml")
        return scorer.decides()

    def decides(**options):
        return load_scorer({"name": "avert", **options}, CheckpointTask(None, "t")).decides()

    assert written("embedding", "1") != written("embedding", "2")
    with pytest.raises(ConfigError, match="'small', which is of kind chat.*kind: embedding"):
        written("chat", "1")
    with pytest.raises(ConfigError, match=r"config/tasks/t.yaml, scorer asks for endpoint 'smal'.*Did you mean"):
        check_scoring(load_scorer({"name": "avert", "endpoint": "smal"}), [], "config/tasks/t.yaml")
    assert decides() == {}
    use(monkeypatch, "http://127.0.0.1:1")
    before = decides()
    monkeypatch.setenv("AVERT_GROUPING", "mean")
    assert decides() != before
    assert decides(endpoint="minilm") == {}


def test_a_refusal_can_win(server, monkeypatch):
    use(monkeypatch, server.url, AVERT_METHOD="embedding")
    scorer = Scorer(reading="whole", refusal=True, semscore=False, chance=False)
    refused, named = scorer.score([CITY], answers_to("Lyon", "I cannot answer this question", "Therefore Lyon"))
    assert (refused["score"], refused["winner"]["group"]) == (0, "refusal")
    assert (named["score"], named["winner"]["group"]) == (1, "correct")
    assert refused["metrics"]["margin"] < 0 < named["metrics"]["margin"]


def test_semscore_is_the_cosine_of_the_whole_answer_with_the_target():
    scorer = Scorer(embed=vectors)
    (score,) = scorer.score([CITY], answers_to("Lyon", "It is not Paris. It is Lyon."))
    one, other = vector("It is not Paris. It is Lyon."), vector("Lyon")
    cosine = sum(a * b for a, b in zip(one, other, strict=True)) / math.sqrt(
        sum(a * a for a in one) * sum(b * b for b in other)
    )
    assert score["metrics"]["semscore"] == pytest.approx(cosine, abs=1e-9)
    assert score["score"] == 1


def test_wrong_answers_of_an_item():
    prompt = {"id": "a", "prompt": "?", "target": ["42", "forty-two"], "meta": {"wrong": ["4", "21", "53", "42."]}}
    (score,) = Scorer(embed=vectors).score([prompt], [{"id": "a", "sample": 0, "content": "So there are 42 left."}])
    assert (score["score"], score["winner"]["candidate"]) == (1, "42")


def test_kept_vectors(tmp_path):
    identity = {"model": "m"}
    asked = []

    def ask(missing, keep):
        asked.append(list(missing))
        for text in missing:
            keep([text], [vector(text)])

    with VectorStore(tmp_path, identity) as store:
        assert store.embed(["a", "b"], ask)[1].tolist() == vector("b")
        assert store.embed(["b", "c"], ask)[0].tolist() == vector("b")
    with VectorStore(tmp_path, identity) as store:
        assert store.embed(["c", "a", "d"], ask)[0].tolist() == vector("c")
    assert asked == [["a", "b"], ["c"], ["d"]]
    # Torn by a crash: a hash too many, half a vector.
    for file in tmp_path.rglob("*.vectors"):
        file.write_bytes(file.read_bytes()[:-100])
    with VectorStore(tmp_path, identity) as store:
        assert store.embed(["a", "c", "d"], ask)[2].tolist() == vector("d")
    assert asked[3] == ["c", "d"]
    with VectorStore(tmp_path, {"model": "n"}) as store:
        store.embed(["a"], ask)
    assert asked[4] == ["a"]
    with VectorStore(tmp_path, identity) as store, pytest.raises(Exception, match=r"2 numbers, and before that of 64"):
        store.embed(["e"], lambda missing, keep: keep(missing, [[1.0, 2.0]]))

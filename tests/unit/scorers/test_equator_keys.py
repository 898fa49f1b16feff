import json
import os
import re
import textwrap
from pathlib import Path

import pytest
import yaml

from milepost.campaign.config import check_scorer
from milepost.embedding.embedders import MiniLM
from milepost.endpoints.specs import load_endpoints
from milepost.errors import ConfigError, EnvironmentMissingError, RecordError, ServerError
from milepost.runtime.environments import environment_python
from milepost.schemas import check
from milepost.scorers import CheckpointTask, check_scoring, load_scorer
from milepost.scorers.equator import keys as equator_keys
from milepost.scorers.equator.keys import Key, build_collection, key_id, read_answer_key


def installed(*names):
    try:
        return all(map(environment_python, names))
    except EnvironmentMissingError:
        return False


needs_chroma = pytest.mark.skipif(not installed("equator"), reason="envs/equator is not installed")
needs_model = pytest.mark.skipif(not installed("equator", "semantic"), reason="envs/semantic is not installed")
SHARED = os.environ.get("MILEPOST_SHARED")
needs_shared = pytest.mark.skipif(not SHARED, reason="MILEPOST_SHARED names no folder with data/equator")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A collection of 1,200 keys, more than go into one statement, and what was found in it."""
    if not installed("equator"):
        pytest.skip("envs/equator is not installed")
    folder = tmp_path_factory.mktemp("keys") / "task" / "collection"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    keys = [Key(f"k{n}", f"Question {n}", f'Answer "{n}" ü', "abc"[n % 3]) for n in range(1200)]
    prompts = [
        {"id": "k7", "prompt": "Question 7"},
        {"id": "k8", "messages": [{"role": "system", "content": "?"}, {"role": "user", "content": "Question 9"}]},
        {"id": "other", "prompt": "Question 1199", "meta": {"answer_key": "k1199"}},
        {"id": "stranger", "prompt": "Question 1"},
    ]

    def embed(texts):
        angles = [int(text.split()[-1]) / 1200 for text in texts]
        return [[1 - angle, angle] for angle in angles]

    return folder, build_collection(folder, keys, prompts, embed)


def test_the_search_for_the_nearest_question_is_measured_apart(built):
    _, found = built
    record = found.record()
    assert (record["n"], record["n_found"]) == (3, 2)
    assert record["accuracy"] == pytest.approx(2 / 3)
    assert [(miss["id"], miss["nearest"]) for miss in record["misses"]] == [("k8", "k9")]
    assert record["misses"][0]["distance"] == pytest.approx(0, abs=1e-5)
    assert record["without_key"] == ["stranger"]


def test_a_collection_takes_the_place_of_an_older_one(built):
    folder, _ = built
    assert (folder / "chroma.sqlite3").is_file()
    assert not (folder / "old").exists()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["collection"]


@needs_model
@needs_shared
def test_the_real_key_with_the_real_embedder(tmp_path):
    keys = read_answer_key(Path(SHARED) / "data/equator/linguistic_benchmark.json")
    prompts = [{"id": key.id, "prompt": key.question} for key in keys]
    with MiniLM() as embed:
        found = build_collection(tmp_path / "collection", keys, prompts, embed)
    # Three of its questions have no answer.
    assert (found.n, found.n_found, found.without_key) == (30, 30, ["15", "17", "18"])
    assert {key.id: key.category for key in keys}["1"] == "Puzzle"


@needs_chroma
def test_a_failing_chroma_is_named(tmp_path, monkeypatch):
    keys = [Key("a", "Q?", "A")]
    with pytest.raises(ServerError, match="Chroma, which searches the answer key, failed.*envs/setup.sh equator"):
        # The same id twice, which no key that was read from a file has.
        build_collection(tmp_path / "collection", keys * 2, [], lambda texts: [[1.0, 0.0]] * len(texts))
    monkeypatch.setattr(equator_keys, "TIMEOUT_S", 0.01)
    with pytest.raises(ServerError, match="no answer within"):
        build_collection(tmp_path / "collection", keys, [], lambda texts: [[1.0, 0.0]] * len(texts))


GOOD = {"id": "a", "category": "x", "question": "Q?", "answer": "A"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        json.dumps([GOOD]),
        "\n " + json.dumps([GOOD], indent=2),
        json.dumps([{"index": "a", "category": "x", "question": "Q?", "human_answer": "A", "source": "mine"}]),
    ],
)
def test_forms_of_an_answer_key(tmp_path, text):
    path = tmp_path / "key.jsonl"
    path.write_text(text)
    assert read_answer_key(path) == [Key("a", "Q?", "A", "x")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no entry"),
        ("[]", "has no entry"),
        ("[1]", "entry 1 is no object"),
        ("[{", "is no JSON"),
        ("{", "line 1 is not JSON"),
        (json.dumps({**GOOD, "question": " "}), "entry 1: 'question' is not a text, or empty"),
        (json.dumps({**GOOD, "answer": 5}), "entry 1: 'answer' is not a text"),
        (json.dumps({"id": 1, "qestion": "Q"}), "no 'question'.*Did you mean 'qestion'"),
        (f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}", "entry 2: the id 'a' stands there already"),
    ],
)
def test_what_is_wrong_with_an_answer_key_is_named(tmp_path, text, message):
    path = tmp_path / "key.jsonl"
    path.write_text(text)
    with pytest.raises(RecordError, match=message):
        read_answer_key(path)


def test_a_number_is_an_id_and_an_item_may_name_another(tmp_path):
    path = tmp_path / "key.jsonl"
    path.write_text(
        '[{"index": 1, "question": "Q?", "human_answer": "A"}, {"index": 2, "question": "R?", "answer": ""}]'
    )
    assert read_answer_key(path) == [Key("1", "Q?", "A", "none"), Key("2", "R?", "", "none")]
    assert key_id({"id": "a", "prompt": "?", "meta": {"answer_key": 1}}) == "1"
    assert key_id({"id": "a", "prompt": "?"}) == "a"


def test_the_examples_in_the_docs_are_what_the_schemas_take(tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs/equator.md").read_text()
    read = [yaml.safe_load(textwrap.dedent(block)) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    endpoints, task, sampled = read
    (tmp_path / "config/endpoints.yaml").write_text(yaml.safe_dump(endpoints))
    check(task, "task_native", "docs/equator.md")
    for scorer in (task["scorer"], sampled["scorer"]):
        check_scorer(scorer, "docs/equator.md")
        assert set(scorer["evaluators"]) <= load_endpoints().keys()
    # The key that it shows, and the items that jq makes of it.
    lines = re.search(r"```json\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "key.jsonl").write_text(textwrap.dedent(lines))
    assert [key.id for key in read_answer_key("key.jsonl")] == ["horses", "doors"]


def test_a_campaign_is_checked_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/endpoints.yaml").write_text(
        "e: {provider: external, model: m, url: 'http://localhost:1/v1'}\n"
        "v: {provider: external, model: m, url: 'http://localhost:1/v1', kind: embedding}\n"
    )
    (tmp_path / "key.jsonl").write_text(json.dumps(GOOD))

    def checked(*ids, **options):
        spec = {"name": "equator", "evaluators": ["e"], "answer_key": "key.jsonl", **options}
        items = [{"id": ident, "prompt": "?"} for ident in ids or ["a"]]
        check_scoring(load_scorer(spec, CheckpointTask(None, "t")), items, "config/tasks/t.yaml")

    checked()
    checked("a", "without an entry")
    with pytest.raises(ConfigError, match="config/tasks/t.yaml, scorer asks for endpoint 'f'"):
        checked(evaluators=["e", "f"])
    with pytest.raises(ConfigError, match="'v', which is of kind embedding. Name one of kind chat"):
        checked(evaluators=["v"])
    with pytest.raises(ConfigError, match="2 evaluators mark each answer .* of 1"):
        checked(sample={"evaluators": 2})
    with pytest.raises(RecordError, match="nothere.jsonl"):
        checked(answer_key="nothere.jsonl")
    with pytest.raises(
        ConfigError, match="key.jsonl has no answer to any of the 2 items.*it has a, and the items have A, b"
    ):
        checked("A", "b")


def test_categories_that_read_alike_are_one(tmp_path):
    names = ["Caf\u00e9 maths", "cafe\u0301  Maths ", "Caf\u00e9\u00a0maths\u200b", "C", "C++"]
    path = tmp_path / "key.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": str(at), "question": "?", "answer": "!", "category": name}) + "\n"
            for at, name in enumerate(names)
        )
    )
    assert [key.category for key in read_answer_key(path)] == ["Caf\u00e9 maths"] * 3 + ["C", "C++"]

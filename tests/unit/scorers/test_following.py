"""The scorers ifeval and ifbench: their goldens, small checkers of our own in both layouts, and what goes wrong."""

import json
import os
from pathlib import Path

import pytest

from milepost.campaign.config import native_task
from milepost.errors import ConfigError, EnvironmentMissingError, RecordError
from milepost.runtime.environments import environment_python
from milepost.scorers import following, load_scorer
from milepost.statistics.summary import summarize
from milepost.tasks import build_prompts
from milepost.tasks.data_files import packaged
from milepost.tasks.known import read_known

GOLDEN = Path(__file__).parents[2] / "golden"
SHARED = Path(os.environ.get("MILEPOST_SHARED", "/nowhere"))
CHECKOUT = os.environ.get("MILEPOST_IFBENCH", "")


def installed(name):
    try:
        environment_python(name)
    except EnvironmentMissingError:
        return False
    return True


needs_checks = pytest.mark.skipif(not installed("benchmarks"), reason="envs/benchmarks is not installed")
needs_ifbench = pytest.mark.skipif(not installed("ifbench"), reason="envs/ifbench is not installed")
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="MILEPOST_SHARED names no folder with the originals' data"
)


def item(ident, *instructions, prompt="Write."):
    return {
        "id": ident,
        "messages": [{"role": "user", "content": prompt}],
        "meta": {"instructions": [{"id": name, "kwargs": kwargs} for name, kwargs in instructions]},
    }


def answer(ident, content, sample=0):
    return {"id": ident, "sample": sample, "content": content, "finish_reason": "stop"}


def score(scorer, items, *contents):
    answers = [answer(one["id"], content) for one, content in zip(items, contents, strict=True)]
    return list(scorer.score(items, answers))


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(found):
    return {
        one["id"]: {level: [got[level] for got in one["instructions"]] for level in ("strict", "loose")}
        for one in found
    }


@needs_checks
def test_ifeval_agrees_with_the_original_on_answers_that_repeat_the_prompt():
    golden = rows(GOLDEN / "ifeval_echo_prompt.jsonl")
    items = read_known(packaged("ifeval/data/input_data.jsonl"), "ifeval")
    assert len(items) == 541
    assert sum(len(one["meta"]["instructions"]) for one in items) == 834
    scorer = load_scorer({"name": "ifeval"})
    scorer.check(items)
    # Key 2785 has no answer among those of the original.
    items = [one for one in items if one["id"] != "2785"]
    found = score(scorer, items, *(one["messages"][0]["content"] for one in items))
    mine = told(found)
    assert {str(row["key"]): {"strict": row["strict"], "loose": row["loose"]} for row in golden} == {
        str(row["key"]): mine[str(row["key"])] for row in golden
    }
    # In two prompts the original counts a letter that it draws, and not '#' and '!', which stand there too seldom.
    numbers = {name: one["value"] for name, one in scorer.reduce(items, found).items()}
    assert numbers["prompt_strict"] == pytest.approx(134 / 540)
    assert numbers["instruction_strict"] == pytest.approx(300 / 832)
    assert numbers["prompt_loose"] == pytest.approx(161 / 540)
    assert numbers["instruction_loose"] == pytest.approx(342 / 832)
    assert numbers["crashed"] == 0


@needs_checks
@needs_shared
@pytest.mark.parametrize("name", ["example_en_responses", "upper", "empty"])
def test_ifeval_agrees_with_the_original(name):
    items = read_known(SHARED / "data/ifeval/input_data.jsonl", "ifeval")
    said = {row["prompt"]: row["response"] for row in rows(SHARED / "data/ifeval/example_en_responses.jsonl")}
    change = {"upper": str.upper, "empty": lambda text: ""}.get(name, str)
    items = [one for one in items if one["messages"][0]["content"] in said]
    found = told(
        score(load_scorer({"name": "ifeval"}), items, *(change(said[one["messages"][0]["content"]]) for one in items))
    )
    golden = rows(SHARED / f"golden/ifeval_{name}.jsonl")
    assert len(golden) > 200
    for row in golden:
        assert found[str(row["key"])] == {"strict": row["strict"], "loose": row["loose"]}, row["key"]


@needs_ifbench
@needs_shared
@pytest.mark.skipif(not CHECKOUT, reason="MILEPOST_IFBENCH names no checkout of IFBench's repository")
def test_ifbench_agrees_with_the_original(monkeypatch):
    monkeypatch.setenv("NLTK_DATA", str(SHARED / "data/nltk_data"))
    items = read_known(SHARED / "data/ifbench/IFBench_test.jsonl", "ifbench")
    said = {row["prompt"].strip(): row["response"] for row in rows(SHARED / "data/ifbench/sample_output.jsonl")}
    items = [one for one in items if one["messages"][0]["content"].strip() in said]
    assert len(items) == 293
    scorer = load_scorer({"name": "ifbench", "ifbench_dir": CHECKOUT})
    found = score(scorer, items, *(said[one["messages"][0]["content"].strip()] for one in items))
    mine = told(found)
    for row in rows(SHARED / "golden/ifbench_sample_output.jsonl"):
        if row["key"] in mine:
            assert mine[row["key"]] == {"strict": row["strict"], "loose": row["loose"]}, row["key"]
    golden = json.loads((SHARED / "golden/ifbench_summary.json").read_text())
    numbers = {name: one["value"] for name, one in scorer.reduce(items, found).items()}
    for level in ("strict", "loose"):
        assert numbers[f"prompt_{level}"] == pytest.approx(golden[level]["prompt_accuracy"])
        assert numbers[f"instruction_{level}"] == pytest.approx(golden[level]["instruction_accuracy"])


@needs_checks
@pytest.mark.parametrize(
    ("content", "strict", "loose"),
    [
        ("no commas here", 1, 1),
        ("Sure, here it is:\nno commas here", 0, 1),
        ("no commas here\nBye, now", 0, 1),
        ("Sure, so:\nno commas here\nBye, now", 0, 1),
        ("one, two", 0, 0),
        ("  \n ", 0, 0),
        ("", 0, 0),
        ("<think>a, b</think>no commas here", 1, 1),
        ("<think>and so on without an end", 0, 0),
    ],
)
def test_strict_and_loose(content, strict, loose):
    items = [item("a", ("punctuation:no_comma", {}))]
    (found,) = score(load_scorer({"name": "ifeval"}), items, content)
    assert found["metrics"] == {
        "prompt_strict": strict, "instruction_strict": strict, "prompt_loose": loose, "instruction_loose": loose, "crashed": 0,
    }  # fmt: skip
    assert found["score"] == strict


@needs_checks
def test_a_sign_that_is_no_letter_is_counted():
    hashes = ("keywords:letter_frequency", {"letter": "#", "let_relation": "at least", "let_frequency": 4})
    items = [item(name, hashes) for name in "abc"]
    found = score(
        load_scorer({"name": "ifeval"}), items, "#a #b #c #d", "#a #b #c", "every letter of the alphabet, many times"
    )
    assert [one["score"] for one in found] == [1, 0, 0]


@needs_checks
def test_instructions_weigh_alike_whatever_prompt_they_stand_in():
    one, three = item("a", ("punctuation:no_comma", {})), item("b", *[("punctuation:no_comma", {})] * 3)
    scorer = load_scorer({"name": "ifeval"})
    prompts = [one, three]
    answers = [answer("a", "no", 0), answer("a", "a, b", 1), answer("b", "a, b", 0), answer("b", "no", 1)]
    answers.append({"id": "b", "sample": 2, "error": {"type": "context", "message": "too long"}})
    found = list(scorer.score(prompts, answers))
    assert found[-1]["score"] is None
    assert [one["weights"]["instruction_strict"] for one in found[:-1]] == [1, 1, 3, 3]
    numbers = scorer.reduce(prompts, found)
    assert numbers["prompt_strict"]["value"] == 0.5
    assert numbers["instruction_strict"]["value"] == 0.5
    answers[3]["content"] = "a, b"
    numbers = scorer.reduce(prompts, list(scorer.score(prompts, answers)))
    assert numbers["instruction_strict"]["value"] == pytest.approx(0.5 / 4)
    assert numbers["prompt_strict"]["value"] == 0.25


@needs_checks
def test_many_answers_are_shared_out_among_processes(monkeypatch):
    monkeypatch.setattr(following, "_ANSWERS_EACH", 2)
    monkeypatch.setattr(following.os, "sched_getaffinity", lambda pid: set(range(8)))
    items = [item(str(number), ("punctuation:no_comma", {})) for number in range(9)]
    found = score(load_scorer({"name": "ifeval"}), items, *("a, b" if number % 3 else "a b" for number in range(9)))
    assert [one["score"] for one in found] == [1, 0, 0] * 3
    assert list(load_scorer({"name": "ifeval"}).score(items, [])) == []


@pytest.mark.parametrize(
    ("instructions", "said"),
    [
        ([{"id": "punctuation:no_coma", "kwargs": {}}], "unknown kind, 'punctuation:no_coma'.*Did you mean 'punctuation:no_comma'"),
        ([{"id": "keywords:existence", "kwargs": {}}], "keywords:existence takes keywords; it has none"),
        ([{"id": "punctuation:no_comma", "kwargs": {"a": 1}}], "takes no arguments; it has a"),
        ([{"id": "punctuation:no_comma"}], "is a list of objects with `id`"),
        ("no commas", "has no instructions to check"),
        ([], "has no instructions to check"),
        (
            [{"id": "keywords:letter_frequency", "kwargs": {"letter": "ab", "let_relation": "at least", "let_frequency": 1}}],
            "counts one sign, and `letter` is 'ab'",
        ),
    ],
)  # fmt: skip
def test_items_that_cannot_be_checked(instructions, said):
    broken = {"id": "a", "prompt": "x", "meta": {"instructions": instructions}}
    with pytest.raises(RecordError, match=f"^Item 'a'.*{said}"):
        load_scorer({"name": "ifeval"}).check([broken])


@needs_checks
def test_arguments_that_a_check_refuses_name_the_item():
    items = [item("a", ("length_constraints:number_words", {"num_words": 3, "relation": "about"}))]
    with pytest.raises(
        RecordError, match=r"^Item 'a': the instruction length_constraints:number_words cannot be checked"
    ):
        score(load_scorer({"name": "ifeval"}), items, "x")


# Checkers of our own, with the interface of the benchmark's.
CHECKERS = '''
UTIL
class Checker:
    def __init__(self, ident): self.ident = ident
    def build_description(self, **kwargs): self.kwargs = kwargs
    def get_instruction_args(self): return self.kwargs
class Says(Checker):
    def check_following(self, value): return self.kwargs["word"] in instructions_util.words(value)
class Short(Checker):
    def check_following(self, value):
        print("checked")
        return len(value) < 9
class Crashes(Checker):
    def check_following(self, value): return instructions_util.words(value)[3] == "x"
class Exits(Checker):
    def check_following(self, value): raise SystemExit(1)
class Prompted(Checker):
    def build_description(self, prompt=None): self.kwargs = {"prompt": prompt}
    def check_following(self, value): return value == self.kwargs["prompt"]
class Tagged(Checker):
    def check_following(self, value):
        import nltk
        return nltk.data.find("taggers/that_nobody_has")
class Endless(Checker):
    def check_following(self, value):
        while True: pass
'''  # fmt: skip
REGISTRY = """
IMPORT
INSTRUCTION_DICT = {name.lower(): getattr(instructions, name) for name in
                    ("Says", "Short", "Crashes", "Exits", "Prompted", "Tagged", "Endless")}
"""
# What a checkout does when it is imported: older ones download a model, newer ones make a folder.
OLD = "from spacy.cli import download\nimport instructions_util\ndownload('en_core_web_sm')\n"
NEW = (
    "from pathlib import Path\n(Path(__file__).parent / '.nltk_data').mkdir(exist_ok=True)\n"
    "import nltk\nnltk.download('stopwords')\nfrom ifbench import instructions_util\n"
)


@pytest.fixture(params=["old", "old, in a folder of the newer's name", "new", "inside"])
def checkout(tmp_path, request):
    new = not request.param.startswith("old")
    place = tmp_path / ("ifbench" if "folder" in request.param else "IFBench")
    modules = place / "ifbench" if new else place
    modules.mkdir(parents=True)
    if new:
        (modules / "__init__.py").touch()
        (place / "evaluation_lib.py").write_text("from ifbench import instructions_registry\n")
    (modules / "instructions_util.py").write_text("def words(text): return text.split()\n")
    (modules / "instructions.py").write_text(CHECKERS.replace("UTIL", NEW if new else OLD))
    imported = "from ifbench import instructions" if new else "import instructions"
    (modules / "instructions_registry.py").write_text(REGISTRY.replace("IMPORT", imported))
    return modules if request.param == "inside" else place


def ifbench(checkout, **options):
    return load_scorer({"name": "ifbench", "ifbench_dir": str(checkout), **options})


@needs_ifbench
def test_ifbench_in_every_layout(checkout):
    scorer = ifbench(checkout)
    items = [
        item("a", ("says", {"word": "moon"}), ("short", {})),
        item("b", ("prompted", {}), prompt="Say this."),
        item("c", ("says", {"word": "x"}), ("crashes", {}), ("exits", {})),
    ]
    scorer.check(items)
    assert {Path(path).name for path in scorer.needs().files} >= {"instructions.py", "instructions_registry.py"}
    found = score(scorer, items, "the moon\nand the sun", "Say this.", "x")
    assert [one["score"] for one in found] == [1, 1, 0]
    assert found[0]["metrics"]["instruction_strict"] == 0.5
    assert found[0]["metrics"]["instruction_loose"] == 1
    # A checker that crashes is not followed; what else the prompt asks for stands.
    assert found[2]["metrics"]["instruction_loose"] == pytest.approx(1 / 3)
    assert found[2]["metrics"]["crashed"] == pytest.approx(2 / 3)
    assert [("crashed" in one) for one in found[2]["instructions"]] == [False, True, True]
    assert "the check of crashes crashed: IndexError" in found[2]["note"]
    strict = ifbench(checkout, compat=True)
    assert score(strict, items, "the moon", "Say this.", "x")[2]["metrics"]["instruction_loose"] == 0
    assert scorer.provenance()["checks"]["nltk"]


@needs_ifbench
@pytest.mark.parametrize("checkout", ["new"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("haiku", r"Item 'a' has an instruction of an unknown kind, 'haiku'\. Kinds: crashes, endless"),
        ("tagged", r"NLTK's data .*that_nobody_has.* is not on this machine.*nltk\.downloader.*NLTK_DATA"),
    ],
)
def test_what_is_missing_is_no_verdict(checkout, kind, said):
    with pytest.raises(RecordError, match=said):
        score(ifbench(checkout), [item("a", (kind, {}))], "x")


@needs_ifbench
@pytest.mark.parametrize("checkout", ["new"], indirect=True)
def test_a_check_that_does_not_end_is_not_followed(checkout, monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(following._WORKER.read_text().replace("LIMIT_S = 60", "LIMIT_S = 1"))
    monkeypatch.setattr(following, "_WORKER", worker)
    (found,) = score(ifbench(checkout), [item("a", ("endless", {}), ("short", {}))], "x")
    assert found["metrics"]["instruction_strict"] == 0.5
    assert "did not end within 1 s" in found["note"]


@needs_ifbench
@pytest.mark.parametrize("checkout", ["new"], indirect=True)
def test_a_checkout_that_cannot_be_imported_says_why(checkout):
    (checkout / "ifbench/instructions_util.py").write_text("import a_package_of_nobodys\n")
    with pytest.raises(RecordError, match="needs the package a_package_of_nobodys"):
        score(ifbench(checkout), [item("a", ("short", {}))], "x")
    (checkout / "ifbench/instructions_util.py").write_text("1 / 0\n")
    with pytest.raises(RecordError, match="cannot be loaded or used: ZeroDivisionError"):
        score(ifbench(checkout), [item("a", ("short", {}))], "x")
    (checkout / "ifbench/instructions_util.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(EnvironmentMissingError, match=r"ended after 0 of 1 answers \(exit code 3\)"):
        score(ifbench(checkout), [item("a", ("short", {}))], "x")


def test_a_missing_checkout_says_where_to_get_one(tmp_path):
    items = [item("a", ("short", {}))]
    for folder, said in ((tmp_path / "IFBench", "is no folder"), (tmp_path, "has no instructions_registry.py")):
        with pytest.raises(ConfigError, match=f"{said}.*git clone https://github.com/allenai/IFBench"):
            ifbench(folder).check(items)
        assert ifbench(folder).needs().files == ()


@needs_checks
def test_a_whole_task_with_several_samples(tmp_path):
    data = tmp_path / "rows.jsonl"
    row = {"key": 1, "prompt": "P", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    data.write_text("".join(json.dumps({**row, "key": key}) + "\n" for key in (1, 2, 3)))
    spec = {"version": 1, "data": str(data), "format": "ifeval", "samples": 2, "scorer": {"name": "ifeval"}, "k": [2]}
    prompts = build_prompts(native_task("t", spec, "here"))
    scorer = load_scorer({"name": "ifeval"})
    right = {("1", 0), ("1", 1), ("2", 0)}
    answers = [
        answer(key, "a b" if (key, sample) in right else "a, b", sample) for key in ("1", "2", "3") for sample in (0, 1)
    ]
    scores = list(scorer.score(prompts.prompts, answers))
    summary = summarize(
        "c", prompts, answers, scores, scorer="ifeval", metric="instruction_strict", provenance={}, metrics=scorer.metrics,
        reduce=lambda some: scorer.reduce(prompts.prompts, some), ks=[2],
    )  # fmt: skip
    assert summary["value"] == 0.5
    assert summary["runs"]["per_run"] == pytest.approx([2 / 3, 1 / 3])
    assert summary["runs"]["std"] == pytest.approx((1 / 18) ** 0.5)
    assert summary["metrics"]["pass@2"]["value"] == pytest.approx(2 / 3)
    assert summary["metrics"]["pass^2"]["value"] == pytest.approx(1 / 3)
    assert summary["scales"]["crashed"]["better"] == "lower"

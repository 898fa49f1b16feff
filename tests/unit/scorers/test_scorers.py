import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from milepost import scorers
from milepost.errors import ConfigError, RecordError, UnknownScorerError
from milepost.scorers import expressions, load_scorer, scorer_names
from milepost.statistics.metrics import Metric

ROOT = Path(__file__).parents[3]
SCHEMAS = ROOT / "config/schemas/scorers"


def score(spec, prompt, *contents):
    answers = [{"id": "a", "sample": n, "content": content} for n, content in enumerate(contents)]
    return list(load_scorer(spec).score([{"id": "a", "prompt": "?", **prompt}], answers))


def exact(content, target, **options):
    return score({"name": "exact_match", **options}, {"target": target}, content)[0]["score"]


def checks(content, *constraints):
    metrics = score({"name": "constraints"}, {"meta": {"constraints": list(constraints)}}, content)[0]["metrics"]
    return metrics["constraints"], metrics["instruction"]


def test_names_are_those_of_the_schemas():
    assert scorer_names() == sorted(file.stem for file in SCHEMAS.glob("*.yaml"))
    assert {"avert", "constraints", "exact_match"} <= set(scorer_names())


@pytest.mark.parametrize("name", ["exact_mach", "responses", "minilm", "../errors", "", None])
def test_unknown_scorer(name):
    with pytest.raises(UnknownScorerError, match=r"Scorers: .*exact_match"):
        load_scorer({"name": name})


def test_unknown_scorer_hints():
    with pytest.raises(UnknownScorerError, match="Did you mean 'exact_match'"):
        load_scorer({"name": "exact_mach"})


# Options without a default.
REQUIRED = {
    "equator": {"evaluators": ["e"], "answer_key": "key.jsonl"},
    **{name: {"judges": ["j"]} for name in ("healthbench", "writingbench", "arena_hard", "alpaca_eval")},
    "ifbench": {"ifbench_dir": "IFBench"},
}


def taken_by(scorer):
    """The options that a scorer takes; `**options` are those of the class that it is derived from."""
    taken = {}
    for made in type(scorer).__mro__:
        own = inspect.signature(made).parameters
        taken = {**{name: one for name, one in own.items() if one.kind is one.KEYWORD_ONLY}, **taken}
        if not any(one.kind is one.VAR_KEYWORD for one in own.values()):
            return taken
    return taken


@pytest.mark.parametrize("name", scorer_names())
def test_schema_is_closed_and_described_and_is_what_the_scorer_takes(name):
    schema = yaml.safe_load((SCHEMAS / f"{name}.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["name"]["const"] == name
    assert all(option.get("description") for option in schema["properties"].values())
    required = REQUIRED.get(name, {})
    assert schema["required"] == ["name", *required]
    scorer = load_scorer({"name": name, **required})
    taken = taken_by(scorer)
    options = schema["properties"].keys() - {"name"}
    assert options == taken.keys() - {"embed", "place", "keys", "opens"}
    for option in options - required.keys():
        own = taken[option].default
        assert own is inspect.Parameter.empty or own == schema["properties"][option].get("default")
    assert scorer.name == name
    assert all(isinstance(metric, Metric) for metric in scorer.metrics)
    assert len(set(scorer.metric_names)) == len(scorer.metric_names) > 0


# What may name scorers: their own files, what a user writes or reads, and what is one scorer's alone.
OWN = ("milepost/scorers/", "score_rows.py", "document_config.py")
# A benchmark's data has its name as well.
FORMATS = ("milepost/tasks/data_files.py", "milepost/tasks/known.py")


@pytest.mark.parametrize("name", scorer_names())
def test_no_other_file_names_a_scorer(name):
    """Rules, steps and rooms ask a scorer what it needs; `exact_match` is a metric of harnesses as well."""
    files = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk"), *(ROOT / "scripts").rglob("*.py")]
    there = [
        file
        for file in files
        if not file.relative_to(ROOT / "scripts" if "scripts" in file.parts else ROOT)
        .as_posix()
        .startswith((*OWN, *FORMATS))
    ]
    code = {file: re.sub(r'(?s)""".*?"""|#[^\n]*', "", file.read_text()) for file in there}
    named = re.compile(rf"scorers[./]{name}\b|[\"']{name}[\"']")
    assert not [str(file.relative_to(ROOT)) for file, text in code.items() if named.search(text)]


@pytest.mark.parametrize("name", scorer_names())
def test_a_scorer_starts_without_heavy_imports(name):
    code = (
        "import sys, json; from milepost.scorers import load_scorer; load_scorer(json.loads(sys.argv[1])); "
        "print(*{'numpy', 'scipy', 'pandas', 'torch'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, json.dumps({"name": name, **REQUIRED.get(name, {})})]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_only_what_defines_a_scorer_is_one(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Scorer:\n    ...\n")
    (tmp_path / "other.py").write_text("from mine import Scorer\n")
    monkeypatch.setattr(scorers, "__file__", str(tmp_path / "__init__.py"))
    assert scorer_names() == ["mine"]


@pytest.mark.parametrize("name", ["exact_match", "constraints"])
def test_scores_follow_the_answers(name):
    prompt = {"target": "yes", "meta": {"cluster": 7, "constraints": [{"kind": "upper_case"}]}}
    prompts = [{"id": key, "prompt": "?", **prompt} for key in "ab"]
    error = {"type": "context", "message": "too long"}
    answers = [
        {"id": "b", "sample": 1, "content": "<think>no"},
        {"id": "a", "sample": 0, "error": error},
        {"id": "b", "sample": 0, "content": None},
    ]
    scorer = load_scorer({"name": name})
    first, failed, empty = scorer.score(prompts, answers)
    assert [(s["id"], s["sample"]) for s in (first, failed, empty)] == [("b", 1), ("a", 0), ("b", 0)]
    assert first["score"] == 0
    assert "truncated" in first["note"]
    assert first["cluster"] == "7"
    assert failed["score"] is None
    assert failed["metrics"] == dict.fromkeys(scorer.metric_names)
    assert failed["note"] == "failed: context: too long"
    assert empty["score"] == 0
    assert "note" not in empty
    assert tuple(empty["metrics"]) == scorer.metric_names


def test_answers_to_other_prompts_are_refused():
    prompts = [{"id": "a", "prompt": "?", "target": "x"}]
    scorer = load_scorer({"name": "exact_match"})
    with pytest.raises(RecordError, match="item 'b'"):
        list(scorer.score(prompts, [{"id": "b", "sample": 0, "content": "x"}]))
    with pytest.raises(RecordError, match="same id"):
        list(scorer.score(prompts * 2, []))


@pytest.mark.parametrize(
    ("content", "target", "options", "match"),
    [
        ("Paris", "Paris", {}, 1),
        (" Paris\n", "Paris", {}, 1),
        (" Paris", "Paris", {"strip": False}, 1),  # the ends of an answer are stripped with its reasoning
        ("Paris", " Paris", {"strip": False}, 0),
        ("paris", "Paris", {}, 0),
        ("paris", "Paris", {"ignore_case": True}, 1),
        ("Paris.", "Paris", {}, 0),
        ("Paris.", "Paris", {"ignore_punctuation": True}, 1),
        ("15", "1.5", {"ignore_punctuation": True}, 0),
        ("5", "-5", {"ignore_punctuation": True}, 0),
        ("Paris", ["Lyon", "Paris"], {}, 1),
        ("Nice", ["Lyon", "Paris"], {}, 0),
        ("", "Paris", {}, 0),
        ("so 3, no, #### 42", "42", {"extract": r"\d+"}, 1),
        ("#### 42 of 50", "42", {"extract": r"#### (\d+)"}, 1),
        ("ab", "b", {"extract": r"(x)|b"}, 0),
        ("<think>Lyon</think>Paris", "Paris", {}, 1),
        ("\u22125", "-5", {}, 1),
        ("cafe\u0301", "caf\u00e9", {}, 1),
        ("New\u202fYork\u200b", "New York", {}, 1),
        ("so it is \u22125", "-5", {"extract": r"-?\d+"}, 1),
        ("so it is \u22125", "5", {"extract": r"-?\d+"}, 0),
        ("it is \u2460", "\u2460", {"extract": "[\u2460-\u2468]"}, 1),
        ("2, 3", "2,3", {"ignore_punctuation": True}, 1),
        ("", "?", {"ignore_punctuation": True}, 0),
        ("20240501", "2024-05-01", {"ignore_punctuation": True}, 0),
    ],
)
def test_exact_match(content, target, options, match):
    assert exact(content, target, **options) == match


def test_exact_match_notes_what_it_could_not_extract():
    (found,) = score({"name": "exact_match", "extract": r"\d"}, {"target": "4"}, "four")
    assert found["score"] == 0
    assert "`extract` matches nothing" in found["note"]


def test_an_expression_that_backtracks_for_ever_is_unreadable_and_does_not_stop_the_others(monkeypatch, caplog):
    monkeypatch.setattr(expressions, "LIMIT_S", 0.2)
    spec = {"name": "exact_match", "extract": "(?:a|aa)+$"}
    first, slow, last = score(spec, {"target": "aaa"}, "aaa", "a" * 60 + "b", "aaa")
    assert (first["score"], last["score"]) == (1.0, 1.0)
    assert (slow["score"], slow["metrics"]) == (None, {"exact_match": None})
    assert "'(?:a|aa)+$' took more than 0.2 s" in slow["note"]
    assert "took too long on 1 of 3 answers, which count as unreadable" in caplog.text


def test_what_lm_eval_ignores_has_its_time_as_well(monkeypatch):
    monkeypatch.setattr(expressions, "LIMIT_S", 0.2)
    spec = {"name": "exact_match", "compat": "lm-eval", "regexes_to_ignore": ["(?:a|aa)+$", r"\d"]}
    first, slow = score(spec, {"target": "b"}, "b1", "a" * 60 + "b")
    assert (first["score"], slow["score"]) == (1.0, None)
    with pytest.raises(ConfigError, match="on the target of item 'a'.*took more than"):
        load_scorer(spec).check([{"id": "a", "prompt": "?", "target": "a" * 60 + "b"}])


def test_an_expression_has_its_time_for_every_answer_anew_and_long_answers_fit_into_it():
    spec = {"name": "exact_match", "extract": r"(\d+)"}
    assert [one["score"] for one in score(spec, {"target": "7"}, *["word 7 " * 20_000] * 3)] == [1.0] * 3


@pytest.mark.parametrize("extract", ["(", "a{1,99999999999}", "[z-a]", "(?P<n>a)(?P<n>b)", "\\", "*a", "(?<=a+)b"])
def test_what_is_no_expression_is_said_when_the_task_is_checked(extract):
    with pytest.raises(ConfigError, match="exact_match cannot use `extract: .*Write a Python regular expression"):
        load_scorer({"name": "exact_match", "extract": extract})


def test_exact_match_refuses_what_it_cannot_use():
    with pytest.raises(ConfigError, match=r"extract: \(\.`.*single quotes"):
        load_scorer({"name": "exact_match", "extract": "(."})
    for target in ({}, {"target": []}, {"target": " "}, {"target": [3]}):
        with pytest.raises(RecordError, match="'a' has no `target`"):
            score({"name": "exact_match"}, target, "x")


@pytest.mark.parametrize(
    ("content", "target", "options", "match"),
    [
        ("\u22125.0", "-5", {}, 1),
        ("5", "-5", {}, 0),
        ("1.200,50", "1200.5", {}, 1),
        ("\u00bd", "0.5", {}, 1),
        ("5 %", "0.05", {}, 1),
        ("5%", "5", {}, 0),
        ("42 apples", "42", {}, 1),
        ("5 km", "5 m", {}, 0),
        ("3 or 4", "3", {}, 0),
        ("\u0664\u0662", "42", {}, 1),
        ("so it is 1,200.", "1200", {"extract": r"[\d,]+"}, 1),
        ("3.15", "3.14", {"tolerance": 0.01}, 1),
        ("3.16", "3.14", {"tolerance": 0.01}, 0),
        ("99", "100", {"tolerance": "1%"}, 1),
        ("98.9", "100", {"tolerance": "1%"}, 0),
        ("7", ["5", "7"], {}, 1),
    ],
)
def test_exact_match_of_numbers(content, target, options, match):
    assert exact(content, target, compare="number", **options) == match


def test_exact_match_says_why_an_answer_is_no_number():
    (found,) = score({"name": "exact_match", "compare": "number"}, {"target": "4"}, "four")
    assert found["score"] == 0
    assert "not one number" in found["note"]
    with pytest.raises(RecordError, match=r"target of item 'a' is not a number: 'x'"):
        exact("4", ["4", "x"], compare="number")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 1}, "Add `compare: number`"),
        ({"compare": "number", "tolerance": -1}, "tolerance: -1"),
        ({"compare": "number", "tolerance": float("nan")}, "tolerance: nan"),
        ({"compare": "number", "tolerance": "1"}, None),
        ({"compare": "number", "tolerance": "a bit"}, "a bit"),
        ({"compare": "number", "compat": "lm-eval"}, "Leave out `compare` or `compat`"),
        ({"ignore_numbers": True}, "Add `compat: lm-eval`"),
        ({"regexes_to_ignore": ["x"]}, "Add `compat: lm-eval`"),
        ({"compat": "lm-eval", "regexes_to_ignore": ["(."]}, r"regexes_to_ignore: \(\."),
    ],
)
def test_exact_match_refuses_options_that_contradict_each_other(options, message):
    if message is None:
        load_scorer({"name": "exact_match", **options})
        return
    with pytest.raises(ConfigError, match=message):
        load_scorer({"name": "exact_match", **options})


LM_EVAL = json.loads((ROOT / "tests/golden/lm_eval_exact_match.json").read_text())["rows"]


def test_exact_match_as_lm_eval():
    different = [
        row
        for row in LM_EVAL
        if row["target"].strip()
        and exact(row["answer"], row["target"], compat="lm-eval", **row["options"]) != row["exact_match"]
    ]
    assert len(LM_EVAL) > 200
    assert different == []


@pytest.mark.parametrize(
    ("content", "word", "times", "holds"),
    [
        ("tea Tea TEA", "tea", 3, True),
        ("tea, tea; teapot", "tea", 2, True),
        ("tea-tea", "tea", 2, True),
        ("tea tea", "tea", 1, False),
        ("tea_tea", "tea", 0, True),
        ("C++ and C#, not C.", "C", 1, True),
        ("C++ and C#", "C#", 1, True),
        ("10%, 10 % and 10", "10", 1, True),
        ("10%, 10 % and 10", "10%", 2, True),
        ("-5 and \u22125 and 5", "-5", 2, True),
        ("-5 and \u22125 and 5", "5", 1, True),
        ("New York, new-york, New  York", "new york", 3, True),
        ("la la la la", "la la", 2, True),
        ("cafe\u0301 caf\u00e9", "caf\u00e9", 2, True),
        ("a+b a+b", "a+b", 2, True),
        ("", "tea", 1, False),
    ],
)
def test_repeat_word(content, word, times, holds):
    assert checks(content, {"kind": "repeat_word", "word": word, "times": times}) == (holds, holds)


@pytest.mark.parametrize(
    ("content", "word", "holds"),
    [
        ("This is the end.", "end", True),
        ("THE END!!! ***", "end", True),
        ('He said "end".', "end", True),
        ("the weekend", "end", False),
        ("end of it", "end", False),
        ("the end", "End!", True),
        ("This is the end.", "the end", True),
        ("This is the  **end**.", "the end", True),
        ("an end", "the end", False),
        ("I like C++.", "C", False),
        ("I like C++.", "C++", True),
        ("It grew by 10%", "10", False),
        ("It grew by 10%", "10%", True),
        ("minus: -5", "5", False),
        ("minus: \u22125.", "-5", True),
        ("the end \U0001f600", "end", True),
        ("at 12:30", "30", False),
        ("The answer = -5.", "-5", True),
        ("The answer = -5.", "5", False),
        ("so x <= 7", "7", True),
        ("so x <= 7", "x <= 7", True),
        ("end", "the end", False),
        ("", "end", False),
        ("...", "end", False),
    ],
)
def test_end_with(content, word, holds):
    assert checks(content, {"kind": "end_with", "word": word}) == (holds, holds)


@pytest.mark.parametrize(
    ("content", "holds"),
    [("YES, 12!", True), ("YES, no", False), ("12!", False), ("", False), ("ÄÖ", True), ("ß", False)],
)
def test_upper_case(content, holds):
    assert checks(content, {"kind": "upper_case"}) == (holds, holds)


def test_constraints_hold_all_or_not():
    upper, end = {"kind": "upper_case"}, {"kind": "end_with", "word": "end"}
    assert checks("THE END", upper, end) == (1.0, 1.0)
    assert checks("the end", upper, end) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"kind": "repeat_words"}, "unknown kind.*Did you mean 'repeat_word'"),
        ({"kind": ["x"]}, "unknown kind"),
        ("upper_case", "unknown kind"),
        ({"kind": "repeat_word", "word": "x"}, r"takes word \(text\), times \(whole number\)"),
        ({"kind": "repeat_word", "word": "x", "times": True}, "takes word"),
        ({"kind": "repeat_word", "word": "x", "times": "2"}, "takes word"),
        ({"kind": "repeat_word", "word": "x", "times": -1}, "0 times or more"),
        ({"kind": "end_with", "word": "x", "case": True}, "takes word"),
        ({"kind": "end_with", "word": "!"}, "letters or digits"),
        ({"kind": "upper_case", "word": "x"}, "takes nothing else"),
    ],
)
def test_a_faulty_constraint_names_its_item(constraint, message):
    with pytest.raises(RecordError, match=f"Item 'a'.*{message}"):
        checks("x", constraint)


@pytest.mark.parametrize("prompt", [{}, {"meta": {}}, {"meta": {"constraints": []}}, {"meta": {"constraints": {}}}])
def test_an_item_without_constraints_is_named(prompt):
    with pytest.raises(RecordError, match=r"Item 'a' has no constraints.*repeat_word, end_with, upper_case"):
        score({"name": "constraints"}, prompt, "x")


def test_the_scorer_of_the_docs_takes_two_files_and_works(tmp_path):
    """docs/tasks.md, "A scorer of your own": copied as it stands there, and no other file touched."""
    text = (ROOT / "docs/tasks.md").read_text()
    module = re.search(r"```python\n(\"\"\"Digits.*?)```", text, re.DOTALL)[1]
    schema = re.search(r"```yaml\n(title: The scorer digits.*?)```", text, re.DOTALL)[1]
    for folder in ("scripts/milepost", "config/schemas"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "scripts/milepost/scorers/digits.py").write_text(module)
    (tmp_path / "config/schemas/scorers/digits.yaml").write_text(schema)
    code = """
from milepost.campaign.config import check_scorer
from milepost.errors import MilepostError
from milepost.scorers import check_scoring, load_scorer
from milepost.statistics.metrics import reduce_scores
spec = {"name": "digits", "tolerance": 1}
check_scorer(spec, "here")
scorer = load_scorer(spec)
items = [{"id": name, "prompt": "?", "target": "4"} for name in "ab"]
check_scoring(scorer, items, "here", ["near", "distance"])
answers = [{"id": "a", "sample": 0, "content": "3 or 5"}, {"id": "b", "sample": 0, "content": "seven"}]
scores = list(scorer.score(items, answers))
print({name: found["value"] for name, found in scorer.reduce(items, scores).items()})
try:
    check_scoring(scorer, [{**items[0], "target": "four"}], "here")
except MilepostError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "scripts", capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "{'near': 0.5, 'distance': 1.0}",
        "here: The target of item 'a' is no whole number: 'four'.",
    ]

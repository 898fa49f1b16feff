import json
import zipfile
from pathlib import Path

import pytest
from judged_tasks import answer_to, judges, make_scorer, scored

from milepost.errors import ConfigError, RecordError
from milepost.scorers import CheckpointResults
from milepost.scorers.writingbench import REQUIREMENTS
from milepost.tasks.judged import writingbench_item

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/writingbench.json").read_text())


def item(index, names, domain="Education", subdomain="Coursework"):
    checklist = [{"name": name, "criteria_description": f"About {name}"} for name in names]
    row = {"index": index, "domain1": domain, "domain2": subdomain, "query": f"Write {index}.", "checklist": checklist}
    return writingbench_item(row)


def write_requirements(folder, texts, criteria):
    """The lists of a benchmark: by requirement, indices; by requirement and index, names of criteria."""
    for name in REQUIREMENTS:
        (folder / name).mkdir(parents=True)
        lines = [json.dumps({"index": index}) for index in texts.get(name, ())]
        (folder / name / f"{name}_subset.jsonl").write_text("".join(f"{line}\n" for line in lines))
        rows = [
            {"index": index, "checklist": [{"name": one} for one in names]}
            for index, names in criteria.get(name, {}).items()
        ]
        (folder / name / f"{name}_subset_C.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(folder)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Items, scorer and scores of the golden texts."""
    rows = GOLDEN["items"]
    items = [item(row["index"], [name for name, _ in row["scores"]], row["domain1"], row["domain2"]) for row in rows]
    folder = write_requirements(
        tmp_path_factory.mktemp("requirement"),
        {name: [row["index"] for row in rows if name in row["r"]] for name in REQUIREMENTS},
        {name: {row["index"]: row["c"][name] for row in rows if name in row["c"]} for name in REQUIREMENTS},
    )
    scorer = make_scorer("writingbench", "a", requirements=folder)
    marks = {
        str(row["index"]): {"a": {f"{n}: {name}": float(mark) for n, (name, (mark,)) in enumerate(row["scores"], 1)}}
        for row in rows
    }
    return items, scorer, scored(scorer, items, marks)


def test_all_numbers_of_the_original(golden):
    from milepost.scorers.judging import slug

    items, scorer, scores = golden
    numbers = {name: estimate["value"] for name, estimate in scorer.reduce(items, scores).items()}
    assert numbers["writingbench"] == pytest.approx(GOLDEN["overall_avg"], abs=1e-9)
    assert sum(score["score"] is not None for score in scores) == GOLDEN["n_queries"]
    expected = {
        **{f"domain_{slug(name)}": value for name, value in GOLDEN["domain1"].items()},
        **{f"subdomain_{slug(name)}": value for name, value in GOLDEN["domain2"].items()},
        **{f"{name}_r": value for name, value in GOLDEN["requirement_R"].items()},
        **{f"{name}_c": value for name, value in GOLDEN["requirement_C"].items()},
    }
    found = {name: value for name, value in numbers.items() if name not in ("writingbench", "unreadable_verdicts")}
    assert found == pytest.approx(expected, abs=1e-9)
    assert len(found) == len(GOLDEN["domain1"]) + len(GOLDEN["domain2"]) + 6


def test_the_workbook_has_the_columns_of_the_original(golden, tmp_path):
    items, scorer, scores = golden
    summary = {"metrics": scorer.reduce(items, scores), "n_items": 250}
    scorer.tabulate("T", items, [CheckpointResults("m1", [], scores, summary)], tmp_path, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out/scores.xlsx") as book:
        texts = book.read("xl/sharedStrings.xml").decode()
        row = book.read("xl/worksheets/sheet1.xml").decode()
    for column in (
        "Model",
        "Overall",
        "Count",
        "Domain1_Education",
        "Domain2_Novel Outline",
        "style_R",
        "length_C",
        "m1",
    ):
        assert f">{column}<" in texts
    assert f"<v>{GOLDEN['overall_avg']}"[:12] in row


ITEMS = [item(1, ["Plot", "Style"]), item(2, ["Clear"], "Law", "Contract"), item(3, ["Form"], "Law", "Deed")]
MARKS = {
    "1": {"a": {"1: Plot": 4.0, "2: Style": 6.0}},
    "2": {"a": {"1: Clear": 7.0}},
    "3": {"a": {"1: Form": 2.0}},
}


@pytest.mark.parametrize(
    ("ident", "about", "moves"),
    [
        ("1", "1: Plot", {"writingbench", "domain_education", "subdomain_coursework", "style_r"}),
        ("1", "2: Style", {"writingbench", "domain_education", "subdomain_coursework", "style_r", "style_c"}),
        ("2", "1: Clear", {"writingbench", "domain_law", "subdomain_contract"}),
        ("3", "1: Form", {"writingbench", "domain_law", "subdomain_deed", "format_r", "format_c"}),
    ],
)
def test_each_number_moves_with_its_own_verdicts_only(tmp_path, ident, about, moves):
    folder = write_requirements(
        tmp_path / "r", {"style": [1], "format": [3]}, {"style": {1: ["Style"]}, "format": {3: ["Form"]}}
    )
    scorer = make_scorer("writingbench", "a", requirements=folder)
    before = scorer.reduce(ITEMS, scored(scorer, ITEMS, MARKS))
    said = {i: {"a": dict(v["a"])} for i, v in MARKS.items()}
    said[ident]["a"][about] += 1
    after = scorer.reduce(ITEMS, scored(scorer, ITEMS, said))
    assert {name for name in before if before[name]["value"] != after[name]["value"]} == moves
    # A requirement that no text has makes no number.
    assert "length_r" not in after


def test_judges_are_asked_by_criterion_and_what_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def mark(chat):
        return "Ten out of ten!" if "About Style" in chat[1]["content"] else '{"reason": "so", "score": 8}'

    with judges(a=lambda chat: '{"reason": "so", "score": 6}', b=mark) as servers:
        scorer = make_scorer("writingbench", "a", "b", requirements="none")
        (score,) = scorer.score(ITEMS, [answer_to(ITEMS[0])])
    assert len(servers["b"].asked) == 5
    assert servers["a"].asked[0]["max_tokens"] == 2048
    # Both read the first criterion only.
    assert (score["score"], score["metrics"]["writingbench_a"], score["metrics"]["writingbench_b"]) == (7.0, 6.0, 8.0)
    assert (score["weights"]["writingbench"], score["weights"]["writingbench_a"]) == (1.0, 2.0)
    assert score["metrics"]["unreadable_verdicts"] == 0.25


def test_what_is_missing_is_said_before_anything_is_asked(tmp_path):
    with pytest.raises(RecordError, match="'z' has no criteria"):
        make_scorer("writingbench", "a", requirements="none").check([{"id": "z", "messages": []}])
    with pytest.raises(ConfigError, match="has no style/style_subset.jsonl"):
        make_scorer("writingbench", "a", requirements=str(tmp_path)).check(ITEMS)

import csv
import hashlib
import json
from pathlib import Path

import pytest

from milepost.scorers.equator.figure import draw_categories
from milepost.scorers.equator.keys import Key
from milepost.scorers.equator.tables import (
    ALL,
    CategoryRow,
    Student,
    TokenRow,
    category_rows,
    describe,
    markdown,
    token_rows,
    write_csv,
    write_final_stats,
    write_tables,
    write_verdicts,
)
from milepost.statistics.means import mean_estimate

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "equator.json").read_text())
KEYS = {"a": Key("a", "Qa?", "A", "x"), "b": Key("b", "Qb?", "B", "x"), "c": Key("c", "Qc?", "C", "y")}
PROMPTS = [{"id": ident, "prompt": "?"} for ident in "abcd"]


def test_statistics_are_those_of_the_original():
    """The original's run: 60 verdicts, 16 of them 100."""
    golden = GOLDEN["stats"]["equator-llama3-70b-8192-stu-phi3"]
    found = describe([100.0] * 16 + [0.0] * 44)
    for name, value in golden.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9), name


def test_statistics_of_little():
    assert describe([]).mean_score is None
    one = describe([100.0])
    assert (one.mean_score, one.std_dev_score, one.z_interval_error, one.ci_lower, one.output_count) == (
        100,
        None,
        None,
        100,
        1,
    )


def verdict(score, **more):
    said = {"score": score, "reply": f"r{score}", "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
    return {**said, "evaluation": "so", **more} if score is not None else {**said, "problem": "no score in the reply"}


def scored(ident, sample, **by):
    values = {name: None if score is None else score / 100 for name, score in by.items()}
    whole = None if None in values.values() else sum(values.values()) / len(values)
    metrics = {
        "equator": whole,
        **({f"equator_{name}": values.get(name) for name in "jk"} if by.keys() != {"j"} else {}),
    }
    return {
        "id": ident,
        "sample": sample,
        "score": whole,
        "metrics": metrics,
        "verdicts": {n: verdict(s) for n, s in by.items()},
    }


def student(*scores):
    answers = [
        {
            "id": one["id"],
            "sample": one["sample"],
            "content": f"said {one['id']}",
            "usage": {"prompt_tokens": 5, "completion_tokens": 7},
        }
        for one in scores
    ]
    return Student("s", answers, list(scores))


UNASKED = {"id": "d", "sample": 0, "score": None, "metrics": {"equator": None}, "note": "the answer key has no answer"}
ONE = student(
    scored("a", 0, j=100), scored("a", 1, j=0), scored("b", 0, j=100), scored("b", 1, j=100),
    scored("c", 0, j=0), scored("c", 1, j=None), UNASKED,
)  # fmt: skip


def rows_by(rows):
    return {(row.evaluator, row.category): row for row in rows}


def test_rounds_are_averaged_within_their_question():
    rows = rows_by(category_rows([ONE], ["j"], PROMPTS, KEYS))
    assert list(rows) == [("j", "all"), ("j", "(no answer key)"), ("j", "x"), ("j", "y")]
    whole = rows["j", "all"]
    assert (whole.mean_score, whole.output_count, whole.n_answers, whole.n_unscored) == (50.0, 3, 5, 2)
    low, high = mean_estimate([0.5, 1.0, 0.0])["ci95"]
    assert (whole.ci95_low, whole.ci95_high) == pytest.approx((100 * low, 100 * high))
    assert (rows["j", "x"].mean_score, rows["j", "y"].mean_score, rows["j", "y"].n_unscored) == (75.0, 0.0, 1)
    assert (rows["j", "(no answer key)"].mean_score, rows["j", "(no answer key)"].n_unscored) == (None, 1)


def test_pooled_takes_rounds_for_questions_as_the_original_does():
    whole = category_rows([ONE], ["j"], PROMPTS, KEYS, pooled=True)[0]
    assert (whole.mean_score, whole.output_count) == (60.0, 5)


def test_pairs_and_all_evaluators_together():
    both = student(scored("a", 0, j=100, k=0), scored("b", 0, j=100, k=None), scored("c", 0, k=0))
    rows = rows_by(category_rows([both], ["j", "k"], PROMPTS, KEYS))
    assert (rows["all", "all"].mean_score, rows["all", "all"].n_unscored) == (25.0, 1)
    # Of c, only k was asked.
    assert (rows["j", "all"].mean_score, rows["j", "all"].output_count, rows["j", "all"].n_unscored) == (100.0, 2, 0)
    assert (rows["k", "all"].mean_score, rows["k", "all"].output_count, rows["k", "all"].n_unscored) == (0.0, 2, 1)
    assert ("j", "y") not in rows
    assert token_rows([both], ["j", "k"]) == [
        TokenRow("equator-j-stu-s", 15, 21, 2, 20, 4),
        TokenRow("equator-k-stu-s", 15, 21, 3, 30, 6),
    ]


def test_another_headline_changes_no_table():
    both = student(scored("a", 0, j=100, k=0))
    shown = Student("s", both.answers, [{**both.scores[0], "score": 1.0}])
    assert category_rows([shown], ["j", "k"], PROMPTS, KEYS) == category_rows([both], ["j", "k"], PROMPTS, KEYS)


def test_files_of_the_original(tmp_path):
    write_verdicts(tmp_path, [ONE], ["j"], PROMPTS, KEYS)
    first = json.loads((tmp_path / "round_1/equator-j-stu-s.json").read_text())
    assert list(first) == ["a", "b", "c", "d"]
    assert first["a"] == {
        "category": "x", "question": "Qa?", "human_answer": "A", "model_answer": "said a", "eval_response": "r100",
        "evaluation": "so", "score": 100.0, "note": None,
    }  # fmt: skip
    assert (first["d"]["score"], first["d"]["note"], first["d"]["category"]) == (
        None,
        "the answer key has no answer",
        None,
    )
    second = json.loads((tmp_path / "round_2/equator-j-stu-s.json").read_text())
    assert (list(second), second["c"]["score"], second["c"]["note"]) == (["a", "b", "c"], None, "no score in the reply")
    rows = category_rows([ONE], ["j"], PROMPTS, KEYS)
    write_final_stats(tmp_path / "final_stats.csv", rows)
    (line,) = csv.DictReader((tmp_path / "final_stats.csv").open())
    assert list(line) == [
        "model",
        "mean_score",
        "std_dev_score",
        "z_interval_error",
        "ci_lower",
        "ci_upper",
        "output_count",
        "partial",
    ]
    assert (line["model"], float(line["mean_score"]), line["output_count"]) == ("equator-j-stu-s", 50.0, "3")
    write_csv(tmp_path / "by_category.csv", rows, CategoryRow)
    assert [row["category"] for row in csv.DictReader((tmp_path / "by_category.csv").open())] == [
        "all",
        "(no answer key)",
        "x",
        "y",
    ]


def test_the_table_to_read():
    text = markdown(category_rows([ONE], ["j"], PROMPTS, KEYS), "Puzzles", ["a note"])
    low, high = (100 * end for end in mean_estimate([0.5, 1.0, 0.0])["ci95"])
    assert "| model | evaluator | all | (no answer key) | x | y |" in text
    assert f"| s | j | 50.0 [{low:.0f}, {high:.0f}]; 3; 2 unscored | -; 1 unscored | 75.0" in text
    assert text.endswith("- a note\n")


def test_the_figure_is_the_same_for_the_same_rows(tmp_path):
    many = [Student(f"step-{n}", ONE.answers, ONE.scores) for n in range(3)]
    rows = category_rows(many, ["j"], PROMPTS, KEYS)
    digests = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        draw_categories(tmp_path / name / "f", rows, "Puzzles $x_1$", "3/5")
        assert (tmp_path / name / "f.png").stat().st_size > 5000
        digests.add(hashlib.sha256((tmp_path / name / "f.svg").read_bytes()).hexdigest())
    assert len(digests) == 1
    svg = (tmp_path / "a/f.svg").read_text()
    for words in ("PARTIAL: 3/5 items", "marked by j", "step-2", "(no answer key)", "Puzzles $x_1$"):
        assert words in svg


def test_every_table_of_a_part_of_the_items_says_so(tmp_path):
    options = {"retrieval": {"n_found": 1, "n": 1, "without_key": []}, "partial": "20/100", "pooled": False}
    tables, _ = write_tables(tmp_path, "Puzzles", [ONE], ["j"], PROMPTS, KEYS, **options)
    for name in ("by_category.csv", "token_usage.csv", "final_stats.csv"):
        with (tables / name).open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert {line["partial"] for line in lines} == {"20/100"}, name
    assert (tables / "by_category.md").read_text().startswith("# Puzzles (PARTIAL)\n")


def test_nearly_all_is_not_all():
    row = CategoryRow("s", "e", ALL, 9, 0, 0.2, 99.7, 99.98, None, None, None, None, 9)
    assert "99.98 [0.2, 99.7]; 9" in markdown([row], "T", [])

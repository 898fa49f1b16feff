import csv

import pytest
from scipy import stats

from milepost.judges.comparison import JudgedAnswers, cohen_kappa, compare_judges
from milepost.scorers import CheckpointResults
from milepost.scorers.judges_compared import write_comparison

A = {("c1", "x", 0): 1.0, ("c1", "y", 0): 0.4, ("c2", "x", 0): 0.2, ("c2", "y", 0): 0.5}
B = {("c1", "x", 0): 0.1, ("c1", "y", 0): 0.3, ("c2", "x", 0): 0.9, ("c2", "y", 0): 0.8, ("c2", "z", 0): 0.0}


def test_two_judges_who_disagree_and_rank_the_other_way():
    said = [
        {("c1", "x", 0, "0"): True, ("c1", "x", 0, "1"): False},
        {("c1", "x", 0, "0"): True, ("c1", "x", 0, "1"): True},
    ]
    (pair,) = compare_judges({"a": JudgedAnswers(A, said[0]), "b": JudgedAnswers(B, said[1])}, ["c1", "c2"])
    x, y = list(A.values()), [B[key] for key in A]
    assert (pair.n, pair.mean_a, pair.mean_b) == (4, pytest.approx(0.525), pytest.approx(0.525))
    assert pair.pearson == pytest.approx(stats.pearsonr(x, y).statistic)
    assert pair.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    assert pair.mean_difference == pytest.approx((0.9 + 0.1 + 0.7 + 0.3) / 4)
    assert (pair.n_verdicts, pair.agreement, pair.kappa) == (2, 0.5, 0.0)
    assert pair.change_places == "c1 / c2"


def test_judges_who_share_nothing_have_no_number():
    (pair,) = compare_judges({"a": JudgedAnswers({}, {}), "b": JudgedAnswers(B, {})}, ["c1"])
    assert (pair.n, pair.mean_a, pair.pearson, pair.agreement, pair.kappa, pair.change_places) == (0, *[None] * 4, "")


def test_kappa_as_in_its_paper():
    pairs = [("A", "A")] * 20 + [("A", "B")] * 5 + [("B", "A")] * 10 + [("B", "B")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)


def test_the_table_and_the_figure_of_three_judges(tmp_path):
    def line(ident, *marks):
        metrics = {"h": 0.0, **{f"h_{judge}": mark for judge, mark in zip("abc", marks, strict=True)}}
        judged = {judge: [{"about": "0", "value": mark}] for judge, mark in zip("abc", marks, strict=True)}
        return {"id": ident, "sample": 0, "score": 0.0, "metrics": metrics, "judged": judged}

    results = [
        CheckpointResults("c1", [], [line("x", 1.0, 0.0, None), line("y", 0.5, 0.5, 1.0)], {}),
        CheckpointResults("c2", [], [line("x", 0.0, 0.0, 1.0)], {}),
    ]
    write_comparison(tmp_path, "T $x$", results, {judge: f"h_{judge}" for judge in "abc"})
    rows = list(csv.DictReader((tmp_path / "judges.csv").open()))
    assert [(row["judge_a"], row["judge_b"], row["n"], row["n_verdicts"]) for row in rows] == [
        ("a", "b", "3", "3"),
        ("a", "c", "2", "2"),
        ("b", "c", "2", "2"),
    ]
    figure = (tmp_path / "judges.svg").read_text()
    assert "score by a" in figure
    assert "T $x$: what two judges say" in figure
    assert (tmp_path / "judges.png").stat().st_size > 0

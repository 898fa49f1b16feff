import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

import compare as step
from milepost.campaign.shown import Point, Shown, ShownTask
from milepost.campaign.types import Campaign, Checkpoint, Serving
from milepost.comparisons.compare import compare_campaign
from milepost.comparisons.item_scores import read_items, read_task
from milepost.comparisons.pairs import MOST_RANKED, Pair, plan_pairs, ranked
from milepost.comparisons.rows import ComparisonRow, FlipRow, RankRow, StepRow, TrendRow
from milepost.errors import ConfigError, RecordError, UnknownKeyError
from milepost.preflight.campaign import check_campaign, load_campaign
from milepost.records import write_record, write_records
from milepost.report.tables import read_table

ALIKE = {
    "task_version": 1, "scorer": "match", "metric": "accuracy", "provenance": {"prompts": "p"},
    "scales": {"accuracy": {"better": "higher", "range": [0, 1]}},
}  # fmt: skip
UNBOUNDED = {"accuracy": {"better": "higher", "range": None}}
ERRORS = {"accuracy": {"better": "lower", "range": [0, 1]}}


def checkpoint(name, run=None, at=None):
    return Checkpoint(name, "model", None, run, at, 1, Serving())


def sheet(*names):
    """Checkpoints: "a-0" is step 0 of run a, "x" stands by itself."""
    found = {}
    for name in names:
        run, dash, at = name.partition("-")
        found[name] = checkpoint(name, run, int(at)) if dash else checkpoint(name)
    return found


class Results:
    """A campaign's scores in a folder; `put` adds a checkpoint's on a task, `compare` compares."""

    def __init__(self, folder, ckpts, tasks=("sums",), **comparisons):
        config = {"tasks": list(tasks)} | {"comparisons": {"correction": "bh", **(comparisons or {})}}
        self.folder = folder
        self.campaign = Shown(sheet(*ckpts), {name: ShownTask(name.title()) for name in tasks}, config)

    def put(self, ckpt, scores, task="sums", samples=1, clusters=None, **summary):
        """`scores` are of items, by id or in order; None is unreadable."""
        items = scores if isinstance(scores, dict) else {f"i{k:03d}": score for k, score in enumerate(scores)}
        lines = [
            {"id": item, "sample": sample, "score": score, "metrics": {}}
            | ({"cluster": clusters[item]} if clusters else {})
            for item, score in items.items()
            for sample in range(samples)
        ]
        write_records(self.folder / "scores" / ckpt / f"{task}.jsonl", lines)
        known = [score for score in items.values() if score is not None]
        value = math.fsum(known) / len(known) if known else None
        record = {"ckpt": ckpt, "task": task, "value": value, "n_items": len(known), **ALIKE, **summary}
        write_record(self.folder / "summaries" / ckpt / f"{task}.json", record)
        return self

    def compare(self):
        return compare_campaign(self.campaign, self.folder / "scores", self.folder / "summaries")


def draw(p, n=200, seed=0):
    return (np.random.default_rng(seed).random(n) < p).astype(float).tolist()


# Which checkpoints are compared.


@pytest.mark.parametrize(
    ("names", "wanted", "pairs"),
    [
        (["a-0", "a-9", "a-5"], {}, [("first_last", "a-0", "a-9")]),
        (["b-2", "a-9", "a-5", "b-1"], {}, [("first_last", "b-1", "b-2"), ("first_last", "a-5", "a-9")]),
        (["a-0", "x"], {}, [("against", "a-0", "x")]),
        (["x", "y", "z"], {}, [("against", "x", "y"), ("against", "x", "z")]),
        (["x"], {}, []),
        (["x", "y", "z"], {"pairs": [["z", "x"]]}, [("pairs", "z", "x")]),
        (["x", "y", "z"], {"against": "y"}, [("against", "y", "x"), ("against", "y", "z")]),
        (
            ["a-1", "a-2", "b-2", "b-3", "a-3"],
            {"same_step": ["b", "a"]},
            [("same_step", "b-2", "a-2"), ("same_step", "b-3", "a-3")],
        ),
        (["x", "y"], {"pairs": [["x", "y"]], "against": "y"}, [("pairs", "x", "y"), ("against", "y", "x")]),
        (["a-0", "a-9"], {"correction": "holm"}, [("first_last", "a-0", "a-9")]),
    ],
)
def test_pairs(names, wanted, pairs):
    assert plan_pairs({"comparisons": wanted}, sheet(*names)) == [Pair(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"pairs": [["a-0", "a-10O"]]}, r"checkpoint 'a-10O' under 'comparisons.pairs'.*Did you mean 'a-100'\?"),
        ({"against": "c-0"}, "checkpoint 'c-0' under 'comparisons.against'. Checkpoints: a-0, a-100, b-7, x"),
        ({"pairs": [["x", "x"]]}, "compares the checkpoint 'x' with itself"),
        ({"same_step": ["a", "bb"]}, r"run 'bb' under 'comparisons.same_step'. Runs with steps .*: a, b"),
        ({"same_step": ["a", "a"]}, "compares the run 'a' with itself"),
        ({"same_step": ["a", "b"]}, "they share none"),
    ],
)
def test_names_that_do_not_exist_are_found_before_anything_runs(wanted, message):
    campaign = Campaign({"tasks": [], "comparisons": wanted}, sheet("a-0", "a-100", "b-7", "x"), {})
    with pytest.raises(ConfigError, match=message):
        check_campaign(campaign)


def test_two_checkpoints_at_one_step_cannot_be_chosen_from():
    ckpts = sheet("a-0", "b-0") | {"other": checkpoint("other", "a", 0)}
    with pytest.raises(ConfigError, match="two checkpoints at step 0: a-0 and other"):
        plan_pairs({"comparisons": {"same_step": ["a", "b"]}}, ckpts)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [(None, ["a-0", "a-1", "x"]), ("all", ["a-0", "a-1", "x"]), ("last", ["a-1", "x"]), ("none", [])],
)
def test_the_checkpoints_that_are_ranked(wanted, names):
    config = {"comparisons": {"ranking": wanted} if wanted else {}}
    assert ranked(config, sheet("a-0", "a-1", "x")) == names


def test_a_long_run_is_ranked_by_its_last_step():
    ckpts = sheet(*(f"a-{number}" for number in range(MOST_RANKED + 1)))
    assert ranked({}, ckpts) == [f"a-{MOST_RANKED}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"comparisons": {"pair": []}}, "unknown key 'pair' under 'comparisons'.*Did you mean 'pairs'"),
        ({"tables": {"format": ["tex"]}}, "unknown key 'format' under 'tables'.*Did you mean 'formats'"),
        ({"comparisons": {"pairs": [["a"]]}}, "comparisons.pairs.0 is wrong"),
        ({"tables": {"formats": ["pdf"]}}, "tables.formats.0 is wrong"),
        ({"tables": {"formats": ["tex", "csv"]}}, "tables.formats.1 names 'csv', which is gone. CSV is always written"),
    ],
)
def test_the_schema_is_closed(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as found:
        load_campaign({"tasks": ["t"], **content})
    assert ("unknown key" in message) == isinstance(found.value, UnknownKeyError)


# Reading.


def test_item_means_are_aligned_by_id(tmp_path):
    results = Results(tmp_path, ["x", "y", "z"])
    results.put("x", {"b": 1.0, "a": 0.0}).put("y", {"c": 1, "b": 0.5, "a": None})
    lines = [{"id": "b", "sample": k, "score": score, "metrics": {}} for k, score in enumerate([1, None, 0, 0])]
    write_records(tmp_path / "scores/z/sums.jsonl", lines)
    found = read_task(tmp_path / "scores", ["z", "x", "y", "none"], "sums")
    assert found.items == ["a", "b", "c"]
    np.testing.assert_array_equal(
        found.means, [[np.nan, 1 / 3, np.nan], [0, 1, np.nan], [np.nan, 0.5, 1], [np.nan] * 3]
    )
    assert found.samples == [3, 1, 1, 0]
    assert found.clusters is None


def test_clusters_are_those_of_any_checkpoint(tmp_path):
    results = Results(tmp_path, ["x", "y"]).put("x", {"a": 1.0, "b": 1.0})
    results.put("y", {"a": 1.0, "c": 1.0}, clusters={"a": "p", "c": "p"})
    assert read_task(tmp_path / "scores", ["x", "y"], "sums").clusters == ["p", "b", "p"]
    results.put("x", {"a": 1.0, "b": 1.0}, clusters={"a": "q", "b": "q"})
    with pytest.raises(RecordError, match=r"item 'a' is in 2 clusters"):
        read_task(tmp_path / "scores", ["x", "y"], "sums")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id":"a","sample":0,"score":1}\n{"id":"a","sam\n', "line 2 is not JSON"),
        ('{"id":"a","sample":0,"score":NaN}\n', "line 1 is not JSON"),
        ('{"id":"a","sample":0,"score":"high"}\n', "is no file of scores: .*high"),
        ('{"sample":0,"score":1}\n', "a line lacks 'id' or 'sample'"),
        ('{"id":"a","sample":0,"score":1}\n{"id":"a","sample":0,"score":0}\n', "sample 0 of item 'a' twice"),
        ("[1]\n", "line 1 is not a JSON object"),
    ],
)
def test_malformed_scores_are_an_error_with_their_place(tmp_path, content, message):
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(RecordError, match=message) as found:
        read_items(tmp_path / "t.jsonl")
    assert str(tmp_path / "t.jsonl") in str(found.value)


# Pairs.


def test_a_pair_on_a_task(tmp_path):
    a, b = draw(0.4, seed=1), draw(0.6, seed=2)
    found = Results(tmp_path, ["x", "y"]).put("x", a, samples=3).put("y", b, samples=3).compare()
    (row,) = found.comparisons
    d = np.array(b) - np.array(a)
    assert (row.ckpt_a, row.ckpt_b, row.task, row.title, row.metric) == ("x", "y", "sums", "Sums", "accuracy")
    assert (row.n_a, row.n_b, row.n_common) == (200, 200, 200)
    assert row.delta == pytest.approx(d.mean())
    assert row.value_b - row.value_a == pytest.approx(row.delta)
    assert row.stderr == pytest.approx(d.std(ddof=1) / math.sqrt(200))
    assert row.ci_low < row.delta < row.ci_high
    assert (row.better, row.worse) == ((d > 0).sum(), (d < 0).sum())
    assert row.p < 0.01
    assert (row.p_adjusted, row.correction, row.n_tests, row.significant) == (row.p, "bh", 1, True)
    assert row.test == "sign-flip"
    assert (row.partial, row.note) == (None, None)


def test_single_yes_or_no_answers_get_mcnemar(tmp_path):
    results = Results(tmp_path, ["x", "y"]).put("x", [0] * 9 + [1] * 3 + [1] * 8).put("y", [1] * 9 + [0] * 3 + [1] * 8)
    (row,) = results.compare().comparisons
    assert row.test == "exact McNemar"
    assert row.p == pytest.approx(scipy_stats.binomtest(3, 12).pvalue)


def test_clusters_count_instead_of_their_items(tmp_path):
    a = {f"i{k}": 0.0 for k in range(40)}
    b = {f"i{k}": float(k < 20) for k in range(40)}
    clusters = {f"i{k}": f"c{k // 10}" for k in range(40)}
    plain = Results(tmp_path / "1", ["x", "y"]).put("x", a, samples=2).put("y", b, samples=2).compare().comparisons[0]
    within = Results(tmp_path / "2", ["x", "y"])
    row = (
        within.put("x", a, samples=2, clusters=clusters)
        .put("y", b, samples=2, clusters=clusters)
        .compare()
        .comparisons[0]
    )
    assert row.test == "sign-flip by cluster"
    assert row.stderr > 2 * plain.stderr
    assert row.p == 0.5  # 2 of 4 clusters differ: of their flips, one in two is as extreme
    assert plain.p < 0.001


@pytest.mark.parametrize(("correction", "expected"), [("bh", [0.03, 0.04, 0.04]), ("holm", [0.03, 0.06, 0.06])])
def test_a_family_is_all_pairs_of_an_entry_on_all_tasks(tmp_path, correction, expected):
    from milepost.comparisons import compare as comparisons

    rows = [
        ComparisonRow(family="pairs", ckpt_a="x", ckpt_b="y", task=task, title="T", p=p)
        for task, p in [("a", 0.01), ("b", 0.03), ("c", 0.04), (None, 0.04), ("d", None)]
    ]
    other = ComparisonRow(family="against", ckpt_a="x", ckpt_b="y", task="a", title="T", p=0.04)
    found = comparisons.corrected([*rows, other], correction)
    assert [row.p_adjusted for row in found] == pytest.approx([*expected, 0.04, None, 0.04])
    assert [row.n_tests for row in found] == [3, 3, 3, 1, None, 1]
    assert [row.significant for row in found][4:] == [False, True]


def test_runs_with_different_items_say_how_many_they_share(tmp_path):
    x = {f"i{k:03d}": 0.0 for k in range(100)}
    y = {f"i{k:03d}": float(k % 2) for k in range(40, 120)}
    (row,) = Results(tmp_path, ["x", "y"]).put("x", x).put("y", y).compare().comparisons
    assert (row.n_a, row.n_b, row.n_common, row.delta) == (100, 80, 60, 0.5)
    y = {f"i{k:03d}": 1.0 for k in range(60, 140)}
    (row,) = Results(tmp_path, ["x", "y"]).put("y", y).compare().comparisons
    assert (row.n_a, row.n_b, row.n_common) == (100, 80, 40)
    assert (row.delta, row.p, row.value_a, row.ci_low, row.better) == (None, None, None, None, None)
    assert row.note == "less than half of the items in common"


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"task_version": 2}, "different versions of the task: 1 and 2"),
        ({"scorer": "other"}, "different scorers: match and other"),
        ({"metric": "other"}, "different metrics: accuracy and other"),
    ],
)
def test_scores_of_other_versions_or_scorers_are_not_compared(tmp_path, changes, note):
    results = Results(tmp_path, ["a-0", "a-5", "a-9"])
    results.put("a-0", draw(0.2)).put("a-5", draw(0.9)).put("a-9", draw(0.9), **changes)
    found = results.compare()
    row = found.comparisons[0]
    assert (row.delta, row.p, row.n_a, row.n_b, row.note) == (None, None, 200, 200, note)
    assert [(step.better, step.note) for step in found.steps] == [(False, None), (True, None), (False, note)]
    assert [(row.ckpt, row.rank, row.note) for row in found.ranking] == [
        ("a-5", 1, None),
        ("a-0", 2, None),
        ("a-9", None, note),
    ]
    assert found.flips == []


def test_different_prompts_are_noted(tmp_path):
    results = Results(tmp_path, ["a-0", "a-9"]).put("a-0", draw(0.2)).put("a-9", draw(0.9), provenance={"prompts": "q"})
    found = results.compare()
    assert found.comparisons[0].delta is not None
    assert found.comparisons[0].note == found.steps[1].note == "the two answered different prompt files"


def test_a_harness_without_answers_is_not_tested(tmp_path):
    results = Results(tmp_path, ["a-0", "a-9"])
    results.put("a-0", [], harness=True, value=0.25).put("a-9", [], harness=True, value=0.75)
    found = results.compare()
    (row,) = found.comparisons
    assert (row.value_a, row.value_b, row.delta, row.p, row.stderr, row.n_common) == (0.25, 0.75, 0.5, None, None, None)
    assert "harness" in row.note
    assert [(row.value, row.p_better, row.reference) for row in found.steps] == [(0.25, None, None), (0.75, None, None)]
    assert "harness" in found.trends[0].note
    assert [(row.ckpt, row.rank, row.letters) for row in found.ranking] == [("a-9", 1, None), ("a-0", 2, None)]


def test_a_pair_without_scores_has_a_row(tmp_path):
    found = Results(tmp_path, ["x", "y", "z"], tasks=("sums", "more")).put("x", draw(0.5)).put("z", draw(0.6)).compare()
    notes = {(row.ckpt_b, row.task): row.note for row in found.comparisons if row.task}
    assert notes == {
        ("y", "sums"): "no scores yet: y",
        ("y", "more"): "no scores yet: x, y",
        ("z", "sums"): None,
        ("z", "more"): "no scores yet: x, z",
    }
    with pytest.raises(RecordError, match="holds no summary of this campaign"):
        Results(tmp_path / "nothing", ["x", "y"]).compare()


@pytest.mark.parametrize(
    ("a", "b", "delta", "p", "note"),
    [
        ([1.0], [0.0], -1.0, None, "one item"),
        ([0.5] * 8, [0.5] * 8, 0.0, 1.0, "no item differs"),
        ([0.0] * 30, [1.0] * 30, 1.0, 2**-29, "every item differs by the same amount"),
        ([None] * 9, [None] * 9, None, None, "no scores"),
        ([None, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, None], 0.0, 1.0, "no item differs"),
    ],
)
def test_little_data_gives_what_is_defined_and_a_note(tmp_path, a, b, delta, p, note):
    (row,) = Results(tmp_path, ["x", "y"]).put("x", a).put("y", b).compare().comparisons
    assert (row.delta, row.note) == (delta, note)
    assert row.p == (None if p is None else pytest.approx(p))
    if note not in ("no scores",):
        assert row.ci_low is None or row.ci_low <= row.delta <= row.ci_high


def test_partial_data_is_marked_everywhere(tmp_path):
    results = Results(tmp_path, ["a-0", "a-9"]).put("a-0", draw(0.2))
    found = results.put("a-9", draw(0.9), partial={"limit": 200, "of": 541}).compare()
    assert found.comparisons[0].partial == found.trends[0].partial == found.flips[0].partial == "200/541"
    assert [row.partial for row in found.steps] == [None, "200/541"]
    assert [row.partial for row in found.ranking] == ["200/541", None]


# Over tasks.


def test_over_tasks_every_task_weighs_the_same(tmp_path):
    results = Results(tmp_path, ["x", "y"], tasks=("sums", "few"))
    for task, n, seed in [("sums", 400, 1), ("few", 30, 2)]:
        results.put("x", draw(0.4, n, seed), task).put("y", draw(0.6, n, seed + 9), task)
    first, second, both = results.compare().comparisons
    assert (both.task, both.n_tasks, both.title, both.n_common) == (None, 2, "Mean of 2 tasks", 430)
    assert both.delta == pytest.approx((first.delta + second.delta) / 2)
    assert both.stderr == pytest.approx(math.hypot(first.stderr, second.stderr) / 2)
    # Welch's degrees of freedom, from scipy's own Welch test of two samples with these variances.
    v = np.array([first.stderr**2, second.stderr**2])
    df = v.sum() ** 2 / (v**2 / [399, 29]).sum()
    assert both.p == pytest.approx(2 * scipy_stats.t.sf(abs(both.delta / both.stderr), df))
    assert both.ci_high - both.delta == pytest.approx(scipy_stats.t.ppf(0.975, df) * both.stderr)
    assert both.detectable > scipy_stats.norm.ppf(0.975) * both.stderr


def test_tasks_that_cannot_be_averaged_are_left_out_and_named(tmp_path):
    results = Results(tmp_path, ["x", "y"], tasks=("sums", "few", "elo", "none"))
    for task, n in [("sums", 100), ("few", 50)]:
        results.put("x", draw(0.4, n, 1), task).put("y", draw(0.6, n, 2), task)
    results.put("x", [-61.0, 3.0], "elo", scales=UNBOUNDED).put("y", [40.0, 5.0], "elo", scales=UNBOUNDED)
    *_, row = results.compare().comparisons
    assert (row.n_tasks, row.n_common, row.note) == (2, 150, "without Elo, None")
    assert -1 < row.delta < 1


def test_one_usable_task_is_no_mean_of_tasks(tmp_path):
    results = Results(tmp_path, ["x", "y"], tasks=("sums", "few")).put("x", draw(0.4)).put("y", draw(0.6))
    *_, row = results.compare().comparisons
    assert (row.task, row.delta, row.note) == (None, None, "fewer than two tasks can be averaged; without Few")


def test_tasks_without_any_difference_have_no_interval(tmp_path):
    results = Results(tmp_path, ["x", "y"], tasks=("sums", "few"))
    for task in ("sums", "few"):
        results.put("x", draw(0.4), task).put("y", draw(0.4), task)
    *_, row = results.compare().comparisons
    assert (row.delta, row.stderr, row.ci_low, row.p) == (0.0, 0.0, None, None)


def test_errors_and_successes_have_no_mean_in_common(tmp_path):
    results = Results(tmp_path, ["x", "y"], tasks=("sums", "few", "wrong"))
    for task, n in [("sums", 100), ("few", 50)]:
        results.put("x", draw(0.4, n, 1), task).put("y", draw(0.6, n, 2), task)
    results.put("x", draw(0.8), "wrong", scales=ERRORS).put("y", draw(0.1), "wrong", scales=ERRORS)
    *_, wrong, row = results.compare().comparisons
    assert (row.n_tasks, row.note, row.direction) == (2, "without Wrong", "higher")
    assert row.delta > 0
    assert (wrong.direction, wrong.change, wrong.delta < 0) == ("lower", "better", True)


# Which way is better.


def test_a_loss_that_falls_is_a_gain_everywhere(tmp_path):
    """The worst was ranked first, the best had an arrow down, and the report said "Regressed" of an improvement."""
    names = [f"a-{number}" for number in range(5)]
    up, down = Results(tmp_path / "up", names), Results(tmp_path / "down", names)
    for number, (name, p) in enumerate(zip(names, [0.2, 0.2, 0.8, 0.9, 0.4], strict=True)):
        scores = draw(p, 300, seed=number)
        up.put(name, scores)
        down.put(name, [1 - score for score in scores], scales=ERRORS)
    higher, lower = up.compare(), down.compare()
    assert (
        [row.better for row in lower.steps] == [row.better for row in higher.steps] == [False, False, True, True, True]
    )
    assert [row.first_better for row in lower.steps] == [row.first_better for row in higher.steps]
    assert [row.delta for row in lower.steps] == pytest.approx([-row.delta for row in higher.steps])
    assert [row.p_better for row in lower.steps] == [row.p_better for row in higher.steps]
    trends = [
        (t.better_since, t.regressed_since, t.regressed_below, t.lost_since) for t in (*lower.trends, *higher.trends)
    ]
    assert trends[0] == trends[1]
    assert trends[0][:2] == ("a-2", "a-4")
    assert [(row.ckpt, row.letters) for row in lower.ranking] == [(row.ckpt, row.letters) for row in higher.ranking]
    assert lower.ranking[0].ckpt == "a-3"
    (first,), (second,) = lower.comparisons, higher.comparisons
    assert (first.change, first.better, first.worse) == (second.change, second.better, second.worse)
    assert (first.change, first.ci_low, first.ci_high) == ("better", -second.ci_high, -second.ci_low)
    assert [row.change for row in lower.flips] == [row.change for row in higher.flips]


def test_numbers_that_go_different_ways_are_not_compared(tmp_path):
    results = Results(tmp_path, ["x", "y"]).put("x", draw(0.4)).put("y", draw(0.6), scales=ERRORS)
    (row,) = results.compare().comparisons
    assert (row.delta, row.note) == (None, "different directions: higher is better, and lower is")


# Flips.


def test_flips_of_both_directions_the_largest_first(tmp_path):
    results = Results(tmp_path, ["x", "y", "z"], pairs=[["x", "y"]], against="x")
    results.put("x", {"a": 0.0, "b": 1.0, "c": 0.5, "d": 1.0, "e": None}).put("z", {"a": 1.0})
    found = results.put("y", {"a": 0.25, "b": 0.0, "c": 0.5, "d": None, "e": 1.0}).compare()
    assert [(row.ckpt_b, row.item, row.score_a, row.score_b, row.change) for row in found.flips] == [
        ("y", "b", 1.0, 0.0, "worse"),
        ("y", "a", 0.0, 0.25, "better"),
    ]


# Steps and ranks.


def test_the_steps_from_which_a_run_is_better_and_no_longer_better(tmp_path):
    names = [f"a-{number}" for number in range(6)]
    results = Results(tmp_path, names)
    for name, p in zip(names, [0.2, 0.25, 0.8, 0.8, 0.2, 0.2], strict=True):
        results.put(name, draw(p, 300, seed=int(name[2:])))
    found = results.compare()
    assert [row.ckpt for row in found.steps if row.first_better] == ["a-2"]
    assert [row.better for row in found.steps] == [False, False, True, True, False, False]
    (trend,) = found.trends
    assert (trend.better_since, trend.better_since_step) == ("a-2", 2)
    assert (trend.regressed_since_step, trend.lost_since) == (4, "a-4")
    assert trend.regressed_below in ("a-2", "a-3")
    assert (trend.n_steps, trend.n_scored, trend.reference) == (6, 6, "a-0")
    assert trend.p_better_adjusted <= 0.05


def test_a_first_step_of_which_little_could_be_read_is_no_reference(tmp_path):
    """Nothing could be compared with it, and the report said "better on 0 of 1 task"."""
    names = [f"a-{number}" for number in range(4)]
    results = Results(tmp_path, names)
    for name, p in zip(names, [0.1, 0.2, 0.8, 0.8], strict=True):
        scores = draw(p, 200, seed=int(name[2:]))
        if name == "a-0":
            scores = [score if number < 60 else None for number, score in enumerate(scores)]
        results.put(name, scores)
    found = results.compare()
    assert [row.note for row in found.steps] == ["scores of less than half of the items", None, None, None]
    assert [row.ckpt for row in found.steps if row.first_better] == ["a-2"]
    (trend,) = found.trends
    assert (trend.reference, trend.better_since) == ("a-1", "a-2")
    assert trend.note == "the first steps have scores of too few items"


def test_arrows_go_either_way_at_five_percent_together(tmp_path):
    results = Results(tmp_path, ["a-0", "a-1"])
    # 20 items gained and 8 lost: one-sided p is .018; 17 and 8: .054; 20 and 9: .031.
    for gained, lost, better in [(20, 8, True), (20, 9, False)]:
        before = {f"i{n}": float(n >= gained) for n in range(gained + lost)}
        results.put("a-0", before).put("a-1", {item: 1 - score for item, score in before.items()})
        (_, row) = results.compare().steps
        assert 0.01 < row.p_better < 0.04
        assert (row.better, row.first_better) == (better, True)


def test_a_worse_step_is_marked_as_worse(tmp_path):
    found = Results(tmp_path, ["a-0", "a-1"]).put("a-0", draw(0.8)).put("a-1", draw(0.3, seed=1)).compare()
    assert [(row.better, row.worse) for row in found.steps] == [(False, False), (False, True)]
    assert found.trends[0].better_since is None


def test_gaps_in_a_run(tmp_path):
    results = Results(tmp_path, ["a-0", "a-1", "a-2", "a-3", "a-4"])
    results.put("a-1", draw(0.2)).put("a-3", [None] * 200).put("a-4", draw(0.9, seed=1))
    found = results.compare()
    assert [(row.step, row.reference, row.note) for row in found.steps] == [
        (0, "a-1", "no scores yet: a-0"),
        (1, "a-1", None),
        (2, "a-1", "no scores yet: a-2"),
        (3, "a-1", "no scores in common"),
        (4, "a-1", None),
    ]
    assert [row.first_better for row in found.steps] == [False, False, False, False, True]
    (trend,) = found.trends
    assert (trend.n_steps, trend.n_scored, trend.reference) == (5, 3, "a-1")
    assert trend.note == "the first steps have no scores"


def test_one_step_only(tmp_path):
    found = Results(tmp_path, ["a-0"]).put("a-0", draw(0.5)).compare()
    assert found.comparisons == found.flips == found.ranking == []
    assert [(row.reference, row.delta, row.p_better) for row in found.steps] == [("a-0", 0.0, None)]
    assert found.trends[0].note == "no other step to compare with"


def test_steps_that_share_too_few_items_are_not_tested(tmp_path):
    results = Results(tmp_path, ["a-0", "a-1"]).put("a-0", {f"i{k}": 0.0 for k in range(50)})
    found = results.put("a-1", {f"i{k}": 1.0 for k in range(30, 80)}).compare()
    row = found.steps[1]
    assert (row.n_common, row.delta, row.p_better, row.note) == (
        20,
        None,
        None,
        "less than half of the items in common",
    )


def test_letters_by_rank(tmp_path):
    results = Results(tmp_path, ["x", "y", "z"])
    results.put("x", draw(0.5)).put("y", draw(0.9, seed=1)).put("z", draw(0.52, seed=2))
    ranking = results.compare().ranking
    assert (ranking[0].ckpt, ranking[0].rank, ranking[0].letters) == ("y", 1, "a")
    assert {row.letters for row in ranking[1:]} == {"b"}


def test_equal_scores_share_a_rank(tmp_path):
    results = Results(tmp_path, ["x", "y", "z"]).put("x", draw(0.5)).put("y", draw(0.5)).put("z", draw(0.1, seed=3))
    assert [(row.ckpt, row.rank) for row in results.compare().ranking] == [("x", 1), ("y", 1), ("z", 3)]


# The step.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a-0", "a-1", "b-0", "b-1"]
    points = {name: Point(name, name[0], int(name[2])) for name in names}
    shown = Shown(points, {"sums": ShownTask("Sums")}, {"comparisons": {"same_step": ["a", "b"], "correction": "bh"}})
    write_record(tmp_path / "settings.json", shown.record())
    results = Results(tmp_path, names)
    for seed, name in enumerate(names):
        results.put(name, draw(0.3 + 0.15 * seed, seed=seed), samples=2)
    return tmp_path


def test_command(folder):
    folders = ["--settings", "settings.json", "--scores", "scores", "--summaries", "summaries", "--out"]
    step.main([*folders, "one"])
    step.main([*folders, "two"])
    kinds = {"comparisons": ComparisonRow, "flips": FlipRow, "steps": StepRow, "trends": TrendRow, "ranking": RankRow}
    rows = {name: read_table(f"one/{name}.csv", kind) for name, kind in kinds.items()}
    assert {name: len(found) for name, found in rows.items()} == {
        "comparisons": 2,
        "flips": 0,
        "steps": 4,
        "trends": 2,
        "ranking": 4,
    }
    assert [row.run for row in rows["steps"]] == ["a", "a", "b", "b"]
    for name in kinds:
        assert (folder / f"one/{name}.csv").read_bytes() == (folder / f"two/{name}.csv").read_bytes()
    with open("one/comparisons.csv", newline="") as file:
        assert [row["family"] for row in csv.DictReader(file)] == ["same_step", "same_step"]


def test_one_thread_multiplies_matrices():
    # Two of them waited for each other: 145 s in place of 26 s for 50 checkpoints, on two busy cores.
    count = "import os, compare, numpy; numpy.ones((99, 99)) @ numpy.ones((99, 99)); print(len(os.listdir('/proc/self/task')))"
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = str(Path(step.__file__).parent)
    ran = subprocess.run([sys.executable, "-c", count], env=environment, check=True, capture_output=True, text=True)
    assert ran.stdout == "1\n"

import math

import pytest

from milepost.records import PromptSet
from milepost.statistics.intervals import UNIT
from milepost.statistics.means import UNDEFINED, bootstrap_estimate, mean_estimate, ratio_estimate
from milepost.statistics.metrics import (
    Metric,
    Samples,
    clipped_mean_of,
    constant_of,
    fitted,
    ratio_of,
    reduce_scores,
    scale_of,
)
from milepost.statistics.summary import summarize

HEADER = {"task": "t", "kind": "native", "version": 1, "generation": 1, "sampling": {}}


def score(item, value, weight=None, sample=0, **more):
    weights = {} if weight is None else {"weights": {"x": weight}}
    return {"id": item, "sample": sample, "score": value, "metrics": {"x": value}, **weights, **more}


def summary(metric, scores, samples=1, reduce=None):
    items = list(dict.fromkeys(one["id"] for one in scores))
    prompts = PromptSet({**HEADER, "samples": samples}, [{"id": item} for item in items])
    answers = [{"id": one["id"], "sample": one["sample"], "content": "x"} for one in scores]
    return summarize(
        "c", prompts, answers, scores, scorer="s", metric="x", provenance={}, metrics=[metric],
        reduce=reduce or (lambda some: reduce_scores([metric], some)),
    )  # fmt: skip


def test_a_mean_is_that_of_items_and_its_range_decides_the_interval():
    values = {"a": [1.0, 0.0], "b": [1.0], "c": [0.25]}
    means = [0.5, 1.0, 0.25]
    assert Metric("x").estimate(Samples(values)) == mean_estimate(means, bounds=UNIT)
    assert Metric("x", range=(-1, 1)).estimate(Samples(values)) == mean_estimate(means, bounds=(-1, 1))
    clusters = {"a": "k", "b": "k"}
    assert Metric("x").estimate(Samples(values, clusters=clusters)) == mean_estimate(
        means, clusters=["k", "k", "c"], bounds=UNIT
    )


def test_a_ratio_is_that_of_sums_over_items():
    # Two samples of a: 3 of 4 and 1 of 2 instructions; one of b: none of 1.
    samples = Samples({"a": [0.75, 0.5], "b": [0.0]}, {"a": [4.0, 2.0], "b": [1.0]})
    found = Metric("x", reduce=ratio_of).estimate(samples)
    assert found["value"] == pytest.approx(2 / 4)
    assert found == ratio_estimate([2.0, 0.0], [3.0, 1.0], bounds=UNIT)


def test_a_ratio_reaches_the_summary_with_its_weights():
    metric = Metric("x", reduce=ratio_of)
    scores = [
        score("a", 1.0, 3.0),
        score("a", 0.0, 3.0, sample=1),
        score("b", 0.0, 1.0),
        score("b", 1.0, 1.0, sample=1),
    ]
    found = summary(metric, scores, samples=2)
    assert found["value"] == pytest.approx(0.5)
    # The first run is 3 of 4, the second 1 of 4: means over items would say .5 of both.
    assert found["runs"]["per_run"] == [0.75, 0.25]
    unequal = summary(metric, [score("a", 1.0, 3.0), score("b", 0.0, 1.0)])
    assert unequal["value"] == 0.75
    # What of a ratio is decoding's and what the items', the means of items do not tell.
    assert unequal["variance"] == {"items": None, "decoding": None}
    assert "advice" not in unequal


def test_a_clipped_mean_is_cut_after_the_mean_and_not_item_by_item():
    samples = Samples({"a": [-1.0], "b": [0.4], "c": [0.9]})
    found = Metric("x", reduce=clipped_mean_of).estimate(samples)
    assert found["value"] == pytest.approx(0.1)
    assert found["ci95"] == (0.0, 1.0)
    assert found["stderr"] == mean_estimate([-1.0, 0.4, 0.9])["stderr"]
    assert Metric("x", reduce=clipped_mean_of).estimate(Samples({"a": [-1.0]}))["value"] == 0.0
    assert Metric("x", reduce=clipped_mean_of).estimate(Samples()) == UNDEFINED


def test_what_was_worked_out_has_no_error():
    assert Metric("x", reduce=constant_of).estimate(Samples({"a": [0.2], "b": [0.4]})) == {
        "value": pytest.approx(0.3), "stderr": None, "ci95": None,
    }  # fmt: skip
    assert Metric("x", reduce=constant_of).estimate(Samples()) == UNDEFINED


def test_a_number_that_is_fitted_to_all_items_at_once():
    scores = [score(f"i{n}", float(n % 3 == 0)) for n in range(30)]
    values = [one["score"] for one in scores]

    def odds(drawn):
        mean = sum(values[at] for at in drawn) / len(drawn)
        return math.nan if mean in (0, 1) else mean / (1 - mean)

    found = summary(
        Metric("x", range=None, reduce=fitted),
        scores,
        reduce=lambda some: {"x": bootstrap_estimate(odds, len(some), rounds=100)},
    )
    assert found["value"] == pytest.approx(0.5)
    assert found["ci95"][0] < 0.5 < found["ci95"][1]
    assert found["variance"] == {"items": None, "decoding": None}
    with pytest.raises(NotImplementedError, match="x is made of all answers at once"):
        reduce_scores([Metric("x", reduce=fitted)], scores)


def test_a_summary_says_which_way_is_better():
    found = summary(Metric("x", "lower", None), [score("a", 3.0)])
    assert found["scales"] == {"x": {"better": "lower", "range": None}}
    assert scale_of(found)["better"] == "lower"
    assert scale_of(found, "y") == {"better": "higher", "range": None}


def test_what_could_not_be_read_is_no_sample():
    found = reduce_scores([Metric("x"), Metric("y")], [score("a", None), score("b", 1.0)])
    assert found["x"]["value"] == 1.0
    assert found["y"] == UNDEFINED

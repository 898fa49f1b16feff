import itertools
import math

import numpy as np
import pytest

from milepost.errors import StatsError
from milepost.records import PromptSet
from milepost.statistics.intervals import UNIT
from milepost.statistics.means import mean_estimate
from milepost.statistics.metrics import Metric
from milepost.statistics.samples_at_k import estimates_at, majority_at, names_at, pass_all, pass_at
from milepost.statistics.summary import summarize


def drawn(n, k):
    return list(itertools.combinations(range(n), k))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
def test_all_are_what_drawing_every_k_of_the_samples_gives(seed, k):
    rng = np.random.default_rng(seed)
    answers = rng.choice(list("abcd"), size=7, p=[0.4, 0.3, 0.2, 0.1]).tolist()
    worth = dict(zip("abcd", rng.choice([0.0, 0.5, 1.0], size=4).tolist(), strict=True))
    scores = [worth[answer] for answer in answers]
    best, worst, most = [], [], []
    for chosen in drawn(7, k):
        best.append(max(scores[i] for i in chosen))
        worst.append(min(scores[i] for i in chosen))
        votes = [answers[i] for i in chosen]
        top = max(votes.count(answer) for answer in votes)
        tied = {answer for answer in votes if votes.count(answer) == top}
        most.append(sum(worth[answer] for answer in tied) / len(tied))
    assert pass_at(scores, k) == pytest.approx(np.mean(best))
    assert pass_all(scores, k) == pytest.approx(np.mean(worst))
    assert majority_at(scores, answers, k) == pytest.approx(np.mean(most))


@pytest.mark.parametrize(("n", "c", "k"), [(8, 3, 2), (8, 0, 4), (8, 8, 4), (100, 1, 50), (200, 100, 10), (4, 2, 4)])
def test_right_and_wrong_have_the_published_formulas(n, c, k):
    scores = [1.0] * c + [0.0] * (n - c)
    assert pass_at(scores, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))
    assert pass_all(scores, k) == pytest.approx(math.comb(c, k) / math.comb(n, k))


def test_one_of_the_samples_is_the_mean_whatever_is_asked():
    scores, answers = [1.0, 0.0, 0.25, 1.0], ["x", "y", "z", "x"]
    assert pass_at(scores, 1) == pass_all(scores, 1) == pytest.approx(np.mean(scores))
    assert majority_at(scores, answers, 1) == pytest.approx(np.mean(scores))


def test_many_samples_with_many_answers_stay_quick():
    rng = np.random.default_rng(0)
    answers = [str(answer) for answer in rng.geometric(0.3, size=64)]
    scores = [float(answer == "1") for answer in answers]
    # What is most frequent by far wins nearly always.
    assert majority_at(scores, answers, 64) == 1.0
    assert 0.3 < majority_at(scores, answers, 3) < 1


@pytest.mark.parametrize("k", [0, 3])
def test_more_samples_than_there_are_cannot_be_drawn(k):
    for at in (pass_at, pass_all):
        with pytest.raises(StatsError, match=f"{k} samples of 2 cannot be drawn"):
            at([1, 0], k)
    with pytest.raises(StatsError, match=f"{k} samples of 2"):
        majority_at([1, 0], ["a", "b"], k)
    with pytest.raises(StatsError, match="each sample needs its answer"):
        majority_at([1, 0], ["a"], 1)


def score(item, sample, value, extracted=None):
    found = {"id": item, "sample": sample, "score": value, "metrics": {"right": value}}
    return found | ({} if extracted is None else {"extracted": extracted})


def samples_of(values, answers=None):
    return [
        score(item, sample, value, answers and answers[item][sample])
        for item, row in values.items()
        for sample, value in enumerate(row)
    ]


def test_they_are_means_over_items_with_their_interval():
    values = {"a": [1, 0, 0], "b": [1, 1, 0], "c": [0, 0, 0], "d": [1, None, 1]}
    answers = {"a": ["4", "5", "5"], "b": ["7", "7", "8"], "c": ["", "", "9"], "d": ["2", "2", "2"]}
    found = estimates_at(samples_of(values, answers), Metric("right"), [2, 3], {})
    assert list(found) == names_at([2, 3])
    # d has two samples that could be read: it counts for k = 2 only.
    assert found["pass@2"] == mean_estimate([2 / 3, 1, 0, 1], bounds=UNIT)
    assert found["pass^2"] == mean_estimate([0, 1 / 3, 0, 1], bounds=UNIT)
    assert found["pass@3"] == mean_estimate([1, 1, 0], bounds=UNIT)
    assert found["maj@3"] == mean_estimate([0, 1, 0], bounds=UNIT)
    clustered = estimates_at(samples_of(values), Metric("right"), [2], {"a": "x", "b": "x"})
    assert clustered["pass@2"] == mean_estimate([2 / 3, 1, 0, 1], clusters=["x", "x", "c", "d"], bounds=UNIT)


def test_without_answers_that_can_be_told_alike_there_is_no_majority():
    assert list(estimates_at(samples_of({"a": [1, 0]}), Metric("right"), [2], {})) == ["pass@2", "pass^2"]
    assert (
        list(estimates_at(samples_of({"a": [None, None]}), Metric("right"), [2], {}).values())
        == [{"value": None, "stderr": None, "ci95": None}] * 2
    )


def test_the_best_of_losses_is_the_lowest():
    found = estimates_at(samples_of({"a": [3.0, 1.0], "b": [2.0, 4.0]}), Metric("loss", "lower", None), [2], {})
    assert (found["pass@2"]["value"], found["pass^2"]["value"]) == (1.5, 3.5)


def test_they_join_the_summary_with_direction_and_range():
    values = {"a": [1, 0], "b": [1, 1]}
    header = {"task": "t", "kind": "native", "version": 1, "generation": 1, "samples": 2, "sampling": {}}
    answers = [{"id": item, "sample": sample, "content": "x"} for item in values for sample in range(2)]
    summary = summarize(
        "c", PromptSet(header, [{"id": item} for item in values]), answers, samples_of(values),
        scorer="s", metric="right", provenance={}, metrics=[Metric("right")], ks=[1, 2],
    )  # fmt: skip
    assert {name: one["value"] for name, one in summary["metrics"].items()} == {
        "right": 0.75, "pass@1": 0.75, "pass^1": 0.75, "pass@2": 1.0, "pass^2": 0.5,
    }  # fmt: skip
    assert summary["scales"]["pass@2"] == {"better": "higher", "range": UNIT}


@pytest.mark.parametrize(("n", "mean", "samples", "k"), [(30, 0.5, 8, 2), (100, 0.9, 8, 4), (100, 0.3, 4, 4)])
def test_their_intervals_cover(n, mean, samples, k):
    rng = np.random.default_rng(3)
    chances = rng.beta(mean, 1 - mean, size=400_000)
    truth = {"best": (1 - (1 - chances) ** k).mean(), "all": (chances**k).mean()}
    covered = dict.fromkeys(truth, 0)
    rounds = 300
    for _ in range(rounds):
        right = rng.binomial(samples, rng.beta(mean, 1 - mean, size=n))
        rows = [[1.0] * int(c) + [0.0] * (samples - int(c)) for c in right]
        for kind, at in (("best", pass_at), ("all", pass_all)):
            low, high = mean_estimate([at(row, k) for row in rows], bounds=UNIT)["ci95"]
            covered[kind] += low <= truth[kind] <= high
    assert min(covered.values()) / rounds >= 0.92

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm

from milepost.errors import StatsError
from milepost.statistics.intervals import UNIT
from milepost.statistics.judge_error import (
    correct_by_rates,
    correct_difference,
    correct_difference_by_rates,
    correct_grades,
    correct_verdicts,
    judging_variance,
    pooled_rates,
    predict,
    width_with,
)
from milepost.statistics.means import mean_estimate


def judged(seed=0, n=400, truth=0.6, sensitivity=0.9, specificity=0.8, labels=60):
    rng = np.random.default_rng(seed)
    right = rng.binomial(1, truth, size=n)
    verdicts = (rng.uniform(size=n) < np.where(right, sensitivity, 1 - specificity)).astype(float)
    known = [float(value) if place < labels else None for place, value in enumerate(right.tolist())]
    return verdicts.tolist(), known


def test_the_corrected_share_is_that_of_the_strata_of_the_verdict():
    verdicts, labels = judged()
    v, y = np.array(verdicts), np.array([np.nan if one is None else one for one in labels])
    theta = variance = 0.0
    m = np.empty(2)
    for verdict in (0, 1):
        mine = y[(v == verdict) & ~np.isnan(y)]
        m[verdict] = (mine.sum() + 0.5) / (len(mine) + 1)
        theta += (v == verdict).mean() * m[verdict]
        variance += (v == verdict).mean() ** 2 * m[verdict] * (1 - m[verdict]) / (len(mine) + 1)
    variance += m[v.astype(int)].var(ddof=1) / 400
    half = scipy.stats.t.ppf(0.975, 58) * np.sqrt(variance)
    found = correct_verdicts(verdicts, labels)
    assert found.estimate["value"] == pytest.approx(theta)
    assert found.estimate["ci95"] == pytest.approx((theta - half, theta + half))
    assert (found.judged, found.labels, found.informative) == (pytest.approx(v.mean()), 60, True)
    assert predict(verdicts, labels) == pytest.approx(m[v.astype(int)])


def test_a_judge_that_guesses_leaves_the_number_to_the_labels():
    verdicts, labels = judged(sensitivity=0.5, specificity=0.5)
    found = correct_verdicts(verdicts, labels)
    alone = mean_estimate([label for label in labels if label is not None], bounds=UNIT)
    assert (found.informative, found.estimate) == (False, alone)
    # Drawn by verdict, their plain mean is not that of the answers.
    by_verdict = correct_verdicts(verdicts, labels, by_verdict=True)
    assert (by_verdict.informative, by_verdict.estimate != alone) == (False, True)


def test_graded_labels_are_corrected_by_regression():
    rng = np.random.default_rng(1)
    truth = rng.beta(6, 4, size=300)
    verdicts = 0.3 + 0.5 * truth + rng.normal(0, 0.05, size=300)
    labels = [float(value) if place < 50 else None for place, value in enumerate(truth.tolist())]
    found = correct_grades(verdicts.tolist(), labels, bounds=UNIT)
    fit = sm.OLS(truth[:50], sm.add_constant(verdicts[:50])).fit()
    expected = fit.predict([1, verdicts.mean()])[0]
    variance = fit.mse_resid / 50 + fit.params[1] ** 2 * verdicts.var(ddof=1) / 300
    assert found.estimate["value"] == pytest.approx(expected)
    assert found.estimate["stderr"] == pytest.approx(np.sqrt(variance))
    assert (
        found.estimate["ci95"][1] - found.estimate["ci95"][0]
        < 0.7 * (np.diff(mean_estimate(truth[:50].tolist(), bounds=UNIT)["ci95"])[0])
    )
    # The same share everywhere is no stratification.
    again = correct_grades(verdicts.tolist(), labels, drawn=[1 / 6] * 300, bounds=UNIT)
    assert again.estimate["value"] == pytest.approx(expected)


def test_verdicts_that_say_nothing_of_grades_leave_the_labels():
    rng = np.random.default_rng(2)
    labels = rng.uniform(size=40).tolist()
    found = correct_grades([0.5] * 200, [*labels, *([None] * 160)], bounds=UNIT)
    assert (found.informative, found.estimate) == (False, mean_estimate(labels, bounds=UNIT))


def test_a_difference_carries_both_errors():
    a, b = judged(1, truth=0.4), judged(2, truth=0.7)
    first, second = correct_verdicts(*a), correct_verdicts(*b)
    expected_a, expected_b = predict(*a), predict(*b)
    found = correct_difference(first, second, expected_a, expected_b)
    assert found["value"] == pytest.approx(second.estimate["value"] - first.estimate["value"])
    d = expected_b - expected_a
    variance = first.label_variance + second.label_variance + d.var(ddof=1) / len(d)
    assert found["stderr"] == pytest.approx(np.sqrt(variance))
    with pytest.raises(StatsError, match="common items; there are 3 and 2"):
        correct_difference(first, second, [0, 1, 1], [0, 1])


def test_rates_of_many_labels_turn_verdicts_round():
    verdicts, labels = judged(3, n=60_000, labels=60_000, sensitivity=0.9, specificity=0.7)
    rates = pooled_rates(verdicts, labels)
    assert (rates.sensitivity, rates.specificity) == (pytest.approx(0.9, abs=0.01), pytest.approx(0.7, abs=0.01))
    assert correct_by_rates(verdicts, rates)["value"] == pytest.approx(0.6, abs=0.01)
    better, _ = judged(4, n=60_000, truth=0.8, sensitivity=0.9, specificity=0.7)
    assert correct_difference_by_rates(verdicts, better, rates)["value"] == pytest.approx(0.2, abs=0.015)


def test_labels_drawn_by_verdict_need_their_weights():
    verdicts, labels = judged(5, n=40_000, labels=40_000, truth=0.2, sensitivity=0.9, specificity=0.9)
    drawn = [0.9 if verdict else 0.1 for verdict in verdicts]
    keep = np.random.default_rng(6).uniform(size=40_000) < drawn
    chosen = [[one[place] for place in np.flatnonzero(keep)] for one in (verdicts, labels, drawn)]
    weighted, plain = pooled_rates(*chosen), pooled_rates(*chosen[:2])
    assert weighted.specificity == pytest.approx(0.9, abs=0.01)
    assert plain.specificity < 0.7


def test_a_guess_cannot_be_turned_round():
    verdicts, labels = judged(7, n=500, labels=500, sensitivity=0.4, specificity=0.4)
    with pytest.raises(StatsError, match="no better than guessing"):
        correct_by_rates(verdicts, pooled_rates(verdicts, labels))


def test_what_more_labels_would_bring():
    few, many = (correct_verdicts(*judged(8, n=4_000, labels=labels)) for labels in (100, 1_000))
    low, high = many.estimate["ci95"]
    assert width_with(few, 1_000) == pytest.approx(high - low, rel=0.12)
    low, high = few.estimate["ci95"]
    assert width_with(few, 100) == pytest.approx(high - low)


def test_how_much_a_judge_varies():
    assert judging_variance([[1, 1], [0, 1], [1]]) == 0.25
    assert judging_variance([[1], [0]]) is None


@pytest.mark.parametrize(
    ("verdicts", "labels", "words"),
    [
        ([1, 0], [1, None, 0], "2 verdicts and 3 labels"),
        ([1, 0, 1, 1], [1, 0, None, None], "2 answers have a label"),
        ([1, 0, 0.5], [1, 0, 1], "neither 0 nor 1"),
        ([1, 0, 1], [1, 0, 0.5], "neither 0 nor 1"),
    ],
)
def test_what_cannot_be_corrected(verdicts, labels, words):
    with pytest.raises(StatsError, match=words):
        correct_verdicts(verdicts, labels)


@pytest.fixture(scope="module")
def simulated():
    folder = str(Path(__file__).parents[3] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("judged_coverage")
    sys.path.remove(folder)


def test_corrected_shares_are_covered_however_the_judge_errs(simulated):
    rows = list(simulated.verdict_coverage(150, labels=[30], judges=[(0.6, 0.6), (0.95, 0.7)], truths=[0.05, 0.7]))
    assert min(row[f"coverage, {way}"] for row in rows for way in ("at random", "by verdict")) >= 0.9
    assert max(row["coverage, raw"] for row in rows) < 0.5


def test_pooling_over_a_run_is_right_only_while_the_judge_errs_alike(simulated):
    alike, drifting = simulated.run_coverage(120, drifts=[0.0, 0.3])
    assert min(alike["gain"], drifting["gain"], alike["pooled gain"]) >= 0.9
    assert drifting["pooled gain"] < 0.6
    assert alike["width, pooled gain"] < 0.7 * alike["width, gain"]

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm

from milepost.errors import StatsError
from milepost.statistics.intervals import UNIT
from milepost.statistics.means import (
    advise,
    bootstrap_estimate,
    harness_estimate,
    mean_estimate,
    ratio_estimate,
    split_variance,
)
from milepost.statistics.student import t_quantile

SCRIPTS = str(Path(__file__).parents[3] / "scripts")
UNDEFINED = {"value": None, "stderr": None, "ci95": None}


@pytest.mark.parametrize("probability", [0.6, 0.8, 0.975, 0.995])
def test_t_quantile_is_scipys(probability):
    df = [*range(1, 300), *range(950, 1050), 10_000, 10**6, 10**9]
    found = [t_quantile(each, probability) for each in df]
    np.testing.assert_allclose(found, scipy.stats.t.ppf(probability, df), rtol=1e-12)


@pytest.mark.parametrize(("df", "probability"), [(0, 0.975), (5, 0.5), (5, 0.1), (5, 1.0)])
def test_t_quantile_refuses_what_it_was_not_made_for(df, probability):
    with pytest.raises(ValueError, match="no quantile of t"):
        t_quantile(df, probability)


def ends_of(values, bounds=UNIT, **more):
    return mean_estimate(values, bounds=bounds, **more)["ci95"]


def test_failed_and_solved_items_get_an_interval_of_a_share_with_four_more_items():
    values = [1.0] * 30 + [0.0] * 10
    found = mean_estimate(values, bounds=UNIT)
    assert found["value"] == 0.75
    assert found["stderr"] == pytest.approx(scipy.stats.sem(values))
    # Agresti and Coull's interval with t: m(1 - m)/SE² is n - 1 here. The pseudo-items say the same, but for n in place of it.
    centre = (39 * 0.75 + 2) / 43
    half = scipy.stats.t.ppf(0.975, 39) * math.sqrt(centre * (1 - centre) / 43)
    assert found["ci95"] == pytest.approx((centre - half, centre + half), abs=2e-3)


def test_several_samples_get_the_interval_of_the_items_with_four_pseudo_items_where_that_is_narrower():
    values = np.random.default_rng(0).binomial(4, np.random.default_rng(1).beta(0.9, 0.1, size=100)) / 4
    padded = np.append(values, [0, 0, 1, 1])
    half = scipy.stats.t.ppf(0.975, 99) * padded.std(ddof=1) / math.sqrt(104)
    assert ends_of(values.tolist()) == pytest.approx((padded.mean() - half, padded.mean() + half))


@pytest.mark.parametrize("bounds", [UNIT, (0, 2), (-1, 1)])
def test_graded_scores_get_an_interval_as_narrow_as_the_plain_one(bounds):
    """The four pseudo-items alone made it four times as wide: .085 where the plain t has .028."""
    values = np.random.default_rng(0).normal(0.3, 0.05, size=50)
    plain = scipy.stats.t.interval(0.95, 49, loc=values.mean(), scale=scipy.stats.sem(values))
    low, high = ends_of(values.tolist(), bounds)
    assert high - low == pytest.approx(plain[1] - plain[0], rel=0.02)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.001)


@pytest.mark.parametrize(("low", "high"), [(1, 10), (-1, 1), (0, 100)])
def test_an_interval_follows_its_scale(low, high):
    values = np.random.default_rng(3).beta(0.7, 0.3, size=60)
    ends = ends_of(values.tolist())
    scaled = ends_of((low + (high - low) * values).tolist(), (low, high))
    assert scaled == pytest.approx(tuple(low + (high - low) * end for end in ends))


def test_the_recipe_does_not_follow_from_a_single_score():
    """A margin in [-1, 1] got [0, .160] while none was negative, and [.014, .024] with one that was."""
    values = [0.02] * 49
    before, after = (ends_of([*values, last], (-1, 1)) for last in (0.0001, -0.0001))
    assert after == pytest.approx(before, abs=1e-3)


def test_ratings_that_are_all_alike_are_not_certain():
    low, high = ends_of([7.0] * 20, (1, 10))
    assert 1 < low < 6.5
    assert 7.5 < high < 10
    # Without a known range, nothing tells how far another item would be.
    assert mean_estimate([7.0] * 20) == {"value": 7.0, "stderr": 0.0, "ci95": None}
    # One of another opinion, and however little it is: the interval does not collapse.
    nearly = ends_of([7.0] * 19 + [7.001], (1, 10))
    assert nearly[1] - nearly[0] > (high - low) / 3


@pytest.mark.parametrize("shift", [5.0, -0.2])
def test_other_scores_get_the_plain_t_interval(shift):
    values = np.random.default_rng(1).uniform(size=30) + shift
    found = mean_estimate(values.tolist())
    plain = scipy.stats.t.interval(0.95, 29, loc=values.mean(), scale=scipy.stats.sem(values))
    assert found["ci95"] == pytest.approx(plain)


@pytest.mark.parametrize("score", [-0.1, 1.1])
def test_a_score_outside_its_range_is_an_error(score):
    with pytest.raises(StatsError, match=r"lie between 0 and 1\. Correct the scorer, or the range"):
        mean_estimate([0.5, score], bounds=UNIT)
    # What sums in another order have left is none.
    assert mean_estimate([1.0, 1 + 1e-12], bounds=UNIT)["ci95"][1] == 1.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], UNDEFINED),
        ([0.5], {"value": 0.5, "stderr": None, "ci95": None}),
        ([7.0], {"value": 7.0, "stderr": None, "ci95": None}),
    ],
)
def test_what_is_not_defined_is_null(values, expected):
    assert mean_estimate(values) == expected


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_equal_scores_at_the_edge_still_have_an_interval(score):
    low, high = ends_of([score] * 20)
    assert 0 <= low < high <= 1
    assert score in (low, high)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_an_error(bad):
    with pytest.raises(StatsError, match="Correct the scorer"):
        mean_estimate([0.5, bad])


def test_clustered_error_is_that_of_statsmodels():
    rng = np.random.default_rng(2)
    groups = rng.integers(0, 12, size=100)
    values = rng.normal(size=12)[groups] + rng.normal(size=100)
    fit = sm.OLS(values, np.ones(100)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    found = mean_estimate(values.tolist(), clusters=groups.tolist())
    assert found["stderr"] == pytest.approx(fit.bse[0])
    assert found["ci95"] == pytest.approx(tuple(fit.conf_int()[0]))


def test_clusters_of_one_item_change_nothing():
    values = [0.0, 1.0, 1.0, 0.5, 0.25]
    assert mean_estimate(values, clusters=range(5))["stderr"] == pytest.approx(mean_estimate(values)["stderr"])
    assert ends_of(values, clusters="abcde") == pytest.approx(ends_of(values))


def test_four_pseudo_items_of_clusters_weigh_as_the_root_of_their_size():
    rng = np.random.default_rng(9)
    clusters = [i // 9 for i in range(90)]
    values = rng.binomial(1, np.repeat(rng.beta(0.9, 0.1, size=10), 9)).astype(float)
    # Ten clusters of nine; each pseudo-item weighs 3.
    tops = np.append(values.reshape(10, 9).sum(axis=1), [0, 0, 3, 3])
    weights = np.array([9] * 10 + [3] * 4)
    mean = tops.sum() / weights.sum()
    half = scipy.stats.t.ppf(0.975, 9) * math.sqrt(14 / 13 * ((tops - mean * weights) ** 2).sum()) / weights.sum()
    # In units of a pseudo-item there are √(90 · 10) = 30 items.
    m, stderr = values.mean(), mean_estimate(values.tolist(), clusters=clusters)["stderr"]
    n_eff = min(m * (1 - m) / stderr**2, 30)
    centre = (n_eff * m + 2) / (n_eff + 4)
    other = scipy.stats.t.ppf(0.975, 9) * math.sqrt(centre * (1 - centre) / (n_eff + 4))
    narrower = min([(mean - half, mean + half), (centre - other, centre + other)], key=lambda ends: ends[1] - ends[0])
    assert ends_of(values.tolist(), clusters=clusters) == pytest.approx((narrower[0], min(1.0, narrower[1])))


def test_one_cluster_has_no_error():
    assert mean_estimate([0.1, 0.9], clusters=["a", "a"]) == {"value": 0.5, "stderr": None, "ci95": None}


def test_each_value_needs_its_cluster():
    with pytest.raises(StatsError, match="2 values and 1 clusters"):
        mean_estimate([0.1, 0.9], clusters=["a"])


def test_the_parts_of_the_variance_add_up_to_that_of_the_mean():
    rng = np.random.default_rng(3)
    samples = rng.binomial(1, rng.uniform(size=(50, 1)), size=(50, 4)).astype(float)
    found = split_variance(samples.tolist())
    assert found["decoding"] == pytest.approx(samples.var(axis=1, ddof=1).mean() / 4 / 50)
    assert found["items"] + found["decoding"] == pytest.approx(samples.mean(axis=1).var(ddof=1) / 50)


@pytest.mark.parametrize(
    ("samples", "items", "decoding"),
    [
        ([], None, None),
        ([[1], [0], [1]], None, None),  # one sample each: the parts cannot be told apart
        ([[1, 0]], None, 0.25),  # one item: nothing is known of the others
        ([[1, 1], [0, 0]], 0.25, 0.0),  # the same answer each time
        ([[1, 0], [1, 0]], 0.0, 0.125),  # all items alike: never a negative variance
        ([[1, 0], [0]], 0.0, (0.25 + 0.5) / 2 / 2),  # a single sample takes the mean variance of the others
    ],
)
def test_split_of_the_variance(samples, items, decoding):
    assert split_variance(samples) == pytest.approx({"items": items, "decoding": decoding})


@pytest.mark.parametrize(
    ("value", "stderr", "expected"),
    [
        (None, 0.1, UNDEFINED),
        (math.nan, 0.1, UNDEFINED),
        (0.5, None, {"value": 0.5, "stderr": None, "ci95": None}),
        (0.5, 0.1, {"value": 0.5, "stderr": 0.1, "ci95": pytest.approx(scipy.stats.norm.interval(0.95, 0.5, 0.1))}),
    ],
)
def test_a_harness_has_its_own_error(value, stderr, expected):
    assert harness_estimate(value, stderr) == expected


def test_a_harness_s_interval_ends_where_its_range_does():
    assert harness_estimate(0.9, 0.1, UNIT)["ci95"] == pytest.approx((0.9 - 1.959964 * 0.1, 1.0))


def test_a_ratio_has_the_error_of_the_linearised_regression():
    """The ratio Σy/Σw is the weighted mean of y/w, and its error that of weighted least squares with the HC1 errors."""
    rng = np.random.default_rng(4)
    weights = rng.integers(1, 4, size=80)
    tops = rng.binomial(weights, 0.7)
    found = ratio_estimate(tops.tolist(), weights.tolist(), bounds=UNIT)
    fit = sm.WLS(tops / weights, np.ones(80), weights=weights).fit(cov_type="HC1")
    assert (found["value"], found["stderr"]) == pytest.approx((fit.params[0], fit.bse[0]))
    low, high = found["ci95"]
    assert 0 < low < found["value"] < high < 1
    plain = ratio_estimate(tops.tolist(), weights.tolist())
    half = scipy.stats.t.ppf(0.975, 79) * fit.bse[0]
    assert plain["ci95"] == pytest.approx((fit.params[0] - half, fit.params[0] + half))


def test_a_clustered_ratio_is_statsmodels_too():
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 11, size=90)
    weights = rng.uniform(0.5, 2, size=90)
    tops = weights * rng.normal(size=11)[groups] + rng.normal(size=90)
    fit = sm.WLS(tops / weights, np.ones(90), weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    found = ratio_estimate(tops.tolist(), weights.tolist(), clusters=groups.tolist())
    # statsmodels corrects by G/(G-1) · (n-1)/(n-k), and k is 1.
    assert (found["value"], found["stderr"]) == pytest.approx((fit.params[0], fit.bse[0]))
    assert found["ci95"] == pytest.approx(tuple(fit.conf_int()[0]))


def test_equal_weights_make_a_ratio_a_mean():
    values = [0.0, 1.0, 1.0, 0.5, 0.25]
    doubled = ratio_estimate([2 * value for value in values], [2.0] * 5, bounds=UNIT)
    assert doubled["ci95"] == pytest.approx(ends_of(values))
    assert doubled["stderr"] == pytest.approx(mean_estimate(values)["stderr"])


@pytest.mark.parametrize(
    ("tops", "weights", "expected"),
    [
        ([], [], UNDEFINED),
        ([0, 0], [0, 0], UNDEFINED),
        ([2, 0], [4, 0], {"value": 0.5, "stderr": None, "ci95": None}),  # one item with a weight
    ],
)
def test_ratios_that_are_not_defined_are_null(tops, weights, expected):
    assert ratio_estimate(tops, weights) == expected


@pytest.mark.parametrize(
    ("tops", "weights", "message"),
    [([1], [1, 1], "each value needs its weight"), ([1, 1], [1, -1], "negative"), ([1, 1], [1, math.inf], "infinite")],
)
def test_ratios_of_bad_numbers_are_errors(tops, weights, message):
    with pytest.raises(StatsError, match=message):
        ratio_estimate(tops, weights)


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(6).exponential(size=60)
    found = bootstrap_estimate(lambda items: np.median(values[items]), 60, rounds=4_000, seed=1)
    oracle = scipy.stats.bootstrap(
        (values,), np.median, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    )
    assert found["value"] == np.median(values)
    assert found["stderr"] == pytest.approx(oracle.standard_error, rel=0.05)
    assert found["ci95"] == pytest.approx(tuple(oracle.confidence_interval), rel=0.05)


def test_a_bootstrap_draws_whole_clusters():
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(40), 5)
    values = rng.normal(size=40)[groups] + rng.normal(scale=0.1, size=200)
    found = bootstrap_estimate(lambda items: values[items].mean(), 200, clusters=groups.tolist(), seed=3)
    assert found["stderr"] == pytest.approx(mean_estimate(values.tolist(), clusters=groups.tolist())["stderr"], rel=0.1)
    assert found == bootstrap_estimate(lambda items: values[items].mean(), 200, clusters=groups.tolist(), seed=3)


@pytest.mark.parametrize(
    ("fit", "n", "clusters", "expected"),
    [
        (lambda _: 1.0, 0, None, UNDEFINED),
        (lambda _: math.nan, 9, None, UNDEFINED),
        (lambda _: 1.0, 1, None, {"value": 1.0, "stderr": None, "ci95": None}),
        (lambda _: 1.0, 3, "aaa", {"value": 1.0, "stderr": None, "ci95": None}),
    ],
)
def test_bootstraps_that_are_not_defined_are_null(fit, n, clusters, expected):
    assert bootstrap_estimate(fit, n, clusters=clusters) == expected


def test_a_fit_that_fails_too_often_is_an_error():
    def needs_the_first(items):
        return 1.0 if 0 in items else math.nan

    with pytest.raises(StatsError, match=r"Of 1000 bootstrap rounds, 3\d\d gave no number"):
        bootstrap_estimate(needs_the_first, 10)
    with pytest.raises(StatsError, match="each item needs its cluster"):
        bootstrap_estimate(needs_the_first, 10, clusters=["a"])


def test_advice_says_what_more_samples_and_items_would_do():
    rng = np.random.default_rng(8)
    items = rng.beta(0.5, 0.5, size=20_000)

    def half_width(n, samples):
        answers = [row.tolist() for row in rng.binomial(1, items[:n, None], size=(n, samples))]
        found = mean_estimate([sum(row) / samples for row in answers])
        return split_variance(answers), found["stderr"]

    variance, stderr = half_width(10_000, 2)
    advice = advise(variance, n_items=10_000, n_samples=20_000, stderr=stderr, more_samples=6, more_items=10_000)
    # What was foretold, against a run with as many.
    assert 1 - half_width(10_000, 8)[1] / stderr == pytest.approx(advice.narrower_by_samples, abs=0.01)
    assert 1 - half_width(20_000, 2)[1] / stderr == pytest.approx(advice.narrower_by_items, abs=0.01)
    assert advice.sentence == (
        f"6 more samples per item would narrow the interval by {advice.narrower_by_samples * 100:.0f} %, "
        f"10000 more items by {advice.narrower_by_items * 100:.0f} %."
    )


@pytest.mark.parametrize(
    ("decoding", "stderr", "by_samples", "by_items", "sentence"),
    [
        (None, 0.1, None, 1 - math.sqrt(0.5), "one sample per item does not tell"),
        (None, None, None, None, "Nothing varies"),  # a single item
        (0.0, 0.0, None, None, "Nothing varies"),
        (0.0, 0.1, 0.0, 1 - math.sqrt(0.5), "by 0 %"),
        (0.02, 0.1, 1 - math.sqrt(0.5), 1 - math.sqrt(0.5), "by 29 %"),  # more than all of it: items are all alike
    ],
)
def test_advice_of_few_numbers(decoding, stderr, by_samples, by_items, sentence):
    found = advise({"items": None, "decoding": decoding}, n_items=100, n_samples=400, stderr=stderr)
    assert found.narrower_by_samples == (by_samples if by_samples is None else pytest.approx(by_samples))
    assert found.narrower_by_items == (by_items if by_items is None else pytest.approx(by_items))
    assert sentence in found.sentence


@pytest.mark.parametrize(
    "does",
    [
        "import collect_answers",
        "import score_answers; from milepost.statistics.means import mean_estimate; mean_estimate([0.0, 1.0, 1.0])",
    ],
)
def test_steps_that_run_by_the_thousand_load_nothing_heavy(does):
    heavy = {"asyncio", "jinja2", "milepost.nemo.run", "numpy", "scipy", "statsmodels"}
    code = f"import sys; {does}; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env={"PYTHONPATH": SCRIPTS}, capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr


@pytest.mark.parametrize(("n", "mean", "samples"), [(10, 0.9, 1), (30, 0.02, 4), (100, 0.5, 4), (100, 0.98, 1)])
def test_intervals_cover_the_mean(n, mean, samples):
    rng = np.random.default_rng(20)
    rounds = 2_000
    # Item probabilities as they spread among real benchmarks: most items are nearly always right, or nearly never.
    chances = rng.beta(mean, 1 - mean, size=(rounds, n))
    items = rng.binomial(samples, chances) / samples
    intervals = [mean_estimate(row, bounds=UNIT)["ci95"] for row in items.tolist()]
    covered = np.mean([low <= mean <= high for low, high in intervals])
    assert covered >= 0.94


@pytest.mark.parametrize(("clusters", "size", "mean"), [(30, 5, 0.98), (10, 10, 0.98), (30, 5, 0.5)])
def test_intervals_over_clusters_cover_the_mean(clusters, size, mean):
    """Items of a cluster are all alike; the plain cluster t interval covers 0.98 with 10 clusters in 4 of 10 cases."""
    rng = np.random.default_rng(21)
    labels = np.repeat(np.arange(clusters), size).tolist()
    covered = 0
    for _ in range(1_000):
        chances = np.repeat(rng.beta(mean, 1 - mean, size=clusters), size)
        low, high = mean_estimate(rng.binomial(1, chances).tolist(), clusters=labels, bounds=UNIT)["ci95"]
        covered += low <= mean <= high
    assert covered / 1_000 >= 0.93

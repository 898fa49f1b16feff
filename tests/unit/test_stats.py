import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm

from milepost.errors import StatsError
from milepost.stats import clustered_stderr, harness_estimate, mean_estimate, split_variance, t_quantile

UNDEFINED = {"value": None, "stderr": None, "ci95": None}


@pytest.mark.parametrize("df", [1, 2, 9, 99, 10_000])
def test_t_quantile_is_scipys(df):
    assert t_quantile(df) == pytest.approx(scipy.stats.t.ppf(0.975, df), rel=1e-12)


@pytest.mark.parametrize("unit", [None, True])
def test_scores_in_the_unit_interval_get_four_pseudo_items(unit):
    values = np.random.default_rng(0).uniform(size=40)
    found = mean_estimate(values.tolist(), unit=unit)
    padded = np.append(values, [0, 0, 1, 1])
    half = scipy.stats.t.ppf(0.975, 39) * padded.std(ddof=1) / math.sqrt(44)
    assert found["value"] == pytest.approx(values.mean())
    assert found["stderr"] == pytest.approx(scipy.stats.sem(values))
    assert found["ci95"] == pytest.approx((padded.mean() - half, padded.mean() + half))


@pytest.mark.parametrize("shift", [5.0, -0.2])
def test_other_scores_get_the_plain_t_interval(shift):
    values = np.random.default_rng(1).uniform(size=30) + shift
    found = mean_estimate(values.tolist())
    plain = scipy.stats.t.interval(0.95, 29, loc=values.mean(), scale=scipy.stats.sem(values))
    assert found["ci95"] == pytest.approx(plain)


def test_scores_may_be_said_not_to_lie_in_the_unit_interval():
    low, high = mean_estimate([1.0, 1.0, 1.0], unit=False)["ci95"]
    assert (low, high) == (1.0, 1.0)


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
    low, high = mean_estimate([score] * 20)["ci95"]
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


def test_clusters_of_one_item_change_only_the_interval():
    values = [0.0, 1.0, 1.0, 0.5, 0.25]
    assert clustered_stderr(values, range(5)) == pytest.approx(mean_estimate(values)["stderr"])


def test_one_cluster_has_no_error():
    assert mean_estimate([0.1, 0.9], clusters=["a", "a"]) == {"value": 0.5, "stderr": None, "ci95": None}
    with pytest.raises(StatsError, match="two clusters"):
        clustered_stderr([0.1, 0.9], ["a", "a"])


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


@pytest.mark.parametrize(("n", "mean", "samples"), [(10, 0.9, 1), (30, 0.02, 4), (100, 0.5, 4), (100, 0.98, 1)])
def test_intervals_cover_the_mean(n, mean, samples):
    rng = np.random.default_rng(20)
    rounds = 2_000
    # Item probabilities as they spread among real benchmarks: most items are nearly always right, or nearly never.
    chances = rng.beta(mean, 1 - mean, size=(rounds, n))
    items = rng.binomial(samples, chances) / samples
    intervals = [mean_estimate(row, unit=True)["ci95"] for row in items.tolist()]
    covered = np.mean([low <= mean <= high for low, high in intervals])
    assert covered >= 0.94

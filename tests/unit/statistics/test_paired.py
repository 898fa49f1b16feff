import importlib.util
import itertools
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from milepost.errors import StatsError
from milepost.statistics.intervals import UNIT
from milepost.statistics.paired import (
    LESS_THAN_HALF,
    benjamini_hochberg,
    compare,
    detectable_difference,
    first_better,
    holm,
    lost_since,
    regressed_since,
)
from milepost.statistics.sign_flips import FLIPS, max_t

NAN = math.nan


def scores(*rows):
    return np.array(rows, dtype=float)


def binary(gained, lost, same=0):
    """Two checkpoints with so many items gained and lost, in 0 and 1."""
    a = [0] * gained + [1] * lost + [1] * same
    b = [1] * gained + [0] * lost + [1] * same
    return scores(a, b)


def run_of(means, *, items=120, seed=0, spread=0.3):
    """A run whose steps have these true means; its items differ in difficulty."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(scale=0.3, size=items)
    return np.array([mean + difficulty + rng.normal(scale=spread, size=items) for mean in means])


# Two checkpoints


def test_difference_and_interval_are_those_of_the_paired_t_test():
    a, b = np.random.default_rng(0).uniform(size=(2, 50))
    b[3] = NAN
    found = compare(a, b)
    common = ~np.isnan(b)
    oracle = scipy.stats.ttest_rel(b[common], a[common])
    assert (found.n_a, found.n_b, found.n_common) == (50, 49, 49)
    assert found.ci95 == pytest.approx(tuple(oracle.confidence_interval()))
    assert found.stderr == pytest.approx(scipy.stats.sem((b - a)[common]))
    assert found.delta == pytest.approx(found.value_b - found.value_a)
    assert found.better + found.worse == 49
    assert found.note is None


def test_right_and_wrong_get_the_interval_of_bonett_and_price():
    a, b = binary(gained=9, lost=3, same=88)
    found = compare(a, b, single=True, bounds=UNIT)
    # Bonett and Price (2012): one more item on each side of n + 2, here with t for z and n - 1 for n in the variance.
    p12, p21 = 10 / 102, 4 / 102
    half = scipy.stats.t.ppf(0.975, 99) * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / 101)
    assert found.delta == pytest.approx(0.06)
    assert found.ci95 == pytest.approx((6 / 102 - half, 6 / 102 + half))
    # That they were all failed or solved by several samples does not make the pseudo-items smaller than what was seen.
    assert compare(a, b, bounds=UNIT).ci95 == pytest.approx(found.ci95)


def test_pseudo_items_of_graded_scores_are_as_large_as_the_changes():
    a, b = np.random.default_rng(4).normal(0.4, 0.03, size=(2, 40))
    typical = ((b - a) ** 2).sum() / np.abs(b - a).sum()
    padded = np.append(b - a, [0.8 * typical, -0.8 * typical])
    oracle = scipy.stats.t.interval(0.95, 39, padded.mean(), scipy.stats.sem(padded))
    assert compare(a, b, bounds=UNIT).ci95 == pytest.approx(oracle)
    # Half of the range, as for failed and solved items, would make it five times as wide.
    assert compare(10 * a, 10 * b, bounds=(0, 10)).ci95 == pytest.approx(tuple(10 * end for end in oracle))


@pytest.mark.parametrize(("score", "bounds"), [(1.0, UNIT), (0.3, UNIT), (7.0, (1, 10))])
def test_scores_without_any_change_are_not_certain_to_be_alike(score, bounds):
    low, high = compare(np.full(50, score), np.full(50, score), bounds=bounds).ci95
    assert low == -high < -0.02 * (bounds[1] - bounds[0])
    assert compare(np.full(50, score), np.full(50, score)).ci95 is None


@pytest.mark.parametrize("items", [4, 8, 13])
def test_p_is_scipys_exact_one_for_few_items(items):
    a, b = np.random.default_rng(items).uniform(size=(2, items))
    oracle = scipy.stats.permutation_test((b - a,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert compare(a, b).p == pytest.approx(oracle.pvalue)


def test_p_is_scipys_within_the_chance_of_the_flips():
    rng = np.random.default_rng(1)
    a = rng.uniform(size=80)
    b = a + rng.normal(0.12, 0.3, size=80)
    oracle = scipy.stats.permutation_test(
        (b - a,), np.mean, permutation_type="samples", n_resamples=FLIPS, random_state=rng, vectorized=True
    )
    found = compare(a, b).p
    assert 0.001 < found < 0.2
    assert abs(found - oracle.pvalue) < 4 * math.sqrt(2 * found * (1 - found) / FLIPS)


def test_items_that_do_not_differ_leave_p_exact():
    a, b = binary(gained=7, lost=1, same=500)
    # Two-sided binomial: 2 · (1 + 8) / 2^8, whichever way it is tested.
    assert compare(a, b).p == pytest.approx(18 / 256)
    assert compare(a, b, single=True).p == pytest.approx(18 / 256)


def test_p_is_never_zero_and_the_same_for_a_seed():
    a, b = np.zeros(200), np.ones(200) + np.random.default_rng(2).uniform(size=200)
    assert compare(a, b).p == 1 / (FLIPS + 1)
    b, c = np.random.default_rng(3).uniform(size=(2, 40))
    assert compare(b, c, seed=1) == compare(b, c, seed=1)
    assert compare(b, c, seed=1).p != compare(b, c, seed=2).p


# The first are Agresti's (1990) approval ratings in R's ?mcnemar.test: 150 turned away and 86 came round.
@pytest.mark.parametrize(("gained", "lost"), [(86, 150), (0, 0), (1, 0), (3, 9), (5, 5)])
def test_single_binary_samples_are_tested_by_mcnemar(gained, lost):
    a, b = binary(gained, lost, same=20)
    found = compare(a, b, single=True)
    table = [[20, lost], [gained, 0]]
    assert found.test == "exact McNemar"
    assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert (found.better, found.worse) == (gained, lost)


@pytest.mark.parametrize(
    ("clusters", "single", "a", "test"),
    [
        (None, False, [0, 1, 1, 0], "sign-flip"),
        (None, True, [0, 1, 0.5, 0], "sign-flip"),  # graded scores are no table of right and wrong
        (["x", "x", "y", "z"], True, [0, 1, 1, 0], "sign-flip by cluster"),  # its items are not independent
    ],
)
def test_which_test_is_used(clusters, single, a, test):
    found = compare(scores(a)[0], scores([1, 1, 1, 1])[0], clusters=clusters, single=single)
    assert found.test == test


def test_clusters_give_statsmodels_error_and_flip_together():
    rng = np.random.default_rng(4)
    groups = rng.integers(0, 9, size=60)
    a = rng.uniform(size=60)
    b = a + rng.normal(size=9)[groups] + rng.normal(scale=0.2, size=60)
    fit = sm.OLS(b - a, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    found = compare(a, b, clusters=groups.tolist())
    assert found.stderr == pytest.approx(fit.bse[0])
    assert found.ci95 == pytest.approx(tuple(fit.conf_int()[0]))
    sums = np.bincount(groups, weights=b - a)
    oracle = scipy.stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert found.p == pytest.approx(oracle.pvalue)


def test_clusters_of_one_item_change_nothing():
    a, b = np.random.default_rng(5).uniform(size=(2, 40))
    plain, clustered = compare(a, b), compare(a, b, clusters=range(40))
    assert (clustered.p, clustered.ci95, clustered.stderr) == (plain.p, *map(pytest.approx, (plain.ci95, plain.stderr)))


def test_the_detectable_difference_is_that_of_a_power_analysis():
    # statsmodels' power of a paired t test comes from the noncentral t; the sum of quantiles is its usual approximation.
    found = detectable_difference(1 / math.sqrt(100), 100)
    assert found == pytest.approx(TTestPower().solve_power(nobs=100, alpha=0.05, power=0.8), rel=0.01)


SAME = [0.5, 1, 0, 0.25, 1, 0.5, 0.5, 1]


@pytest.mark.parametrize(
    ("a", "b", "clusters", "note", "known", "unknown"),
    [
        ([], [], None, "no scores", {"n_common": 0}, ["delta", "value_a", "p", "test", "ci95"]),
        ([NAN, 1], [1, NAN], None, LESS_THAN_HALF, {"n_common": 0, "n_a": 1}, ["delta", "value_a", "p"]),
        ([NAN, NAN], [1, 0.5], None, "no scores", {"n_a": 0, "n_b": 2}, ["delta", "p"]),
        ([1] * 5, [0, 0, NAN, NAN, NAN], None, LESS_THAN_HALF, {"n_a": 5, "n_b": 2, "better": 0}, ["delta", "p"]),
        ([1] * 4, [0, 0.5, NAN, NAN], None, "2 of 2 items differ, too few for p ≤ .05", {"delta": -0.75, "p": 0.5}, []),
        ([1] * 9, [0] * 5 + [1] * 4, None, "5 of 9 items differ, too few for p ≤ .05", {"p": 2 / 32}, []),
        ([1] * 9, [0] * 6 + [1] * 3, None, None, {"p": 2 / 64}, []),
        (
            [1] * 9,
            [0] * 6 + [1] * 3,
            list("aabbccddd"),
            "3 of 4 clusters differ, too few for p ≤ .05",
            {"p": 2 / 8},
            [],
        ),
        ([0.5], [1], None, "one item", {"delta": 0.5, "better": 1}, ["stderr", "ci95", "p", "test", "detectable"]),
        ([0, 1], [1, 1], ["x", "x"], "one cluster", {"delta": 0.5}, ["stderr", "ci95", "p", "detectable"]),
        (SAME, SAME, None, "no item differs", {"delta": 0, "stderr": 0, "p": 1, "better": 0}, ["detectable"]),
        (
            [0] * 6,
            [0.3] * 6,
            None,
            "every item differs by the same amount",
            {"delta": pytest.approx(0.3), "p": 2 / 64, "better": 6},
            ["detectable"],
        ),
        ([5] * 6, [7] * 6, None, "every item differs by the same amount", {"delta": 2, "stderr": 0}, ["ci95"]),
    ],
)
def test_what_is_not_defined_is_none_and_says_why(a, b, clusters, note, known, unknown):
    found = compare(np.array(a, dtype=float), np.array(b, dtype=float), clusters=clusters)
    assert found.note == note
    assert {name: getattr(found, name) for name in known} == known
    assert [name for name in unknown if getattr(found, name) is not None] == []


def test_equal_scores_still_have_an_interval():
    """Of 100 items none differs: another hundred may well."""
    low, high = compare(np.ones(100), np.ones(100), single=True, bounds=UNIT).ci95
    assert (low, high) == pytest.approx((-0.0279, 0.0279), abs=1e-3)
    assert compare(np.full(100, 5.0), np.full(100, 5.0)).ci95 is None


@pytest.mark.parametrize(
    ("a", "b", "clusters", "message"),
    [
        ([0, 1], [0, 1, 1], None, "item by item"),
        ([0, math.inf], [0, 1], None, "Correct the scorer"),
        ([0, 1], [0, 1], ["x"], "each item needs its cluster"),
    ],
)
def test_what_cannot_be_compared_is_an_error(a, b, clusters, message):
    with pytest.raises(StatsError, match=message):
        compare(np.array(a, dtype=float), np.array(b, dtype=float), clusters=clusters)


# Families of comparisons


def brute_force(steps, sign):
    """Adjusted p of each step by Student's t over every flip of signs, as the definition has it."""
    d = steps[1:] - steps[0]

    def statistics(flips):
        return sign * scipy.stats.ttest_1samp(d * flips, 0, axis=1).statistic

    observed = statistics(np.ones(d.shape[1]))
    largest = np.array([max(statistics(np.array(f))) for f in itertools.product([1, -1], repeat=d.shape[1])])
    return [(largest >= t - 1e-9).mean() for t in observed]


@pytest.mark.parametrize(("alternative", "sign"), [("greater", 1), ("less", -1)])
@pytest.mark.filterwarnings("ignore:Precision loss")
def test_max_t_is_that_of_all_flips(alternative, sign):
    steps = np.random.default_rng(6).normal(size=(4, 8)) + np.array([[0], [0.2], [1.4], [-0.8]])
    _, tests = first_better(steps, alternative=alternative)
    assert [test.p_adjusted for test in tests[1:]] == pytest.approx(brute_force(steps, sign))
    oracle = scipy.stats.ttest_rel(steps[2], steps[0])
    assert tests[2].t == pytest.approx(oracle.statistic)
    assert tests[0] == tests[0].__class__(delta=0.0, t=None, p_adjusted=None, n_common=8)


def test_a_family_of_one_is_the_plain_test():
    a, b = np.random.default_rng(7).uniform(size=(2, 300))
    family = max_t(np.stack([a, b]), [(0, 1)])
    assert family.p_adjusted[0] == compare(a, b).p


def test_a_larger_family_asks_for_more_but_less_than_bonferroni():
    steps = run_of([0, 0.1, 0.02, 0.03, 0.01, 0.02, 0, 0, 0.01, 0], seed=8)
    alone = max_t(steps, [(0, 1)], alternative="greater").p_adjusted[0]
    _, tests = first_better(steps)
    assert alone < tests[1].p_adjusted < 9 * alone


@pytest.mark.parametrize("missing", [False, True])
def test_all_pairs_are_those_of_all_flips(missing):
    """Complete rows are flipped instead of their many differences, rows with gaps are not; both as the definition."""
    rows = run_of([0, 0.3, 0.6, 0, 0.3], items=9, seed=9)
    if missing:
        rows[2, 7] = NAN
    pairs = list(itertools.combinations(range(5), 2))
    d = np.nan_to_num(np.array([rows[j] - rows[i] for i, j in pairs]))
    d /= np.sqrt((d**2).sum(axis=1))[:, None]
    largest = np.abs(np.array(list(itertools.product([1, -1], repeat=9))) @ d.T).max(axis=1)
    oracle = [(largest >= abs(u.sum()) - 1e-9).mean() for u in d]
    assert max_t(rows, pairs).p_adjusted == pytest.approx(oracle)


def test_first_better_step():
    steps = run_of([0, 0.02, 0.3, 0.01, 0.4])
    step, tests = first_better(steps)
    assert step == 2
    assert [test.p_adjusted <= 0.05 for test in tests[1:]] == [False, True, False, True]
    assert first_better(-steps, alternative="less")[0] == 2
    assert first_better(-steps)[0] is None


def test_missing_checkpoints_and_items_leave_the_others_be():
    steps = run_of([0, 0.3, 0.3, 0.3], items=60)
    steps[1] = NAN  # a checkpoint without scores
    steps[2, :31] = NAN  # and one with less than half of the items
    step, tests = first_better(steps)
    assert step == 3
    assert tests[1] == tests[1].__class__(delta=None, t=None, p_adjusted=None, n_common=0)
    assert (tests[2].p_adjusted, tests[2].n_common) == (None, 29)
    alone = first_better(steps[[0, 3]])[1][1]
    assert tests[3] == alone


@pytest.mark.parametrize(
    ("steps", "first", "p"),
    [
        ([[0.5, 1.0]], None, []),  # one step only
        ([[0.5], [1.0]], None, [None]),  # a single item
        ([[NAN, NAN], [1, 1]], None, [None]),  # no reference
        ([[1] * 9, [1] * 9], None, [1.0]),  # all equal
        ([[0] * 9, [1] * 9, [0] * 9], 1, [1 / 512, 1.0]),  # every item gained, by as much
    ],
)
def test_steps_without_spread(steps, first, p):
    found, tests = first_better(scores(*steps))
    assert (found, [test.p_adjusted for test in tests[1:]]) == (first, p)
    assert all(test.t is None for test in tests)


def test_max_t_by_cluster():
    rng = np.random.default_rng(10)
    groups = np.repeat(np.arange(6), 5)
    steps = rng.normal(size=(3, 6))[:, groups] + rng.normal(scale=0.1, size=(3, 30))
    _, tests = first_better(steps, clusters=groups.tolist())
    sums = np.stack([np.bincount(groups, weights=row) for row in steps])
    flips = np.array(list(itertools.product([1, -1], repeat=6)))
    d = sums[1:] - sums[0]
    d /= np.sqrt((d**2).sum(axis=1))[:, None]
    largest = (flips @ d.T).max(axis=1)
    assert [t.p_adjusted for t in tests[1:]] == pytest.approx([(largest >= u.sum() - 1e-9).mean() for u in d])


def test_memory_stays_bounded():
    steps = np.random.default_rng(11).uniform(size=(200, 541))
    tracemalloc.start()
    first_better(steps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


# Falls


def test_a_fall_that_lasts_is_found_with_the_step_it_falls_from():
    steps = run_of([0, 0.3, 0.5, 0.5, 0.1, 0.1, 0.05], seed=12)
    found = regressed_since(steps)
    assert found.since == 4
    assert found.below in (2, 3)
    assert found.p_adjusted <= 0.05


@pytest.mark.parametrize(
    "means",
    [
        [0, 0.1, 0.2, 0.3],  # rising
        [0.3, 0.3, 0.3, 0.3],  # level
        [0, 0.5, 0, 0.5],  # a dip that it recovers from
        [0],
        [],
    ],
)
def test_no_fall(means):
    steps = run_of(means, seed=13) if means else np.empty((0, 10))
    found = regressed_since(steps)
    assert (found.since, found.below, found.p_adjusted) == (None, None, None)


def test_a_fall_goes_through_a_missing_checkpoint():
    steps = run_of([0.5, 0.5, 0, 0, 0], seed=14)
    steps[3] = NAN
    assert regressed_since(steps).since == 2


def test_a_fall_by_all_flips():
    steps = np.random.default_rng(15).normal(size=(3, 7)) + np.array([[0], [2.5], [-1]])
    pairs = list(itertools.combinations(range(3), 2))
    d = np.array([steps[j] - steps[i] for i, j in pairs])
    d /= np.sqrt((d**2).sum(axis=1))[:, None]
    largest = (-np.array(list(itertools.product([1, -1], repeat=7))) @ d.T).max(axis=1)
    oracle = {pair: (largest >= -u.sum() - 1e-9).mean() for pair, u in zip(pairs, d, strict=True)}
    found = regressed_since(steps, alpha=0.2)
    assert (found.since, found.below) == (2, 1)
    assert found.p_adjusted == pytest.approx(oracle[1, 2])


@pytest.mark.parametrize(
    ("means", "since"),
    [
        ([0, 0.5, 0.5, 0, 0], 3),  # gained and lost
        ([0, 0.8, 0.8, 0.4, 0.4], None),  # fallen, but still better than the start
        ([0, 0, 0, 0, 0], None),
        ([0.5, 0.5, 0, 0, 0], None),  # fallen from the start: never better than it
        ([0, 0.8, 0.4, 0, 0], 3),  # falling in two steps, the first of them still better
    ],
)
def test_since_when_a_gain_is_lost(means, since):
    steps = run_of(means, seed=16, spread=0.2)
    _, better = first_better(steps)
    assert lost_since(better, regressed_since(steps)) == since


# Corrections over tasks

P = [0.001, 0.04, 0.03, 0.2, 0.5]


@pytest.mark.parametrize(("correct", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_corrections_are_statsmodels_and_leave_none(correct, method):
    oracle = multipletests(P, method=method)[1].tolist()
    assert correct(P) == pytest.approx(oracle)
    assert correct([None, *P, None]) == [None, *correct(P), None]
    assert correct([None]) == [None]
    assert correct([]) == []
    with pytest.raises(StatsError, match="between 0 and 1"):
        correct([NAN])


# The short version of the simulations; the long one prints the tables of docs/statistics.md.


@pytest.fixture(scope="module")
def simulations():
    path = Path(__file__).parents[3] / "benchmarks" / "simulations.py"
    spec = importlib.util.spec_from_file_location("simulations", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_better_step_is_rarely_found_where_there_is_none(simulations):
    (row,) = simulations.false_first(200, designs=[(10, 60, 0.5, 4)])
    # 5 %, give or take 2.5 standard errors of 200 rounds; without correction it would be 20 % or more.
    assert 0.015 <= row["max-T"] <= 0.09
    assert row["uncorrected"] > 0.15


def test_one_of_many_tasks_is_rarely_named_where_none_has_changed(simulations):
    (row,) = simulations.false_sentences(60, items=40)
    # 60 reports: 3, give or take; without a correction over tasks some 20.
    assert row["sentence"] <= 0.12
    assert row["sentence, uncorrected"] >= 0.2
    # 600 tasks: a standard error is .009.
    assert row["arrow, 2.5 % each"] <= 0.07
    assert row["arrow, 5 % each"] >= 0.06


def test_differences_are_covered(simulations):
    rows = list(simulations.intervals.pair_coverage(300, sizes=[30], means=[0.98]))
    assert len(rows) == 4
    assert min(row["coverage"] for row in rows) >= 0.93
    # Near 1 with few items the plain interval does not hold.
    assert min(row["plain t"] for row in rows) < 0.6


@pytest.mark.parametrize("table", ["graded_coverage", "graded_pair_coverage"])
def test_graded_scores_are_covered_by_intervals_as_narrow_as_the_plain_one(simulations, table):
    rows = list(getattr(simulations.intervals, table)(800, sizes=[10, 50]))
    # .94, less 2.5 standard errors of 800 rounds.
    assert min(row["coverage"] for row in rows) >= 0.92
    wider = [row["width by the plain one's"] for row in rows if row["plain t"] >= 0.94 and row.get("changed", 1) == 1]
    assert len(wider) > 12
    # 1.34 where ten items with scores near 1 all change: the plain interval is too wide there itself (it covers .99).
    assert max(wider) <= 1.36
    # The four pseudo-items, or ±1/2, alone.
    assert max(row.get("pseudo-items alone", row.get("±1/2 alone")) for row in rows) > 5


@pytest.mark.parametrize("table", ["rating_coverage", "graded_cluster_coverage"])
def test_ratings_and_clusters_of_graded_scores_are_covered(simulations, table):
    rows = list(getattr(simulations.intervals, table)(300))
    assert min(row["coverage"] for row in rows) >= 0.91


def test_the_detectable_difference_is_found_in_four_of_five(simulations):
    row = next(simulations.power(250, sizes=[100], means=[0.5]))
    assert 0.7 <= row["found"] <= 0.88
    assert row["detectable, mean of estimates"] == pytest.approx(row["true difference"], rel=0.05)

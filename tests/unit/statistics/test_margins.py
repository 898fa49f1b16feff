import math

import numpy as np
import pytest
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from milepost.statistics.intervals import UNIT, Spread, difference_spread, score_spread
from milepost.statistics.margins import hold_against, units_needed


def paired(seed, n=80, shift=0.0):
    rng = np.random.default_rng(seed)
    a = rng.normal(5, 1, size=n)
    return a, a + rng.normal(shift, 0.5, size=n)


@pytest.mark.parametrize("seed", range(4))
def test_p_of_scores_without_bounds_are_those_of_statsmodels(seed):
    a, b = paired(seed, shift=-0.05)
    spread = difference_spread(a.tolist(), b.tolist())
    held = hold_against(spread, 0.2, len(a))
    d = DescrStatsW(b - a)
    assert held.p_not_worse == pytest.approx(d.ttest_mean(-0.2, alternative="larger")[1])
    assert held.p_worse == pytest.approx(d.ttest_mean(-0.2, alternative="smaller")[1])
    assert held.p_equivalent == pytest.approx(ttost_paired(b, a, -0.2, 0.2)[0])


@pytest.mark.parametrize(("shift", "delta"), [(-0.05, 0.2), (0.0, 0.02), (0.3, 0.2), (-0.4, 0.2)])
def test_p_and_the_one_sided_interval_say_the_same(shift, delta):
    a, b = paired(7, shift=shift)
    spread = difference_spread(a.tolist(), b.tolist())
    held = hold_against(spread, delta, len(a))
    low, high = spread.interval(0.95)
    assert (held.p_not_worse <= 0.05) == (low >= -delta)
    assert (held.p_worse <= 0.05) == (high <= -delta)
    assert (held.p_equivalent <= 0.05) == (low >= -delta and high <= delta)


def test_so_many_items_decide_it_in_80_of_100_evaluations():
    a, b = paired(1, n=4_000, shift=-0.02)
    spread = difference_spread(a.tolist(), b.tolist())
    needed = hold_against(spread, 0.1, 4_000).n_needed
    rng, decided = np.random.default_rng(2), 0
    for _ in range(400):
        d = rng.choice(b - a, size=needed)
        decided += hold_against(difference_spread([0.0] * needed, d.tolist()), 0.1, needed).p_not_worse <= 0.05
    assert 0.74 <= decided / 400 <= 0.86


def test_nothing_decides_on_which_side_of_itself_a_number_lies():
    assert units_needed(Spread(-0.1, 0.02, 9), -0.1, 10) is None


def test_a_threshold_is_passed_where_the_interval_lies_above():
    items = [(float(k < 70), 1.0, k) for k in range(100)]
    spread = score_spread(items, UNIT)
    low, _ = spread.interval(0.95)
    assert spread.p_above(low) == pytest.approx(0.05)
    assert spread.p_above(0.5) < 0.001
    assert spread.p_below(0.5) == pytest.approx(1 - spread.p_above(0.5))


@pytest.mark.parametrize(("n", "delta"), [(50, 0.1), (200, 0.05), (200, 0.02)])
def test_a_checkpoint_that_is_just_too_bad_rarely_passes(n, delta):
    """Right and wrong answers that lose δ exactly: at most 5 in 100 are called not worse, give or take."""
    rng, passed, rounds = np.random.default_rng(5), 0, 800
    for _ in range(rounds):
        a = rng.binomial(1, 0.9, size=n).astype(float)
        # Of 0.9 + 0.02 that can change: δ more are lost than are gained.
        change = rng.uniform(size=n)
        b = np.where(change < (delta + 0.02) / 0.9, 0.0, a)
        b = np.where((a == 0) & (rng.uniform(size=n) < 0.2), 1.0, b)
        spread = difference_spread(a.tolist(), b.tolist(), single=True, bounds=UNIT)
        passed += hold_against(spread, delta, n).p_not_worse <= 0.05
    assert passed / rounds <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / rounds)

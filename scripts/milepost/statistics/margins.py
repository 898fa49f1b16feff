"""Not worse by more than a margin: non-inferiority and equivalence of paired scores, and how many items would decide it.

"No significant difference" is no evidence that two are alike. What is: that the whole interval of their difference lies
above -δ (not worse), or between -δ and δ (as good as). δ is chosen before the data are seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from milepost.statistics.intervals import Spread

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Margin:
    """A paired difference held against a margin δ.

    Attributes:
        delta: The margin.
        p_not_worse: One-sided p of "worse by less than δ": at most .05 where the one-sided 95 % interval lies above -δ.
        p_worse: One-sided p of the contrary, "worse by more than δ".
        p_equivalent: P of "differs by less than δ", from two one-sided tests.
        p_different: P of the contrary.
        n_needed: About how many units (items, or clusters) would decide whether it is not worse, in 80 of 100
            evaluations, if the true difference is what was found; None where it lies at -δ itself.
    """

    delta: float
    p_not_worse: float
    p_worse: float
    p_equivalent: float
    p_different: float
    n_needed: int | None


def hold_against(spread: Spread, delta: float, n_units: int, alpha: float = ALPHA) -> Margin:
    """Hold a difference against a margin.

    Args:
        spread: Of the difference, oriented so that above 0 is better (`difference_spread`).
        delta: The margin, above 0, in units of the score.
        n_units: Items of the comparison, or clusters.
        alpha: Level of the one-sided tests, for `n_needed`.

    Source: Schuirmann (1987), J. Pharmacokinet. Biopharm. 15 (two one-sided tests).

    >>> found = hold_against(Spread(-0.005, 0.01, 199), 0.03, 200)
    >>> round(found.p_not_worse, 3), round(found.p_equivalent, 3), found.n_needed
    (0.007, 0.007, 198)
    """
    above, below = spread.p_above(-delta), spread.p_below(delta)
    return Margin(
        delta=delta,
        p_not_worse=above,
        p_worse=spread.p_below(-delta),
        p_equivalent=max(above, below),
        # Either end may be passed.
        p_different=min(1.0, 2 * min(spread.p_below(-delta), spread.p_above(delta))),
        n_needed=units_needed(spread, -delta, n_units, alpha),
    )


def units_needed(spread: Spread, boundary: float, n_units: int, alpha: float = ALPHA) -> int | None:
    """About how many units would tell on which side of a boundary a number lies, in 80 of 100 evaluations.

    If the truth is what was found, and units vary as these do. None where what was found is the boundary itself.

    Args:
        spread: Of the number.
        boundary: What it is held against.
        n_units: Units that the number rests on.
        alpha: Level of the one-sided test.
    """
    distance = abs(spread.centre - boundary)
    if distance <= 1e-12:
        return None
    wanted = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(POWER)
    return max(2, math.ceil(n_units * (wanted * spread.stderr / distance) ** 2))

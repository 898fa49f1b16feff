"""95 % intervals of means, ratios and paired differences, for items that fail or are solved and for graded ones alike.

The interval of scores with bounds is that of a binomial share whose number of items is made from what the scores vary:
n_eff = m(1 - m)/SE², m the mean on the scale from 0 to 1. Where scores vary less than failed and solved items would,
n_eff is more than n, and it counts as far as the scores are not piled up on one value or at the ends of their range:
there, what was not seen is not known to be impossible. docs/statistics.md has the simulations.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from milepost.statistics.student import t_above, t_quantile

# Two failures and two successes: with them the t interval covers near 0 and 1 as well.
PSEUDO_ITEMS = (0.0, 0.0, 1.0, 1.0)

# The lowest and the highest value that a score can take.
Bounds = tuple[float, float]
UNIT: Bounds = (0.0, 1.0)

# Score and weight of what is independent of all else: an item, or the sums over a cluster's items.
Unit = tuple[float, float]

# How near to an end of its range a score counts as failed or solved: at .01 from it 30 %, at .05 0.2 %.
NEAR = 60
# How much one frequent value counts: half of the items 6 %, nine in ten 66 %.
PILED = 4
# A pseudo-item of a difference: this share of a typical change.
PSEUDO_CHANGE = 0.8
# Errors below this are what is left of equal scores that were added up.
ZERO = 1e-12


@dataclass(frozen=True)
class Spread:
    """What an interval is made of: centre ± t(df) · stderr, cut to bounds."""

    centre: float
    stderr: float
    df: int
    bounds: Bounds = (-math.inf, math.inf)

    def interval(self, probability: float = 0.975) -> Bounds:
        """The interval; either end is passed with 1 - `probability`."""
        half = t_quantile(self.df, probability) * self.stderr
        return max(self.bounds[0], self.centre - half), min(self.bounds[1], self.centre + half)

    def p_above(self, value: float) -> float:
        """P of the one-sided test that the true number is above a value: at most α where the (1 - α) interval is."""
        return t_above((self.centre - value) / self.stderr, self.df)

    def p_below(self, value: float) -> float:
        """P of the one-sided test that the true number is below a value: at most α where the (1 - α) interval is."""
        return t_above((value - self.centre) / self.stderr, self.df)

    def scaled(self, factor: float, shift: float = 0.0) -> Spread:
        """The same spread on another scale: every number times `factor`, plus `shift`."""
        low, high = self.bounds
        return Spread(
            shift + factor * self.centre, factor * self.stderr, self.df, (shift + factor * low, shift + factor * high)
        )


def group_units(items: Iterable[tuple[float, float, Hashable]]) -> list[Unit]:
    """Scores and weights summed within each label.

    >>> group_units([(1, 1, "a"), (0, 1, "b"), (1, 1, "a")])
    [(2.0, 2.0), (0.0, 1.0)]
    """
    groups: dict[Hashable, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for top, weight, label in items:
        groups[label][0].append(top)
        groups[label][1].append(weight)
    return [(math.fsum(tops), math.fsum(weights)) for tops, weights in groups.values()]


def ratio(units: Sequence[Unit]) -> float:
    """Sum of scores over sum of weights."""
    return math.fsum(top for top, _ in units) / math.fsum(weight for _, weight in units)


def robust_stderr(units: Sequence[Unit]) -> float:
    """Standard error of a ratio from the deviations of its units; two units or more."""
    mean, n = ratio(units), len(units)
    squares = math.fsum((top - mean * weight) ** 2 for top, weight in units)
    return math.sqrt(n / (n - 1) * squares) / math.fsum(weight for _, weight in units)


def score_interval(items: Sequence[tuple[float, float, Hashable]], bounds: Bounds | None) -> Bounds | None:
    """The 95 % interval of a mean or ratio.

    Args:
        items: Score times weight, weight, and cluster of each; of two clusters or more.
        bounds: The lowest and the highest value of a score. None: the plain t interval, and none where nothing varies.

    >>> [round(bound, 3) for bound in score_interval([(1, 1, 0), (0, 1, 1), (1, 1, 2)], UNIT)]
    [0.0, 1.0]
    >>> score_interval([(7, 1, 0), (7, 1, 1), (7, 1, 2)], None)
    """
    spread = score_spread(items, bounds)
    return None if spread is None else spread.interval()


def score_spread(items: Sequence[tuple[float, float, Hashable]], bounds: Bounds | None) -> Spread | None:
    """What the interval of a mean or ratio is made of; for the arguments see `score_interval`."""
    if bounds is None:
        return _plain(group_units(items))
    low, span = bounds[0], bounds[1] - bounds[0]
    return _unit_spread([((top - low * weight) / span, weight, label) for top, weight, label in items]).scaled(
        span, low
    )


def _plain(units: Sequence[Unit]) -> Spread | None:
    """The spread of the plain t interval; None where nothing varies."""
    spread = padded(units)
    return None if spread.stderr <= ZERO * max(1.0, abs(spread.centre)) else spread


def _unit_spread(items: Sequence[tuple[float, float, Hashable]]) -> Spread:
    """The spread of scores in [0, 1]: the narrower of a binomial one and of one with four pseudo-items."""
    units = group_units(items)
    mean, stderr = ratio(units), robust_stderr(units)
    # In units of a pseudo-item, which is an item where items are independent of each other.
    n = math.sqrt(len(items) * len(units))
    n_eff = mean * (1 - mean) / stderr**2 if stderr > ZERO else math.inf
    if n_eff > n:
        piled = _piled_up(items)
        n_eff = n if piled >= 1 or not mean * (1 - mean) else min(n_eff, 1 / ZERO) ** (1 - piled) * n**piled
    centre = (n_eff * mean + 2) / (n_eff + 4)
    binomial = Spread(centre, math.sqrt(centre * (1 - centre) / (n_eff + 4)), len(units) - 1, UNIT)
    return min(binomial, padded(units, len(items), PSEUDO_ITEMS, UNIT), key=_width)


def _width(spread: Spread) -> float:
    low, high = spread.interval()
    return high - low


def _piled_up(items: Sequence[tuple[float, float, Hashable]]) -> float:
    """How much the scores are piled up, from 0 to 1: at the ends of their range, or on one value."""
    shares: dict[float, float] = defaultdict(float)
    for top, weight, _ in items:
        # Equal scores whose samples were added up in another order are equal.
        shares[round(top / weight, 9)] += weight
    total = math.fsum(shares.values())
    near = math.fsum(nearness(score) * weight for score, weight in shares.items()) / total
    return max(near, (max(shares.values()) / total) ** PILED)


def nearness(score: float) -> float:
    """How much a score in [0, 1] counts as failed or solved: 1 at the ends.

    >>> nearness(1.0), round(nearness(0.99), 2), round(nearness(0.5), 2)
    (1.0, 0.3, 0.0)
    """
    return abs(1 - 2 * score) ** NEAR


def padded(
    units: Sequence[Unit],
    n_items: int | None = None,
    pseudo: Sequence[float] = (),
    bounds: Bounds = (-math.inf, math.inf),
) -> Spread:
    """A mean or ratio after pseudo-items have joined, with what remains of the degrees of freedom without them.

    Args:
        units: Two or more.
        n_items: Items in all units; None if each is one.
        pseudo: Scores of the pseudo-items. Each weighs as the geometric mean of an item's and a unit's mean weight.
        bounds: The least and the largest possible value.

    >>> [round(bound, 3) for bound in padded([(1, 1), (0, 1), (1, 1)]).interval()]
    [-0.768, 2.101]
    """
    heavy = math.fsum(weight for _, weight in units) / math.sqrt(len(units) * (n_items or len(units)))
    joined = [*units, *((score * heavy, heavy) for score in pseudo)]
    return Spread(ratio(joined), robust_stderr(joined), len(units) - 1, bounds)


def difference_interval(
    a: Sequence[float],
    b: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    single: bool = False,
    bounds: Bounds | None = None,
) -> Bounds | None:
    """The 95 % interval of the mean difference b - a.

    With bounds, two pseudo-items join, one for each side: ±1 for single answers that failed or were solved; else as large
    as the changes that were seen, or ±1/2 (of the range) as far as scores lie at the ends of their range, where few
    items change at all.

    Args:
        a: Scores of the first, one per common item, shape (n_items,); two or more.
        b: Those of the second.
        clusters: The cluster of each item, shape (n_items,); two or more clusters.
        single: One sample per item.
        bounds: The lowest and the highest value of a score. None: the plain t interval, and none where nothing varies.

    Source: with single answers, Bonett and Price (2012), J. Educ. Behav. Stat. 37, but for t in place of z.

    >>> zeros = [0.0] * 100
    >>> [round(bound, 3) for bound in difference_interval(zeros, zeros, single=True, bounds=UNIT)]
    [-0.028, 0.028]
    """
    spread = difference_spread(a, b, clusters=clusters, single=single, bounds=bounds)
    return None if spread is None else spread.interval()


def difference_spread(
    a: Sequence[float],
    b: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    single: bool = False,
    bounds: Bounds | None = None,
) -> Spread | None:
    """What the interval of a mean difference is made of; for the arguments see `difference_interval`."""
    n = len(a)
    differences = [second - first for first, second in zip(a, b, strict=True)]
    units = group_units(zip(differences, [1.0] * n, range(n) if clusters is None else clusters, strict=True))
    if bounds is None:
        return _plain(units)
    low, span = bounds[0], bounds[1] - bounds[0]
    size = span * _pseudo_change([(x - low) / span for x in a], [(x - low) / span for x in b], single)
    return padded(units, n, (size, -size), (-span, span))


def _pseudo_change(a: Sequence[float], b: Sequence[float], single: bool) -> float:
    """The change that a pseudo-item is given, for differences of scores in [0, 1]."""
    both = [*a, *b]
    whole = single and all(score in UNIT for score in both)
    total = math.fsum(abs(second - first) for first, second in zip(a, b, strict=True))
    if total > ZERO:
        # The mean change, weighted by its own size: what does not change, or hardly, does not count.
        typical = math.fsum((second - first) ** 2 for first, second in zip(a, b, strict=True)) / total
    else:
        mean = math.fsum(both) / len(both)
        typical = math.sqrt(math.fsum((score - mean) ** 2 for score in both) / len(both))
    most = max(1.0 if whole else 0.5, typical)
    if typical <= ZERO:
        return most
    near = math.fsum(map(nearness, both)) / len(both)
    return float(most**near * (PSEUDO_CHANGE * typical) ** (1 - near))

"""Means and ratios over items with their uncertainty: standard errors, 95 % intervals, and the split of the variance.

Every function takes numbers that were averaged within the item first: the samples of one item are never independent.
Nothing heavy is imported for the module itself: thousands of scoring steps do.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from milepost.errors import StatsError
from milepost.records import Estimate, Variance
from milepost.statistics.intervals import Bounds, group_units, ratio, robust_stderr, score_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Below this many clusters the cluster-robust error is itself a rough guess.
FEW_CLUSTERS = 10

UNDEFINED = Estimate(value=None, stderr=None, ci95=None)


def mean_estimate(
    values: Sequence[float], *, clusters: Sequence[Hashable] | None = None, bounds: Bounds | None = None
) -> Estimate:
    """Mean over items, its standard error and its 95 % interval.

    Scores with bounds get an interval that holds near them as well, and that is as narrow as the plain t interval where
    scores vary little (`score_interval`); other scores get the plain one. The value itself is always the plain mean.
    With clusters the error is cluster-robust, the t quantile has one degree of freedom less than there are clusters, and
    each pseudo-item weighs as much as √(mean cluster size) items: between an item, which would be right if clusters meant
    nothing, and a cluster, which would be if its items were all alike.

    Args:
        values: One mean per item, shape (n_items,), in the task's units.
        clusters: The cluster of each item, shape (n_items,); None for independent items.
        bounds: The lowest and the highest value that a score can take, by its definition; None where there are none.

    Returns:
        The estimate. No item: all null. One item, or one cluster: a value without error and interval, since nothing
        tells how much another item would differ; scores without bounds that are all equal have no interval either.

    Raises:
        StatsError: A value is not finite, or lies outside the bounds, or `clusters` has another length.

    >>> mean_estimate([1, 1, 1, 0], bounds=(0, 1))["value"]
    0.75
    >>> [round(bound, 2) for bound in mean_estimate([1, 1, 1, 1], bounds=(0, 1))["ci95"]]
    [0.26, 1.0]
    """
    return ratio_estimate(values, [1.0] * len(values), clusters=clusters, bounds=bounds)


def ratio_estimate(
    tops: Sequence[float],
    weights: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    bounds: Bounds | None = None,
) -> Estimate:
    """A ratio of sums over items, such as instructions followed of instructions given, with error and interval.

    r = Σy/Σw and SE = √(n/(n-1) · Σ(y - r·w)²) / Σw over the items. The interval is that of `mean_estimate`; a
    pseudo-item has the mean weight.

    Args:
        tops: The numerator's part of each item, shape (n_items,).
        weights: The denominator's, shape (n_items,); an item with weight 0 says nothing and is left out.
        clusters: The cluster of each item, shape (n_items,); None for independent items.
        bounds: The lowest and the highest value that an item's ratio y/w can take; None where there are none.

    Returns:
        The estimate. No item: all null. One item, or one cluster: a value without error and interval.

    Raises:
        StatsError: A number is not finite, a weight is negative, a ratio outside the bounds, or a sequence has another
            length.

    Source: the linearised error of a ratio, Cochran (1977), Sampling Techniques, 2.11.

    >>> found = ratio_estimate([2, 1, 0, 3], [3, 1, 2, 3])
    >>> round(found["value"], 3), round(found["stderr"], 3)
    (0.667, 0.218)
    """
    n = len(tops)
    if clusters is not None and len(clusters) != n:
        raise StatsError(f"{n} values and {len(clusters)} clusters were given; each value needs its cluster.")
    if len(weights) != n:
        raise StatsError(f"{n} values and {len(weights)} weights were given; each value needs its weight.")
    if not all(map(math.isfinite, tops)) or not all(map(math.isfinite, weights)):
        raise StatsError("A score is infinite or not a number. Correct the scorer: null stands for 'not scored'.")
    if any(weight < 0 for weight in weights):
        raise StatsError("A weight is negative. Correct the scorer: an item that should not count has weight 0.")
    labels = range(n) if clusters is None else clusters
    items = [(top, weight, label) for top, weight, label in zip(tops, weights, labels, strict=True) if weight > 0]
    if not items:
        return UNDEFINED
    if bounds is not None:
        items = [_within(*item, bounds) for item in items]
    units = group_units(items)
    value = ratio(units)
    if len(units) < 2:
        return Estimate(value=value, stderr=None, ci95=None)
    return Estimate(value=value, stderr=robust_stderr(units), ci95=score_interval(items, bounds))


def mean_of_ratios(
    parts: Sequence[Mapping[str, tuple[float, float]]],
    *,
    clusters: Mapping[str, str] | None = None,
    bounds: Bounds | None = None,
) -> Estimate:
    """The mean of several ratios, such as win rates by several judges, or in several categories.

    Args:
        parts: For each ratio, by item's id, its numerator's and its denominator's part. Items may be in several.
        clusters: The cluster of each item that names one; None for independent items.
        bounds: The lowest and the highest value that an item's ratio can take.

    Returns:
        The estimate; all null if one of the ratios has no item. An item's deviations in all ratios are added up.

    >>> round(mean_of_ratios([{"a": (1, 1), "b": (0, 3)}, {"a": (1, 1), "b": (1, 1)}], bounds=(0, 1))["value"], 3)
    0.625
    """
    totals = [
        (math.fsum(top for top, _ in one.values()), math.fsum(weight for _, weight in one.values())) for one in parts
    ]
    if not parts or any(weight <= 0 for _, weight in totals):
        return UNDEFINED
    value = math.fsum(top / weight for top, weight in totals) / len(parts)
    # Each ratio's deviations about itself, in units in which all weights add up to 1.
    deviations: dict[str, float] = defaultdict(float)
    weights: dict[str, float] = defaultdict(float)
    for one, (whole, total) in zip(parts, totals, strict=True):
        for item, (top, weight) in one.items():
            deviations[item] += (top - whole / total * weight) / (total * len(parts))
            weights[item] += weight / (total * len(parts))
    tops = [deviations[item] + value * weight for item, weight in weights.items()]
    if bounds is not None:
        # Of ratios that differ, an item's part of their mean may lie a little beyond.
        tops = [min(max(top, bounds[0] * w), bounds[1] * w) for top, w in zip(tops, weights.values(), strict=True)]
    labels = [clusters.get(item, item) for item in weights] if clusters else None
    estimate = ratio_estimate(tops, list(weights.values()), clusters=labels, bounds=bounds)
    return Estimate(value=value, stderr=estimate["stderr"], ci95=estimate["ci95"])


def bootstrap_estimate(
    fit: Callable[[NDArray[np.intp]], float],
    n_items: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    rounds: int = 1_000,
    seed: int = 0,
) -> Estimate:
    """A number that comes from a model fitted to all items, with a percentile bootstrap over items.

    Each round draws as many items as there are, with replacement, and does the whole fit on them: whatever the fit
    depends on (scales, penalties, intercepts) varies with the items, as it would with others of their kind.

    Args:
        fit: From indices of items, some more than once, shape (n_drawn,), to the number; NaN where it cannot be fitted.
        n_items: How many items there are.
        clusters: The cluster of each item, shape (n_items,); whole clusters are drawn then.
        rounds: How often.
        seed: Of the draws. The same fit and seed give the same interval.

    Returns:
        The number from all items, the standard deviation over rounds, and their 2.5th and 97.5th percentile. One item,
        or one cluster: a value without error and interval.

    Raises:
        StatsError: The number cannot be fitted in more than 1 of 20 rounds, or `clusters` has another length.
    """
    import numpy as np

    if clusters is not None and len(clusters) != n_items:
        raise StatsError(f"{n_items} items and {len(clusters)} clusters were given; each item needs its cluster.")
    if n_items == 0:
        return UNDEFINED
    value = float(fit(np.arange(n_items)))
    if not math.isfinite(value):
        return UNDEFINED
    members: dict[Hashable, list[int]] = defaultdict(list)
    for item, label in enumerate(range(n_items) if clusters is None else clusters):
        members[label].append(item)
    units = [np.array(items, dtype=np.intp) for items in members.values()]
    if len(units) < 2:
        return Estimate(value=value, stderr=None, ci95=None)
    rng = np.random.default_rng(seed)
    drawn = [
        fit(np.concatenate([units[unit] for unit in rng.integers(len(units), size=len(units))])) for _ in range(rounds)
    ]
    fitted = np.array([number for number in drawn if math.isfinite(number)])
    if len(fitted) < 0.95 * rounds:
        raise StatsError(
            f"Of {rounds} bootstrap rounds, {rounds - len(fitted)} gave no number, and the rest would not stand for "
            f"them. There are {len(units)} items or clusters: ask more of them, or report the number without an error."
        )
    low, high = np.percentile(fitted, [2.5, 97.5])
    return Estimate(value=value, stderr=float(fitted.std(ddof=1)), ci95=(float(low), float(high)))


def split_variance(samples: Sequence[Sequence[float]]) -> Variance:
    """Variance of the mean, split into what more items and what more samples per item would narrow.

    An item with a single readable sample takes the mean variance of the others' samples. Where no item has two, the
    two parts cannot be told apart, and both are null.

    Args:
        samples: The readable samples of each item; no item without one.

    >>> split_variance([[1, 1], [0, 0]])
    {'items': 0.25, 'decoding': 0.0}
    >>> split_variance([[1], [0]])
    {'items': None, 'decoding': None}
    """
    within = [_variance(item) if len(item) > 1 else None for item in samples]
    known = [variance for variance in within if variance is not None]
    if not known:
        return Variance(items=None, decoding=None)
    n, typical = len(samples), _mean(known)
    decoding = _mean(
        [
            (typical if variance is None else variance) / len(item)
            for variance, item in zip(within, samples, strict=True)
        ]
    )
    if n < 2:
        return Variance(items=None, decoding=decoding)
    between = _variance([_mean(item) for item in samples])
    return Variance(items=max(0.0, between - decoding) / n, decoding=decoding / n)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What would narrow a 95 % interval, as shares of its width; None where the data do not tell."""

    more_samples: int
    narrower_by_samples: float | None
    more_items: int
    narrower_by_items: float | None
    sentence: str


def advise(
    variance: Variance,
    *,
    n_items: int,
    n_samples: int,
    stderr: float | None,
    more_samples: int = 4,
    more_items: int = 100,
) -> Advice:
    """What more samples per item, or more items of the same kind, would do for an interval.

    With k times the samples the decoding part of the variance falls to 1/k, with k times the items all of it does. So
    an answer to a new item is never worth less than another answer to an old one; but new items are not always to be
    had, and samples are. Items of a clustered task are meant to come in new clusters.

    Args:
        variance: The split of `split_variance`.
        n_items: Items with a readable sample.
        n_samples: Readable samples of all items.
        stderr: Standard error of the mean.
        more_samples: Further samples per item to think of.
        more_items: Further items to think of.

    >>> advise(Variance(items=0.0004, decoding=0.0001), n_items=400, n_samples=1600, stderr=0.0224).sentence
    '4 more samples per item would narrow the interval by 5 %, 100 more items by 11 %.'
    """
    if not stderr or not n_items:
        return Advice(
            more_samples=more_samples,
            narrower_by_samples=None,
            more_items=more_items,
            narrower_by_items=None,
            sentence="Nothing varies among these items: they do not tell what would narrow the interval.",
        )
    by_items = 1 - math.sqrt(n_items / (n_items + more_items))
    by_samples = None
    if variance["decoding"] is not None:
        per_item = n_samples / n_items
        gone = min(1.0, variance["decoding"] / stderr**2) * more_samples / (per_item + more_samples)
        by_samples = 1 - math.sqrt(1 - gone)
    items = f"{more_items} more items"
    sentence = (
        f"{items} would narrow the interval by {by_items:.0%}; one sample per item does not tell what more would do."
        if by_samples is None
        else f"{more_samples} more samples per item would narrow the interval by {by_samples:.0%}, {items} by {by_items:.0%}."
    )
    return Advice(
        more_samples=more_samples,
        narrower_by_samples=by_samples,
        more_items=more_items,
        narrower_by_items=by_items,
        sentence=sentence.replace("%", " %"),
    )


def harness_estimate(value: float | None, stderr: float | None, bounds: Bounds | None = None) -> Estimate:
    """A harness's own number with a normal interval around it, cut to its bounds, for results that came without samples.

    >>> [round(bound, 3) for bound in harness_estimate(0.5, 0.1)["ci95"]]
    [0.304, 0.696]
    """
    if value is None or not math.isfinite(value):
        return UNDEFINED
    if stderr is None or not math.isfinite(stderr):
        return Estimate(value=value, stderr=None, ci95=None)
    half = NormalDist().inv_cdf(0.975) * stderr
    low, high = bounds or (-math.inf, math.inf)
    # What is said of a share of 1.02 does not make it possible: then nothing is cut.
    if not low <= value <= high:
        low, high = -math.inf, math.inf
    return Estimate(value=value, stderr=stderr, ci95=(max(low, value - half), min(high, value + half)))


def _within(top: float, weight: float, label: Hashable, bounds: Bounds) -> tuple[float, float, Hashable]:
    """An item as it is, without what sums in another order have put beyond its bounds.

    Raises:
        StatsError: It lies outside.
    """
    low, high = bounds[0] * weight, bounds[1] * weight
    slack = 1e-9 * (high - low)
    if not low - slack <= top <= high + slack:
        raise StatsError(
            f"A score is {top / weight:g}, and by its metric's definition scores lie between {bounds[0]:g} and "
            f"{bounds[1]:g}. Correct the scorer, or the range that its metric states."
        )
    return min(max(top, low), high), weight, label


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    """Variance with n - 1 in the denominator; at least two values."""
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)

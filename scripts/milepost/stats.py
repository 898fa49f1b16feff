"""Means over items with their uncertainty: standard errors, 95 % intervals, and the split of the variance.

Every function takes numbers that were averaged within the item first: the samples of one item are never independent.
Nothing heavy is imported for the module itself; the one quantile that is needed comes from scipy.special, which loads
in a third of the time of scipy.stats.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import cache
from statistics import NormalDist

from milepost.errors import StatsError
from milepost.records import Estimate, Variance

# Below this many clusters the cluster-robust error is itself a rough guess.
FEW_CLUSTERS = 10

# Two failures and two successes: with them the t interval covers near 0 and 1 as well (see the tests).
PSEUDO_ITEMS = (0.0, 0.0, 1.0, 1.0)

UNDEFINED = Estimate(value=None, stderr=None, ci95=None)


def mean_estimate(
    values: Sequence[float], *, clusters: Sequence[Hashable] | None = None, unit: bool | None = None
) -> Estimate:
    """Mean over items, its standard error and its 95 % interval.

    Scores in [0, 1] get the interval of the items with four pseudo-items (two 0, two 1), cut to [0, 1]; other scores
    the plain t interval. The value itself is always the plain mean. With clusters the error is cluster-robust and the
    interval a t interval with one degree of freedom less than there are clusters, cut to [0, 1] for scores in it.

    Args:
        values: One mean per item, shape (n_items,), in the task's units.
        clusters: The cluster of each item, shape (n_items,); None for independent items.
        unit: Whether scores lie in [0, 1] by definition; None looks at the values.

    Returns:
        The estimate. No item: all null. One item, or one cluster: a value without error and interval, since nothing
        tells how much another item would differ.

    Raises:
        StatsError: A value is not finite, or `clusters` has another length.

    >>> mean_estimate([1, 1, 1, 0])["value"]
    0.75
    >>> [round(bound, 2) for bound in mean_estimate([1, 1, 1, 1])["ci95"]]
    [0.23, 1.0]
    """
    n = len(values)
    if not all(map(math.isfinite, values)):
        raise StatsError("A score is infinite or not a number. Correct the scorer: null stands for 'not scored'.")
    if clusters is not None and len(clusters) != n:
        raise StatsError(f"{n} values and {len(clusters)} clusters were given; each value needs its cluster.")
    if n == 0:
        return UNDEFINED
    if unit is None:
        unit = all(0 <= value <= 1 for value in values)
    mean = _mean(values)
    groups = n if clusters is None else len(set(clusters))
    if groups < 2:
        return Estimate(value=mean, stderr=None, ci95=None)
    if clusters is not None:
        stderr = clustered_stderr(values, clusters)
        centre, half = mean, t_quantile(groups - 1) * stderr
    else:
        stderr = math.sqrt(_variance(values) / n)
        padded = [*values, *PSEUDO_ITEMS] if unit else values
        centre, half = _mean(padded), t_quantile(n - 1) * math.sqrt(_variance(padded) / len(padded))
    low, high = centre - half, centre + half
    return Estimate(value=mean, stderr=stderr, ci95=(max(0.0, low), min(1.0, high)) if unit else (low, high))


def clustered_stderr(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Standard error of a mean whose items come in clusters.

    Args:
        values: One mean per item, shape (n_items,), in the task's units.
        clusters: The cluster of each item, shape (n_items,).

    Raises:
        StatsError: Fewer than two clusters.

    Source: Miller (2024), arXiv 2411.00640, with the G/(G-1) correction; the same as a regression on a constant in
    statsmodels with cov_type="cluster".

    >>> round(clustered_stderr([1, 1, 0, 0], ["a", "a", "b", "b"]), 3)
    0.5
    """
    mean = _mean(values)
    residuals: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        residuals[cluster].append(value - mean)
    groups = len(residuals)
    if groups < 2:
        raise StatsError(f"A clustered standard error needs two clusters or more; there is {groups}.")
    squares = math.fsum(math.fsum(group) ** 2 for group in residuals.values())
    return math.sqrt(groups / (groups - 1) * squares) / len(values)


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


def harness_estimate(value: float | None, stderr: float | None) -> Estimate:
    """A harness's own number with a normal interval around it, for results that came without samples.

    >>> [round(bound, 3) for bound in harness_estimate(0.5, 0.1)["ci95"]]
    [0.304, 0.696]
    """
    if value is None or not math.isfinite(value):
        return UNDEFINED
    if stderr is None or not math.isfinite(stderr):
        return Estimate(value=value, stderr=None, ci95=None)
    half = NormalDist().inv_cdf(0.975) * stderr
    return Estimate(value=value, stderr=stderr, ci95=(value - half, value + half))


@cache
def t_quantile(df: int, probability: float = 0.975) -> float:
    """The quantile of Student's t distribution with `df` degrees of freedom.

    >>> round(t_quantile(9), 4)
    2.2622
    """
    # Most of a scoring step's start-up time, and not always needed.
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    """Variance with n - 1 in the denominator; at least two values."""
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)

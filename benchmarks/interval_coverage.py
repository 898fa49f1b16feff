"""Simulations of intervals: how often they hold the truth, and how wide they are. `simulations.py` prints them as tables."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from milepost.statistics.intervals import NEAR, PILED, PSEUDO_CHANGE, PSEUDO_ITEMS, UNIT, ZERO, difference_interval
from milepost.statistics.means import mean_estimate, ratio_estimate
from milepost.statistics.student import t_quantile

Array = npt.NDArray[np.float64]
Row = dict[str, str | float]
Intervals = Sequence[tuple[float, float] | None]

MEANS = (0.02, 0.5, 0.9, 0.98)
# Graded scores: their means and standard deviations.
GRADED = tuple(itertools.product((0.1, 0.3, 0.7, 0.95), (0.02, 0.05, 0.15)))


def mean_coverage(rounds: int, *, sizes: Sequence[int] = (10, 30, 100, 300)) -> Iterator[Row]:
    """Coverage of the interval of a mean: ours, the plain t interval, and ours where all items are alike."""
    rng = np.random.default_rng(1)
    for n, mean, samples in itertools.product(sizes, MEANS, (1, 4)):
        spread = rng.binomial(samples, rng.beta(mean, 1 - mean, size=(rounds, n))) / samples
        alike = rng.binomial(samples, mean, size=(rounds, n)) / samples
        ours = intervals_of(spread)
        check_same(ours, [mean_estimate(row, bounds=UNIT)["ci95"] for row in spread[:20].tolist()])
        yield {
            "items": n,
            "mean": mean,
            "samples": samples,
            "coverage": share_covering(mean, ours),
            "plain t": share_covering(mean, plain_t(spread)),
            "width": mean_width(ours),
            "width, plain": mean_width(plain_t(spread)),
            "coverage, items alike": share_covering(mean, intervals_of(alike)),
        }


def graded_coverage(
    rounds: int,
    *,
    sizes: Sequence[int] = (10, 30, 100, 300),
    scores: Sequence[tuple[float, float]] = GRADED,
) -> Iterator[Row]:
    """Coverage of the interval of a mean of graded scores, Beta around the mean, and its width by that of the plain t.

    Beside it the four pseudo-items alone, which are right for failed or solved items.
    """
    rng = np.random.default_rng(11)
    for n, (mean, sd) in itertools.product(sizes, scores):
        values = graded(rng, mean, sd, (rounds, n))
        ours, plain = intervals_of(values), plain_t(values)
        check_same(ours, [mean_estimate(row, bounds=UNIT)["ci95"] for row in values[:20].tolist()])
        yield {
            "items": n,
            "mean": mean,
            "sd": sd,
            "coverage": share_covering(mean, ours),
            "plain t": share_covering(mean, plain),
            "width by the plain one's": mean_width(ours) / mean_width(plain),
            "pseudo-items alone": mean_width(padded(values, PSEUDO_ITEMS)) / mean_width(plain),
        }


def rating_coverage(rounds: int, *, sizes: Sequence[int] = (30, 100, 300)) -> Iterator[Row]:
    """Coverage of the interval of ratings from 1 to 10: a share of them is 7, the others are any number with one chance."""
    rng = np.random.default_rng(12)
    for n, share in itertools.product(sizes, (0.2, 0.5, 0.9, 0.98, 1.0)):
        others = rng.integers(1, 11, size=(rounds, n)).astype(float)
        values = np.where(rng.uniform(size=(rounds, n)) < share, 7.0, others)
        mean = 7 * share + 5.5 * (1 - share)
        ours = 1 + 9 * intervals_of((values - 1) / 9)
        check_same(ours, [mean_estimate(row, bounds=(1, 10))["ci95"] for row in values[:20].tolist()])
        yield {
            "items": n,
            "share of 7": share,
            "mean": mean,
            "coverage": share_covering(mean, ours),
            "plain t": share_covering(mean, plain_t(values)),
            "width": mean_width(ours),
            "width, plain": mean_width(plain_t(values)),
        }


def cluster_coverage(
    rounds: int, *, designs: Sequence[tuple[int, int]] = ((5, 10), (10, 10), (30, 5), (100, 4))
) -> Iterator[Row]:
    """Coverage with clusters of unequal size: ours, the plain cluster t interval, and with four pseudo-clusters.

    A share of each cluster's items has the cluster's own probability, the others have one of their own.
    """
    rng = np.random.default_rng(2)
    for (groups, size), mean, alike in itertools.product(designs, (0.5, 0.9, 0.98), (0.0, 0.5, 1.0)):
        intervals: dict[str, list[tuple[float, float] | None]] = {"ours": [], "plain": [], "clusters": []}
        for _ in range(rounds):
            sizes = rng.integers(1, 2 * size, size=groups)
            codes = np.repeat(np.arange(groups), sizes)
            own, shared = rng.beta(mean, 1 - mean, size=len(codes)), rng.beta(mean, 1 - mean, size=groups)[codes]
            values = rng.binomial(1, np.where(rng.uniform(size=len(codes)) < alike, shared, own)).astype(float).tolist()
            labels = codes.tolist()
            intervals["ours"].append(mean_estimate(values, clusters=labels, bounds=UNIT)["ci95"])
            intervals["plain"].append(mean_estimate(values, clusters=labels)["ci95"])
            intervals["clusters"].append(four_clusters(values, codes))
        row: Row = {"clusters": groups, "items": groups * size, "mean": mean, "alike": alike}
        names = {"ours": "coverage", "plain": "plain t", "clusters": "four clusters"}
        row |= {names[kind]: share_covering(mean, found) for kind, found in intervals.items()}
        row |= {f"width, {kind}": mean_width(found) for kind, found in intervals.items()}
        yield row


def graded_cluster_coverage(
    rounds: int, *, designs: Sequence[tuple[int, int]] = ((10, 10), (30, 5), (100, 4))
) -> Iterator[Row]:
    """Coverage with clusters of graded scores, half of whose variance the items of a cluster share."""
    rng = np.random.default_rng(13)
    for (groups, size), (mean, sd) in itertools.product(designs, ((0.3, 0.05), (0.7, 0.15), (0.95, 0.05))):
        ours: list[tuple[float, float] | None] = []
        plain: list[tuple[float, float] | None] = []
        for _ in range(rounds):
            sizes = rng.integers(1, 2 * size, size=groups)
            codes = np.repeat(np.arange(groups), sizes)
            shared = graded(rng, mean, sd, groups)[codes]
            own = graded(rng, mean, sd, len(codes))
            # Two parts with half of the weight each: mean and bounds stay what they are.
            values, labels = ((shared + own) / 2).tolist(), codes.tolist()
            ours.append(mean_estimate(values, clusters=labels, bounds=UNIT)["ci95"])
            plain.append(mean_estimate(values, clusters=labels)["ci95"])
        yield {
            "clusters": groups,
            "items": groups * size,
            "mean": mean,
            "sd": sd,
            "coverage": share_covering(mean, ours),
            "plain t": share_covering(mean, plain),
            "width by the plain one's": mean_width(ours) / mean_width(plain),
        }


def ratio_coverage(rounds: int) -> Iterator[Row]:
    """Coverage of a ratio: instructions followed of one to three instructions per prompt."""
    rng = np.random.default_rng(3)
    for n, mean in itertools.product((30, 100, 300), MEANS):
        weights = rng.integers(1, 4, size=(rounds, n))
        tops = rng.binomial(weights, rng.beta(mean, 1 - mean, size=(rounds, n)))
        pairs = list(zip(tops.tolist(), weights.tolist(), strict=True))
        found = [ratio_estimate(top, weight, bounds=UNIT)["ci95"] for top, weight in pairs]
        plain = [ratio_estimate(top, weight)["ci95"] for top, weight in pairs]
        yield {
            "prompts": n,
            "ratio": mean,
            "coverage": share_covering(mean, found),
            "plain t": share_covering(mean, plain),
            "width": mean_width(found),
            "width, plain": mean_width(plain),
        }


def pair_coverage(
    rounds: int, *, sizes: Sequence[int] = (30, 100, 541), means: Sequence[float] = (0.5, 0.9, 0.98)
) -> Iterator[Row]:
    """Coverage of the interval of a difference, where a share of the items has changed for the better."""
    rng = np.random.default_rng(4)
    gains = {mean: gain_of_the_better(rng, mean) for mean in means}
    for n, mean, samples, changed in itertools.product(sizes, means, (1, 8), (0.05, 0.5)):
        before = rng.beta(mean, 1 - mean, size=(rounds, n))
        other = rng.beta(mean, 1 - mean, size=(rounds, n))
        after = np.where(rng.uniform(size=(rounds, n)) < changed, np.maximum(before, other), before)
        truth = changed * gains[mean]
        a, b = rng.binomial(samples, before) / samples, rng.binomial(samples, after) / samples
        d, ours = b - a, differences_of(a, b, single=samples == 1)
        check_same_pairs(ours, a, b, single=samples == 1)
        yield {
            "items": n,
            "mean": mean,
            "samples": samples,
            "changed": changed,
            "difference": truth,
            "coverage": share_covering(truth, ours),
            "plain t": share_covering(truth, plain_t(d)),
            "width": mean_width(ours),
            "width, plain": mean_width(plain_t(d)),
        }


def graded_pair_coverage(
    rounds: int, *, sizes: Sequence[int] = (10, 30, 100, 300), scores: Sequence[tuple[float, float]] = GRADED
) -> Iterator[Row]:
    """Coverage of the interval of a difference of graded scores, and its width by that of the plain t.

    Either both scores of an item are drawn anew, or three in ten of the items change.
    """
    rng = np.random.default_rng(14)
    for n, (mean, sd), changed in itertools.product(sizes, scores, (0.3, 1.0)):
        a, other = graded(rng, mean, sd, (rounds, n)), graded(rng, mean, sd, (rounds, n))
        b = np.where(rng.uniform(size=a.shape) < changed, other, a)
        ours, plain = differences_of(a, b), plain_t(b - a)
        check_same_pairs(ours, a, b)
        yield {
            "items": n,
            "mean": mean,
            "sd": sd,
            "changed": changed,
            "coverage": share_covering(0.0, ours),
            "plain t": share_covering(0.0, plain),
            "width by the plain one's": mean_width(ours) / mean_width(plain),
            "±1/2 alone": mean_width(padded(b - a, (0.5, -0.5))) / mean_width(plain),
        }


def rare_gains(rounds: int) -> Iterator[Row]:
    """Coverage of a difference, where two checkpoints answer alike but for a few items that the second gained."""
    rng = np.random.default_rng(5)
    n = 541
    for gains in (0.5, 1, 2, 3, 5, 10):
        d = rng.binomial(1, gains / n, size=(rounds, n)).astype(float)
        yield {
            "items": n,
            "expected gains": gains,
            "coverage, ±1": share_covering(gains / n, padded(d, (1.0, -1.0))),
            "coverage, ±1/2": share_covering(gains / n, padded(d, (0.5, -0.5))),
            "plain t": share_covering(gains / n, plain_t(d)),
        }


def share_covering(truth: float, intervals: Intervals | Array) -> float:
    """Share of the intervals that hold the truth; one that is not defined does not."""
    ends = as_array(intervals)
    # Sums in another order may miss an end by the last digit.
    return float(((ends[:, 0] - 1e-9 <= truth) & (truth <= ends[:, 1] + 1e-9)).mean())


def mean_width(intervals: Intervals | Array) -> float:
    """Mean width of the intervals that are defined."""
    ends = as_array(intervals)
    return float(np.nanmean(ends[:, 1] - ends[:, 0]))


def as_array(intervals: Intervals | Array) -> Array:
    """Shape (n, 2); NaN for an interval that is not defined."""
    return np.array([(np.nan, np.nan) if found is None else found for found in intervals], dtype=float)


def padded(values: Array, pseudo: npt.ArrayLike) -> Array:
    """The interval of each row's mean with pseudo-items, the same or each row's own, shape (n_rows, 2)."""
    n, pseudo = values.shape[1], np.asarray(pseudo, dtype=float)
    joined = np.concatenate([values, np.broadcast_to(pseudo, (len(values), pseudo.shape[-1]))], axis=1)
    half = t_quantile(n - 1) * joined.std(axis=1, ddof=1) / np.sqrt(joined.shape[1])
    ends = np.stack([joined.mean(axis=1) - half, joined.mean(axis=1) + half], axis=1)
    return np.asarray(np.clip(ends, -1.0 if pseudo.min() < 0 else 0.0, 1.0))


def check_same(many: Array, ours: Intervals) -> None:
    """What is simulated must be what is reported: the fast intervals are compared with those of the package."""
    np.testing.assert_allclose(many[: len(ours)], np.array(ours, dtype=float), atol=1e-9)


def check_same_pairs(many: Array, a: Array, b: Array, *, single: bool = False) -> None:
    """The same of differences."""
    pairs = zip(a[:20].tolist(), b[:20].tolist(), strict=True)
    check_same(many, [difference_interval(first, second, single=single, bounds=UNIT) for first, second in pairs])


def graded(rng: np.random.Generator, mean: float, sd: float, shape: int | tuple[int, int]) -> Array:
    """Scores from a Beta distribution with this mean and standard deviation."""
    size = mean * (1 - mean) / sd**2 - 1
    return rng.beta(mean * size, (1 - mean) * size, size=shape)


def intervals_of(values: Array) -> Array:
    """The interval of each row's mean, for many rows at a time, shape (n_rows, 2)."""
    n = values.shape[1]
    mean, stderr = values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(n)
    spread, within = mean * (1 - mean), stderr > ZERO
    n_eff = np.divide(spread, stderr**2, out=np.full(len(mean), np.inf), where=within)
    piled = np.maximum((np.abs(1 - 2 * values) ** NEAR).mean(axis=1), most_frequent(values) ** PILED)
    more = np.minimum(n_eff, 1 / ZERO) ** (1 - piled) * n**piled
    n_eff = np.where(n_eff <= n, n_eff, np.where((piled >= 1) | (spread == 0), n, more))
    centre = (n_eff * mean + 2) / (n_eff + 4)
    half = t_quantile(n - 1) * np.sqrt(centre * (1 - centre) / (n_eff + 4))
    binomial = np.clip(np.stack([centre - half, centre + half], axis=1), 0, 1)
    pseudo = padded(values, PSEUDO_ITEMS)
    return np.where(np.diff(binomial) <= np.diff(pseudo), binomial, pseudo)


def most_frequent(values: Array) -> Array:
    """The share of each row's most frequent value."""
    ordered = np.sort(values.round(9), axis=1)
    longest, length = np.ones(len(ordered)), np.ones(len(ordered))
    for left, right in itertools.pairwise(ordered.T):
        length = np.where(left == right, length + 1, 1)
        longest = np.maximum(longest, length)
    return longest / values.shape[1]


def differences_of(a: Array, b: Array, *, single: bool = False) -> Array:
    """The interval of each row's mean difference, shape (n_rows, 2)."""
    d, both = b - a, np.concatenate([a, b], axis=1)
    whole = np.isin(both, UNIT).all(axis=1) if single else np.zeros(len(a), dtype=bool)
    total = np.abs(d).sum(axis=1)
    typical = np.divide((d**2).sum(axis=1), total, out=both.std(axis=1), where=total > ZERO)
    most = np.maximum(np.where(whole, 1.0, 0.5), typical)
    near = (np.abs(1 - 2 * both) ** NEAR).mean(axis=1)
    size = np.where(typical > ZERO, most**near * (PSEUDO_CHANGE * typical) ** (1 - near), most)
    return padded(d, np.stack([size, -size], axis=1))


def gain_of_the_better(rng: np.random.Generator, mean: float) -> float:
    """Mean of max(x, y) - x over Beta(mean, 1 - mean)."""
    first, second = rng.beta(mean, 1 - mean, size=(2, 4_000_000))
    return float((np.maximum(first, second) - first).mean())


def plain_t(values: Array) -> Array:
    """The plain t interval of each row's mean, shape (n_rows, 2)."""
    n = values.shape[1]
    half = t_quantile(n - 1) * values.std(axis=1, ddof=1) / np.sqrt(n)
    return np.stack([values.mean(axis=1) - half, values.mean(axis=1) + half], axis=1)


def four_clusters(values: Sequence[float], codes: npt.NDArray[np.intp]) -> tuple[float, float]:
    """The cluster t interval with four pseudo-clusters of mean size, as a contrast to ours."""
    groups = int(codes.max()) + 1
    size = len(values) / groups
    sums = np.append(np.bincount(codes, weights=values), [0, 0, size, size])
    sizes = np.append(np.bincount(codes), [size] * 4)
    mean = sums.sum() / sizes.sum()
    half = (
        t_quantile(groups - 1) * np.sqrt(len(sums) / (len(sums) - 1) * ((sums - mean * sizes) ** 2).sum()) / sizes.sum()
    )
    return max(0.0, mean - half), min(1.0, mean + half)

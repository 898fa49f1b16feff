"""Sign-flip tests of paired differences, one or a whole family at once (max-T), in bounded memory.

If two checkpoints answer an item equally well, its difference is as likely to be +d as -d. So the signs of the items'
differences are flipped at random, in all comparisons of a family alike, and the largest statistic of the family is
noted each time. An observed statistic is unlikely by chance if it exceeds nearly all of those largest ones. Because
the same flips go through all comparisons, their correlation (they share items, and often a checkpoint) is accounted
for: max-T demands less than Bonferroni or Holm do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from milepost.errors import StatsError

Scores = npt.NDArray[np.float64]
Alternative = Literal["two-sided", "greater", "less"]

FLIPS = 9_999

# Up to this many flips, all of them are tried instead of a random part: the p-value is exact.
EXACT_UNITS = 13

# Statistics nearer than this are ties: the same sum, added up in another order.
TIE = 1e-9

# Differences held at a time (8 bytes each), and flips tried at a time: what stays in the processor's cache is quick.
BLOCK = 1_000_000
FLIPS_AT_ONCE = 128

# Fewer common items than this share of the larger set, and two checkpoints are not compared.
LEAST_OVERLAP = 0.5


@dataclass(frozen=True, kw_only=True)
class Family:
    """The tests of a family of comparisons; each array has shape (n_pairs,), NaN where a pair cannot be tested."""

    delta: Scores
    """Mean difference over the common items."""
    t: Scores
    """The difference over its standard error; NaN where that is 0."""
    p_adjusted: Scores
    """Corrected for the whole family: 5 % here is 5 % for any false finding at all. Of a family of one, plain p."""
    n_common: npt.NDArray[np.int64]


def max_t(
    scores: Scores,
    pairs: Sequence[tuple[int, int]],
    *,
    clusters: Sequence[Hashable] | None = None,
    alternative: Alternative = "two-sided",
    seed: int = 0,
) -> Family:
    """Test row b against row a for every pair (a, b), with the same sign flips for all.

    The statistic is Σu / √Σu² over the units u: the items' differences b - a, or with clusters their sums within each
    cluster. For pairs with the same number of units it orders the flips as Student's t does, and it stays finite
    where t does not (differences all alike). A pair without any difference has p = 1.

    Args:
        scores: Item means, shape (n_rows, n_items); NaN where an item is missing. Over other orders of the items
            p varies by the chance of the flips.
        pairs: Rows to compare, as (a, b).
        clusters: The cluster of each item, shape (n_items,); whole clusters are flipped then.
        alternative: "greater" tests whether b is higher than a.
        seed: Of the flips. The same input and seed give the same p.

    Returns:
        The tests. A pair with fewer than two units, or with less than half of its items in common, cannot be tested
        and is left out of the family.

    Raises:
        StatsError: A score is infinite, or `clusters` has another length.
    """
    scores = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    codes = cluster_codes(clusters, scores.shape[1])
    if np.isinf(scores).any():
        raise StatsError("A score is infinite. Correct the scorer: null stands for 'not scored'.")
    index = np.asarray(pairs, dtype=np.intp).reshape(-1, 2)
    delta, stderr, n_common, testable = _describe(scores, index, codes)
    tested = index[testable]
    p_adjusted = np.full(len(index), np.nan)
    if len(tested):
        p_adjusted[testable] = _p_values(scores, tested, codes, alternative, seed)
    t = np.divide(delta, stderr, out=np.full(len(index), np.nan), where=testable & (stderr > TIE * np.abs(delta)))
    return Family(delta=delta, t=t, p_adjusted=p_adjusted, n_common=n_common)


def cluster_codes(clusters: Sequence[Hashable] | None, n_items: int) -> npt.NDArray[np.intp] | None:
    """Clusters as numbers from 0, in order of appearance; None for independent items.

    Raises:
        StatsError: Not one cluster for each item.
    """
    if clusters is None:
        return None
    if len(clusters) != n_items:
        raise StatsError(f"{n_items} items and {len(clusters)} clusters were given; each item needs its cluster.")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)


def paired_stderr(differences: Scores, codes: npt.NDArray[np.intp] | None = None) -> Scores:
    """Standard error of each row's mean difference, cluster-robust with clusters.

    Args:
        differences: Shape (n_rows, n_items); NaN where an item is missing.
        codes: The number of each item's cluster, shape (n_items,).

    Returns:
        Shape (n_rows,); NaN with fewer than two units.
    """
    there = ~np.isnan(differences)
    n = there.sum(axis=1)
    d = np.where(there, differences, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        residuals = np.where(there, d - (d.sum(axis=1) / n)[:, None], 0.0)
        if codes is None:
            units, sums = n, residuals
        else:
            units, sums = (_by_cluster(there.astype(float), codes) > 0).sum(axis=1), _by_cluster(residuals, codes)
        stderr: Scores = np.sqrt(units / (units - 1) * (sums**2).sum(axis=1)) / n
    stderr[units < 2] = np.nan
    return stderr


def _describe(
    scores: Scores, index: npt.NDArray[np.intp], codes: npt.NDArray[np.intp] | None
) -> tuple[Scores, Scores, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Mean difference, its error, the number of common items, and whether the pair can be tested."""
    n_items = (~np.isnan(scores)).sum(axis=1)
    delta, stderr = np.full(len(index), np.nan), np.full(len(index), np.nan)
    n_common = np.zeros(len(index), dtype=np.int64)
    for block in _blocks(len(index), scores.shape[1]):
        d = scores[index[block, 1]] - scores[index[block, 0]]
        n = (~np.isnan(d)).sum(axis=1)
        n_common[block] = n
        np.divide(np.nansum(d, axis=1), n, out=delta[block], where=n > 0)
        stderr[block] = paired_stderr(d, codes)
    overlap = n_common >= LEAST_OVERLAP * n_items[index].max(axis=1, initial=0)
    # The error is NaN with fewer than two units.
    return delta, stderr, n_common, overlap & ~np.isnan(stderr)


def _p_values(
    scores: Scores, index: npt.NDArray[np.intp], codes: npt.NDArray[np.intp] | None, alternative: Alternative, seed: int
) -> Scores:
    """Adjusted p of pairs that can be tested, shape (n_pairs,)."""
    blocks = list(_blocks(len(index), scores.shape[1]))
    observed, scale = np.empty(len(index)), np.empty(len(index))
    n_units = scores.shape[1] if codes is None else int(codes.max()) + 1
    moving = np.zeros(n_units, dtype=bool)
    for block in blocks:
        d = _differences(scores, index[block], codes)
        norm = np.sqrt((d**2).sum(axis=1))
        # No difference at all: a statistic of 0, whatever is flipped.
        scale[block] = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        observed[block] = d.sum(axis=1) * scale[block]
        moving |= d.any(axis=0)
    if alternative == "less":
        observed, scale = -observed, -scale
    strength = np.abs(observed) if alternative == "two-sided" else observed
    exact = int(moving.sum()) <= EXACT_UNITS
    # A unit that differs nowhere keeps its sign: fewer flips, or room for all of them.
    n_flips = 2 ** int(moving.sum()) if exact else FLIPS
    # Σ d = Σ b - Σ a where no row has a gap: there the few rows are flipped instead of their many differences.
    gaps = np.asarray(np.isnan(scores[np.unique(index)]).any(axis=0))
    rows = _by_cluster(np.where(gaps, 0.0, scores), codes)
    gapped = np.where(gaps, scores, 0.0)
    gap_units = np.flatnonzero(_by_cluster(gaps[None].astype(np.float64), codes))
    flipped = np.empty((len(rows), n_flips))
    for flips, turned in _flips(moving, exact, seed):
        flipped[:, flips] = _flip(rows, turned)
    largest = np.full(n_flips, -np.inf)
    for block in blocks:
        a, b = index[block].T
        d = _differences(gapped, index[block], codes)[:, gap_units]
        for flips, turned in _flips(moving, exact, seed, keep=gap_units):
            sums = flipped[b, flips] - flipped[a, flips]
            if d.size:
                sums += _flip(d, turned)
            sums *= scale[block, None]
            if alternative == "two-sided":
                np.abs(sums, out=sums)
            np.maximum(largest[flips], sums.max(axis=0), out=largest[flips])
    largest.sort()
    exceeded = n_flips - np.searchsorted(largest, strength - TIE, side="left")
    # The observed signs are one of the possible flips: with them, p is never 0.
    p: Scores = exceeded / n_flips if exact else (exceeded + 1) / (n_flips + 1)
    return p


def _differences(scores: Scores, index: npt.NDArray[np.intp], codes: npt.NDArray[np.intp] | None) -> Scores:
    """The units' differences of each pair, shape (n_pairs, n_units); 0 where an item is missing in either row."""
    d = _by_cluster(np.nan_to_num(scores[index[:, 1]] - scores[index[:, 0]]), codes)
    # What is left of equal scores that were added up in another order.
    d[np.abs(d) < TIE] = 0.0
    return d


def _flip(values: Scores, turned: Scores) -> Scores:
    """Sums of each row's values under each flip, shape (n_rows, n_flips)."""
    # Σ ± v is Σ v less twice the part that was turned.
    sums: Scores = values.sum(axis=1)[:, None] - 2 * values @ turned.T
    return sums


def _by_cluster(values: Scores, codes: npt.NDArray[np.intp] | None) -> Scores:
    """Sums within clusters, shape (n_rows, n_clusters); the values themselves for independent items."""
    if codes is None:
        return values
    sums = np.zeros((codes.max(initial=-1) + 1, len(values)))
    np.add.at(sums, codes, values.T)
    return sums.T


def _blocks(rows: int, columns: int, size: int = BLOCK) -> Iterator[slice]:
    step = max(1, size // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _flips(
    moving: npt.NDArray[np.bool_], exact: bool, seed: int, keep: npt.NDArray[np.intp] | slice = slice(None)
) -> Iterator[tuple[slice, Scores]]:
    """Flips in blocks: which of them, and where they turn a sign (1) or leave it (0), shape (n_flips, n_units).

    `keep` names the units that are wanted.
    """
    n_units, n_moving = len(moving), int(moving.sum())
    for flips in _blocks(2**n_moving if exact else FLIPS, 1, FLIPS_AT_ONCE):
        if exact:
            turned = np.zeros((flips.stop - flips.start, n_units))
            turned[:, moving] = np.arange(flips.start, flips.stop)[:, None] >> np.arange(n_moving) & 1
            turned = turned[:, keep]
        else:
            bits = np.unpackbits(_random_bits(n_units, seed)[flips], axis=1, count=n_units)
            turned = bits[:, keep].astype(np.float64)
        yield flips, turned


@lru_cache(maxsize=2)
def _random_bits(n_units: int, seed: int) -> npt.NDArray[np.uint8]:
    """The random bits of all flips, eight to a byte: 1.2 kB per unit, the same for all comparisons of a task."""
    return np.random.default_rng(seed).integers(256, size=(FLIPS, -(-n_units // 8)), dtype=np.uint8)

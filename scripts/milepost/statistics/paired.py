"""Is one checkpoint better than another, and since which step? Answers from the items that both were asked.

All tests are sign-flip tests of the items' differences (see signflip); a family of comparisons is corrected by max-T.
docs/statistics.md explains each number.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from milepost.errors import StatsError
from milepost.statistics.intervals import Bounds, difference_interval
from milepost.statistics.ranking import rank_letters
from milepost.statistics.sign_flips import LEAST_OVERLAP, TIE, Scores, cluster_codes, max_t, paired_stderr
from milepost.statistics.student import t_quantile

__all__ = [
    "Comparison",
    "Regression",
    "StepTest",
    "benjamini_hochberg",
    "compare",
    "detectable_difference",
    "first_better",
    "holm",
    "lost_since",
    "rank_letters",
    "regressed_since",
]

LESS_THAN_HALF = "less than half of the items in common"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two checkpoints on the same items. What is not defined is None, and `note` says why."""

    n_a: int
    """Items with a readable mean."""
    n_b: int
    n_common: int
    value_a: float | None
    """Mean over the common items."""
    value_b: float | None
    delta: float | None
    """b - a on the common items."""
    stderr: float | None
    ci95: tuple[float, float] | None
    p: float | None
    """Two-sided."""
    test: str | None
    """"sign-flip", "sign-flip by cluster" or "exact McNemar"."""
    detectable: float | None
    """Smallest true difference that these items would show, at 5 %, in 80 of 100 evaluations."""
    better: int
    """Items on which b is higher than a."""
    worse: int
    note: str | None
    """Why something is None, or why p cannot be small."""


def compare(
    a: Scores,
    b: Scores,
    *,
    clusters: Sequence[Hashable] | None = None,
    single: bool = False,
    bounds: Bounds | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two checkpoints on the items that both were asked.

    The standard error is that of the items' differences, cluster-robust with clusters. The interval is their t interval
    (G - 1 degrees of freedom with G clusters); for scores with bounds two pseudo-items join, one for each side, since
    near them few items differ and the plain interval would be far too narrow (`difference_interval`). p comes from
    9,999 sign flips (all of them where 13 or fewer items differ).

    Args:
        a: Item means of the first, shape (n_items,); NaN where an item is missing.
        b: The same of the second, in the same order.
        clusters: The cluster of each item, shape (n_items,).
        single: One sample per item. Independent items with scores 0 and 1 are then tested by exact McNemar.
        bounds: The lowest and the highest value that a score can take, by its definition; None where there are none.
        seed: Of the sign flips.

    Returns:
        The comparison. Nothing but counts where less than half of the larger set of items is common: what is missing
        is rarely missing by chance.

    Raises:
        StatsError: The arrays differ in length, or a score is infinite.

    >>> found = compare(np.array([0.0, 0.0, 1.0, 0.5]), np.array([1.0, 0.5, 1.0, 0.5]))
    >>> found.delta, found.better, found.worse, found.p
    (0.375, 2, 0, 0.5)
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise StatsError(f"Two checkpoints are compared item by item; there are {a.shape} and {b.shape} scores.")
    if np.isinf(a).any() or np.isinf(b).any():
        raise StatsError("A score is infinite. Correct the scorer: null stands for 'not scored'.")
    codes = cluster_codes(clusters, len(a))
    difference = b - a
    common = ~np.isnan(difference)
    n_a, n_b, n = int((~np.isnan(a)).sum()), int((~np.isnan(b)).sum()), int(common.sum())
    if n == 0 or n < LEAST_OVERLAP * max(n_a, n_b):
        return _without_numbers(n_a, n_b, n)
    d = difference[common]
    groups = n if codes is None else len(np.unique(codes[common]))
    delta = float(d.mean())
    error = float(paired_stderr(difference[None], codes)[0])
    stderr = None if math.isnan(error) else error
    p, test = None, None
    if stderr is not None:
        p, test = _paired_test(a, b, common, clusters, single, seed)
    # Differences that are all alike say nothing about how far another item's would be.
    spread = stderr is not None and error > TIE * abs(delta)
    labels = None if codes is None else np.unique(codes[common], return_inverse=True)[1].tolist()
    ci95 = None
    if stderr is not None:
        ci95 = difference_interval(
            a[common].tolist(), b[common].tolist(), clusters=labels, single=single, bounds=bounds
        )
    return Comparison(
        n_a=n_a,
        n_b=n_b,
        n_common=n,
        value_a=float(a[common].mean()),
        value_b=float(b[common].mean()),
        delta=delta,
        stderr=stderr,
        ci95=ci95,
        p=p,
        test=test,
        detectable=detectable_difference(error, groups) if spread else None,
        better=int((d > TIE).sum()),
        worse=int((d < -TIE).sum()),
        note=_note(d, labels),
    )


def detectable_difference(stderr: float, n_units: int) -> float:
    """Smallest true difference that a two-sided test at 5 % would find in 80 of 100 evaluations.

    Args:
        stderr: Standard error of the difference.
        n_units: Items, or clusters of them; two or more.

    >>> round(detectable_difference(0.02, 200), 3)
    0.056
    """
    return (t_quantile(n_units - 1) + t_quantile(n_units - 1, 0.8)) * stderr


@dataclass(frozen=True, kw_only=True)
class StepTest:
    """One step of a run against its first; None where the two cannot be compared."""

    delta: float | None
    t: float | None
    p_adjusted: float | None
    """One-sided, corrected for all steps of the run."""
    n_common: int


def first_better(
    steps: Scores,
    *,
    clusters: Sequence[Hashable] | None = None,
    alternative: Literal["greater", "less"] = "greater",
    seed: int = 0,
    alpha: float = 0.05,
) -> tuple[int | None, list[StepTest]]:
    """The earliest step of a run that is better than its first.

    One-sided max-T over all steps against the first: the chance that any step is called better when none is, is
    `alpha`.

    Args:
        steps: Item means, shape (n_steps, n_items); row 0 is the reference; NaN where an item is missing. A row of
            NaN alone is a missing checkpoint.
        clusters: The cluster of each item, shape (n_items,).
        alternative: "less" finds the earliest step that is worse.
        seed: Of the sign flips.
        alpha: Level of the whole family.

    Returns:
        The index of that step, or None, and a test for each step; that of row 0 has no t and no p.
    """
    steps = np.asarray(steps, dtype=np.float64)
    tests = [StepTest(delta=0.0, t=None, p_adjusted=None, n_common=int((~np.isnan(steps[0])).sum()))]
    family = max_t(
        steps, [(0, step) for step in range(1, len(steps))], clusters=clusters, alternative=alternative, seed=seed
    )
    tests += [
        StepTest(delta=_number(delta), t=_number(t), p_adjusted=_number(p), n_common=int(n))
        for delta, t, p, n in zip(family.delta, family.t, family.p_adjusted, family.n_common, strict=True)
    ]
    passed = [step for step, test in enumerate(tests) if test.p_adjusted is not None and test.p_adjusted <= alpha]
    return (passed[0] if passed else None), tests


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A fall that lasts to the end of a run; all None where none is shown."""

    since: int | None
    """Index of the earliest step from which on every step lies below `below`."""
    below: int | None
    """Index of the earlier step that they lie below."""
    p_adjusted: float | None
    """The largest of these steps' p, corrected for all pairs of steps."""
    p_any: float | None
    """P of any lasting fall, named or not: the smallest of the last step's p. None where nothing was tested."""


def regressed_since(
    steps: Scores, *, clusters: Sequence[Hashable] | None = None, seed: int = 0, alpha: float = 0.05
) -> Regression:
    """Since which step a run is worse than it was before.

    Definition: the earliest step k for which there is one earlier step i such that every tested step from k to the end
    is significantly below i. Tested by one-sided max-T over all pairs (earlier, later): which step was the best one so
    far is found in the same data, and a test against it alone would find falls where there is only luck. If no step is
    below an earlier one, the chance of naming any is at most `alpha`. A dip from which the run recovers is none.

    Args:
        steps: Item means, shape (n_steps, n_items); NaN where an item is missing.
        clusters: The cluster of each item, shape (n_items,).
        seed: Of the sign flips.
        alpha: Level of the whole family of pairs.
    """
    steps = np.asarray(steps, dtype=np.float64)
    there = [step for step in range(len(steps)) if not np.isnan(steps[step]).all()]
    pairs = [(i, j) for i in there for j in there if i < j]
    if not pairs:
        return Regression(since=None, below=None, p_adjusted=None, p_any=None)
    family = max_t(steps, pairs, clusters=clusters, alternative="less", seed=seed)
    p = dict(zip(pairs, family.p_adjusted.tolist(), strict=True))
    best: tuple[int, float, int] | None = None
    for i in there[:-1]:
        since = None
        for j in reversed(there):
            # A pair that cannot be tested (NaN) shows no fall.
            if j <= i or not p[i, j] <= alpha:
                break
            since = j
        if since is not None:
            fall = (since, -float(np.nanmean(steps[i])), i)
            best = min(best, fall) if best else fall
    # Whatever falls for good has its last step below an earlier one, and that alone is a fall since the last step.
    p_any = min((p[i, there[-1]] for i in there[:-1] if not math.isnan(p[i, there[-1]])), default=None)
    if best is None:
        return Regression(since=None, below=None, p_adjusted=None, p_any=p_any)
    since, _, below = best
    p_adjusted = max(p[below, j] for j in there if j >= since)
    return Regression(since=since, below=below, p_adjusted=p_adjusted, p_any=p_any)


def lost_since(better: Sequence[StepTest], regression: Regression, alpha: float = 0.05) -> int | None:
    """Since which step a run is no longer better than its start, though it was.

    Definition: a step before the regression was significantly better than the start (`first_better`), and from the
    step that is returned to the end none is. That a step is not significantly better is no evidence of a loss; the
    regression is, and it is asked for as well. Each of the two families has its own level `alpha`.

    Args:
        better: The tests of `first_better`.
        regression: What `regressed_since` found in the same run.
        alpha: Level of `better`.
    """
    if regression.since is None or regression.below is None:
        return None
    good = [step for step, test in enumerate(better) if test.p_adjusted is not None and test.p_adjusted <= alpha]
    if regression.below not in good:
        return None
    tested = [step for step, test in enumerate(better) if test.p_adjusted is not None]
    after = [step for step in tested if step > good[-1] and step >= regression.since]
    return after[0] if after else None


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P-values corrected by Holm: 5 % is the chance of any false finding. For gates. None stays None.

    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    return _corrected(p, "holm")


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """P-values corrected by Benjamini and Hochberg: 5 % is the share of false ones among the findings. None stays None.

    >>> benjamini_hochberg([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    return _corrected(p, "fdr_bh")


def _corrected(p: Sequence[float | None], method: str) -> list[float | None]:
    # Half a second, which a step that corrects nothing need not wait.
    from statsmodels.stats.multitest import multipletests

    known = [value for value in p if value is not None]
    if not all(0 <= value <= 1 for value in known):
        raise StatsError("A p-value lies between 0 and 1; None stands for a test that could not be made.")
    corrected = iter(multipletests(known, method=method)[1].tolist() if known else [])
    return [None if value is None else next(corrected) for value in p]


def _paired_test(
    a: Scores, b: Scores, common: np.ndarray, clusters: Sequence[Hashable] | None, single: bool, seed: int
) -> tuple[float, str]:
    both = np.concatenate([a[common], b[common]])
    if single and clusters is None and bool(np.isin(both, (0.0, 1.0)).all()):
        from scipy.stats import binomtest

        gained, lost = int((b > a)[common].sum()), int((b < a)[common].sum())
        # Given that an item differs, either side is as likely: McNemar's exact test.
        return (float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0), "exact McNemar"
    family = max_t(np.stack([a, b]), [(0, 1)], clusters=clusters, seed=seed)
    return float(family.p_adjusted[0]), "sign-flip" if clusters is None else "sign-flip by cluster"


def _note(d: Scores, labels: Sequence[int] | None) -> str | None:
    """Why a number is missing, or why p cannot be small; `labels` are the clusters of the differences."""
    unit = "item" if labels is None else "cluster"
    sums = d if labels is None else np.bincount(labels, weights=d)
    moving = int((np.abs(sums) > TIE).sum())
    if len(sums) < 2:
        return f"one {unit}"
    if not (np.abs(d) > TIE).any():
        return "no item differs"
    if np.ptp(d) <= TIE:
        return "every item differs by the same amount"
    if moving <= 5:
        # Of 2^5 equally likely flips, two are as extreme as the most extreme: p = 0.06.
        return f"{moving} of {len(sums)} {unit}s differ, too few for p ≤ .05"
    return None


def _without_numbers(n_a: int, n_b: int, n_common: int) -> Comparison:
    return Comparison(
        n_a=n_a,
        n_b=n_b,
        n_common=n_common,
        value_a=None,
        value_b=None,
        delta=None,
        stderr=None,
        ci95=None,
        p=None,
        test=None,
        detectable=None,
        better=0,
        worse=0,
        note=LESS_THAN_HALF if n_a and n_b else "no scores",
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

"""A judge's error: what judged answers are truly worth, from labels on some of them, with both errors in the interval.

A judge that is right in 9 of 10 cases makes a checkpoint of .95 look like .86 and one of .05 like .14. Labels by people (or
by a judge held for better) on a seeded sample of the very answers that were judged tell how it errs. Every judged number
gets a corrected twin with an interval that carries the judge's error, the labels' small number, and the items'.
docs/statistics.md has the simulations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from milepost.errors import StatsError
from milepost.records import Estimate
from milepost.statistics.intervals import Bounds
from milepost.statistics.means import UNDEFINED, mean_estimate, ratio_estimate
from milepost.statistics.student import t_quantile

Numbers = npt.NDArray[np.float64]

# Fewer labels than this leave no degree of freedom for an error.
FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A judged number made right by labels.

    Attributes:
        estimate: The number with its standard error and 95 % interval.
        judged: What the judge alone says: the mean verdict.
        labels: How many labels it rests on.
        informative: Whether the labels show that the judge tells right from wrong. Where they do not, the number is that
            of the labels alone.
        label_variance: The part of the variance that more labels would narrow.
        item_variance: The part that more judged answers would narrow.
        df: Degrees of freedom of the interval.
    """

    estimate: Estimate
    judged: float
    labels: int
    informative: bool
    label_variance: float
    item_variance: float
    df: int


def correct_verdicts(
    verdicts: Sequence[float], labels: Sequence[float | None], *, by_verdict: bool = False
) -> Corrected:
    """The share of answers that are right, from verdicts of 0 and 1 on all of them and labels of 0 and 1 on some.

    By strata of the verdict: θ = Σ π_v·m_v, π_v the share of verdict v among all answers and m_v the share of right ones
    among those of verdict v that have a label, half a right and half a wrong label added. It holds however the judge errs,
    for labels drawn at random and for labels drawn by verdict.

    Args:
        verdicts: Of every judged answer, shape (n_answers,).
        labels: Of the same answers; None where there is none.
        by_verdict: The labels were drawn by verdict, so that their plain mean is not that of the answers.

    Raises:
        StatsError: A verdict or label is not 0 or 1, the sequences differ in length, or there are fewer than 3 labels.

    >>> found = correct_verdicts([1, 1, 0, 0] * 25, ([1, 1, 0, 1] + [None] * 4) * 12 + [None] * 4)
    >>> round(found.estimate["value"], 2), found.judged, found.labels
    (0.74, 0.5, 48)
    """
    judged, known, label = _arrays(verdicts, labels)
    if not (np.isin(judged, (0, 1)).all() and np.isin(label, (0, 1)).all()):
        raise StatsError("A verdict or label is neither 0 nor 1. Graded verdicts are corrected by `correct_grades`.")
    shares, right, counts = np.empty(2), np.empty(2), np.empty(2)
    for verdict in (0, 1):
        mine = label[judged[known] == verdict]
        counts[verdict] = len(mine)
        shares[verdict] = (judged == verdict).mean()
        right[verdict] = (mine.sum() + 0.5) / (len(mine) + 1)
    spread = right * (1 - right) / (counts + 1)
    df = len(label) - 2
    label_variance = float((shares**2 * spread).sum())
    item_variance = float(right[judged.astype(int)].var(ddof=1) / len(judged)) if len(judged) > 1 else 0.0
    informative = bool(right[1] - right[0] > t_quantile(df) * math.sqrt(spread.sum()))
    if not informative and not by_verdict:
        return _of_labels(judged, label, (0.0, 1.0))
    return Corrected(
        estimate=_estimate(float((shares * right).sum()), label_variance + item_variance, df, (0.0, 1.0)),
        judged=float(judged.mean()),
        labels=len(label),
        informative=informative,
        label_variance=label_variance,
        item_variance=item_variance,
        df=df,
    )


def correct_grades(
    verdicts: Sequence[float],
    labels: Sequence[float | None],
    *,
    drawn: Sequence[float] | None = None,
    bounds: Bounds | None = None,
) -> Corrected:
    """The mean of graded labels, from graded verdicts on all answers and labels on some: a regression estimator.

    Mean label + b · (mean verdict of all - mean verdict of the labelled), b the least-squares slope of label on verdict.

    Args:
        verdicts: Of every judged answer, shape (n_answers,).
        labels: Of the same answers; None where there is none.
        drawn: For each answer, the share of its stratum that was labelled; None if labels were drawn at random.
        bounds: The lowest and the highest label; the interval is cut to them.

    Raises:
        StatsError: The sequences differ in length, or there are fewer than 3 labels.

    Source: Cochran (1977), Sampling Techniques, 7.3 (two-phase sampling).
    """
    judged, known, label = _arrays(verdicts, labels)
    weights = np.ones(len(label)) if drawn is None else 1 / np.asarray(drawn, dtype=np.float64)[known]
    fit = _regress(judged[known], label, weights)
    value = fit.mean + fit.slope * (float(judged.mean()) - fit.mean_verdict)
    item_variance = float(fit.slope**2 * judged.var(ddof=1) / len(judged)) if len(judged) > 1 else 0.0
    if not fit.informative and drawn is None:
        return _of_labels(judged, label, bounds)
    return Corrected(
        estimate=_estimate(value, fit.variance + item_variance, fit.df, bounds),
        judged=float(judged.mean()),
        labels=len(label),
        informative=fit.informative,
        label_variance=fit.variance,
        item_variance=item_variance,
        df=fit.df,
    )


def correct_difference(
    a: Corrected, b: Corrected, predicted_a: Sequence[float], predicted_b: Sequence[float], span: float = 1.0
) -> Estimate:
    """The corrected difference b - a of two checkpoints that were judged on the same items.

    Args:
        a: The corrected number of the first.
        b: That of the second.
        predicted_a: For each common item, what its verdict lets expect of the first's answer (`predict`).
        predicted_b: The same of the second, shape (n_items,).
        span: Highest less lowest label.

    Raises:
        StatsError: The items differ in number, or are fewer than two.
    """
    if len(predicted_a) != len(predicted_b) or len(predicted_a) < 2:
        raise StatsError(
            f"Two checkpoints are compared on common items; there are {len(predicted_a)} and {len(predicted_b)}."
        )
    if a.estimate["value"] is None or b.estimate["value"] is None:
        return UNDEFINED
    d = np.asarray(predicted_b, dtype=np.float64) - np.asarray(predicted_a, dtype=np.float64)
    variance = a.label_variance + b.label_variance + float(d.var(ddof=1) / len(d))
    return _estimate(b.estimate["value"] - a.estimate["value"], variance, a.df + b.df, (-span, span))


def predict(verdicts: Sequence[float], labels: Sequence[float | None]) -> Numbers:
    """For each judged answer what labels on answers with the same verdict (0 or 1) let expect, shape (n_answers,)."""
    judged, known, label = _arrays(verdicts, labels)
    right = np.empty(2)
    for verdict in (0, 1):
        mine = label[judged[known] == verdict]
        right[verdict] = (mine.sum() + 0.5) / (len(mine) + 1)
    expected: Numbers = right[judged.astype(int)]
    return expected


@dataclass(frozen=True, kw_only=True)
class JudgeRates:
    """How a judge errs: how often it sees that an answer is right, and that one is wrong, each with its variance."""

    sensitivity: float
    specificity: float
    variance_sensitivity: float
    variance_specificity: float
    labels: int

    @property
    def informed(self) -> float:
        """Youden's J: 1 for a judge that never errs, 0 for one that guesses."""
        return self.sensitivity + self.specificity - 1


def pooled_rates(
    verdicts: Sequence[float], labels: Sequence[float], drawn: Sequence[float] | None = None
) -> JudgeRates:
    """One sensitivity and specificity of a judge from the labels of many checkpoints.

    Right only while the judge errs alike on all of them: say so beside a number that is made of it.

    Args:
        verdicts: Of labelled answers, shape (n_labels,).
        labels: Theirs.
        drawn: For each, the share of its stratum that was labelled; None if labels were drawn at random. Labels drawn by
            verdict without it give rates that are far off.

    Raises:
        StatsError: There are fewer than two right or two wrong answers among the labelled.
    """
    judged, _, label = _arrays(verdicts, labels)
    weights = np.ones(len(label)) if drawn is None else 1 / np.asarray(drawn, dtype=np.float64)
    rates = []
    for right in (1.0, 0.0):
        mine = label == right
        if mine.sum() < 2:
            raise StatsError(f"{int(mine.sum())} of the labels are {right:g}; a judge's rates need two of either kind.")
        agrees = (judged[mine] == right) * weights[mine]
        ratio = ratio_estimate(agrees.tolist(), weights[mine].tolist())
        # A judge that never erred among few labels may err all the same: half an error more.
        n_eff = weights[mine].sum() ** 2 / (weights[mine] ** 2).sum()
        rate = ((ratio["value"] or 0.0) * n_eff + 0.5) / (n_eff + 1)
        rates.append((rate, max((ratio["stderr"] or 0.0) ** 2, rate * (1 - rate) / (n_eff + 1))))
    (sensitivity, first), (specificity, second) = rates
    return JudgeRates(
        sensitivity=sensitivity,
        specificity=specificity,
        variance_sensitivity=first,
        variance_specificity=second,
        labels=len(label),
    )


def correct_by_rates(verdicts: Sequence[float], rates: JudgeRates) -> Estimate:
    """The share of right answers from verdicts of 0 and 1 and a judge's rates: (p + q0 - 1)/(q0 + q1 - 1).

    Raises:
        StatsError: No verdicts, or a judge that does no better than guessing.

    Source: Rogan and Gladen (1978), Am. J. Epidemiol. 107.
    """
    judged = np.asarray(verdicts, dtype=np.float64)
    _check_rates(rates, len(judged))
    j = rates.informed
    value = (float(judged.mean()) + rates.specificity - 1) / j
    variance = judged.var(ddof=1) / len(judged) if len(judged) > 1 else 0.0
    variance += value**2 * rates.variance_sensitivity + (1 - value) ** 2 * rates.variance_specificity
    return _estimate(value, float(variance) / j**2, rates.labels - 2, (0.0, 1.0))


def correct_difference_by_rates(a: Sequence[float], b: Sequence[float], rates: JudgeRates) -> Estimate:
    """The difference b - a of two checkpoints on the same items, from verdicts and one judge's rates for both.

    Raises:
        StatsError: The items differ in number, or the judge does no better than guessing.
    """
    if len(a) != len(b):
        raise StatsError(f"Two checkpoints are compared on common items; there are {len(a)} and {len(b)}.")
    _check_rates(rates, len(a))
    d, j = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64), rates.informed
    value = float(d.mean()) / j
    variance = float(d.var(ddof=1) / len(d)) if len(d) > 1 else 0.0
    variance += value**2 * (rates.variance_sensitivity + rates.variance_specificity)
    return _estimate(value, variance / j**2, rates.labels - 2, (-1.0, 1.0))


def width_with(found: Corrected, labels: int) -> float:
    """How wide a corrected number's interval would be with so many labels, drawn as these were, before it is cut.

    Raises:
        StatsError: Fewer than 3 labels.
    """
    if labels < FEWEST:
        raise StatsError(f"{labels} labels leave nothing for an error; {FEWEST} are the fewest.")
    variance = found.label_variance * found.labels / labels + found.item_variance
    return 2 * t_quantile(labels - 2) * math.sqrt(variance)


def judging_variance(repeats: Sequence[Sequence[float]]) -> float | None:
    """The variance of a verdict when the same answer is judged again: the mean over answers that were.

    Args:
        repeats: The verdicts on each answer; answers with a single one say nothing.

    >>> judging_variance([[1, 1], [0, 1], [1]])
    0.25
    """
    within = [float(np.var(again, ddof=1)) for again in repeats if len(again) > 1]
    return math.fsum(within) / len(within) if within else None


@dataclass(frozen=True)
class _Fit:
    mean: float
    mean_verdict: float
    slope: float
    variance: float
    df: int
    informative: bool


def _regress(verdict: Numbers, label: Numbers, weights: Numbers) -> _Fit:
    """Fit labels to verdicts by weighted least squares; with the variance of what the verdicts do not explain."""
    share = weights / weights.sum()
    mean, mean_verdict = float(share @ label), float(share @ verdict)
    squares = float(share @ (verdict - mean_verdict) ** 2)
    slope = float(share @ ((verdict - mean_verdict) * (label - mean))) / squares if squares > 0 else 0.0
    rest = label - mean - slope * (verdict - mean_verdict)
    n, df = len(label), len(label) - 2
    variance = float((share**2) @ rest**2) * n / df
    # The slope's own error, robust as the mean's.
    spread = (
        math.sqrt(float((share**2) @ (rest * (verdict - mean_verdict)) ** 2) * n / df) / squares if squares > 0 else 0
    )
    return _Fit(mean, mean_verdict, slope, variance, df, squares > 0 and slope > t_quantile(df) * spread)


def _arrays(
    verdicts: Sequence[float], labels: Sequence[float | None]
) -> tuple[Numbers, npt.NDArray[np.bool_], Numbers]:
    """All verdicts, which answers have a label, and those labels."""
    if len(verdicts) != len(labels):
        raise StatsError(
            f"{len(verdicts)} verdicts and {len(labels)} labels were given; each answer has its place in both."
        )
    known = np.array([label is not None for label in labels], dtype=bool)
    if known.sum() < FEWEST:
        raise StatsError(
            f"{known.sum()} answers have a label; a judge's error takes {FEWEST} at least, and 30 to be of use."
        )
    return (
        np.asarray(verdicts, dtype=np.float64),
        known,
        np.array([label for label in labels if label is not None], dtype=np.float64),
    )


def _of_labels(judged: Numbers, label: Numbers, bounds: Bounds | None) -> Corrected:
    """The labels' own mean, where the judge adds nothing to it."""
    estimate = mean_estimate(label.tolist(), bounds=bounds)
    return Corrected(
        estimate=estimate,
        judged=float(judged.mean()),
        labels=len(label),
        informative=False,
        label_variance=(estimate["stderr"] or 0.0) ** 2,
        item_variance=0.0,
        df=len(label) - 1,
    )


def _estimate(value: float, variance: float, df: int, bounds: Bounds | None) -> Estimate:
    low, high = bounds or (-math.inf, math.inf)
    stderr = math.sqrt(variance)
    half = t_quantile(df) * stderr
    ends = (max(low, value - half), min(high, value + half))
    return Estimate(value=min(max(value, low), high), stderr=stderr, ci95=(min(ends[0], high), max(ends[1], low)))


def _check_rates(rates: JudgeRates, n: int) -> None:
    if not n:
        raise StatsError("There are no verdicts.")
    if rates.informed <= 0:
        raise StatsError(
            f"The judge sees {rates.sensitivity:.0%} of the right and {rates.specificity:.0%} of the wrong answers: no "
            "better than guessing, and its verdicts cannot be corrected. Use the labels alone, or another judge."
        )

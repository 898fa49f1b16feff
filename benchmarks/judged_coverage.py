"""Simulations of judged numbers that labels correct. `simulations.py` prints them as tables."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from interval_coverage import Array, Intervals, Row, mean_width, share_covering

from milepost.errors import StatsError
from milepost.statistics.intervals import UNIT
from milepost.statistics.judge_error import (
    correct_by_rates,
    correct_difference,
    correct_difference_by_rates,
    correct_grades,
    correct_verdicts,
    pooled_rates,
    predict,
)
from milepost.statistics.means import mean_estimate

Labels = list[float | None]


def verdict_coverage(
    rounds: int,
    *,
    labels: Sequence[int] = (30, 100, 300),
    judges: Sequence[tuple[float, float]] = ((0.6, 0.6), (0.8, 0.95), (0.95, 0.7), (0.98, 0.98)),
    truths: Sequence[float] = (0.05, 0.3, 0.7, 0.95),
) -> Iterator[Row]:
    """Coverage of a judged share of 500 answers, corrected by strata of the verdict; labels at random and by verdict.

    Beside it the labels alone, what the judge says as it is, and Rogan and Gladen's form.
    """
    rng = np.random.default_rng(21)
    for n, (sensitivity, specificity), truth in itertools.product(labels, judges, truths):
        found: dict[str, list[tuple[float, float] | None]] = {
            name: [] for name in ("at random", "by verdict", "labels", "raw", "rates")
        }
        for _ in range(rounds):
            right, verdicts = judge(rng, truth, sensitivity, specificity, 500)
            random, balanced = draw(rng, n, len(right)), draw_by_verdict(rng, n, verdicts)
            found["at random"].append(correct_verdicts(verdicts, only(right, random)).estimate["ci95"])
            found["by verdict"].append(
                correct_verdicts(verdicts, only(right, balanced), by_verdict=True).estimate["ci95"]
            )
            found["labels"].append(mean_estimate(right[random].tolist(), bounds=UNIT)["ci95"])
            found["raw"].append(mean_estimate(verdicts, bounds=UNIT)["ci95"])
            found["rates"].append(by_rates(verdicts, right, random))
        # The answers are a sample, too: the truth is that of the model.
        row: Row = {"labels": n, "sensitivity": sensitivity, "specificity": specificity, "truth": truth}
        row |= {f"coverage, {name}": share_covering(truth, ends) for name, ends in found.items() if name != "rates"}
        row["coverage, by rates"] = share_of_defined(truth, found["rates"])
        row |= {f"width, {name}": mean_width(found[name]) for name in ("at random", "by verdict", "labels")}
        yield row


def grade_coverage(rounds: int, *, labels: Sequence[int] = (20, 50, 200)) -> Iterator[Row]:
    """Coverage of a mean of graded labels, from graded verdicts on 500 answers; the judge is biased and noisy."""
    rng = np.random.default_rng(22)
    for n, mean, noise in itertools.product(labels, (0.3, 0.6, 0.9), (0.05, 0.15)):
        ours: list[tuple[float, float] | None] = []
        alone: list[tuple[float, float] | None] = []
        weighted: list[tuple[float, float] | None] = []
        for _ in range(rounds):
            size = mean * (1 - mean) / 0.15**2 - 1
            truth = rng.beta(mean * size, (1 - mean) * size, size=500)
            verdicts = np.clip(0.2 + 0.7 * truth + rng.normal(0, noise, size=500), 0, 1)
            random = draw(rng, n, 500)
            ours.append(correct_grades(verdicts.tolist(), only(truth, random), bounds=UNIT).estimate["ci95"])
            alone.append(mean_estimate(truth[random].tolist(), bounds=UNIT)["ci95"])
            high = verdicts >= np.median(verdicts)
            # Three labels in four where the judge is strict.
            share = np.where(high, 0.5 * n / high.sum(), 1.5 * n / (500 - high.sum()) / 1.0)
            share = np.minimum(share * n / share.sum(), 1.0)
            chosen = np.flatnonzero(rng.uniform(size=500) < share)
            weighted.append(
                correct_grades(verdicts.tolist(), only(truth, chosen), drawn=share.tolist(), bounds=UNIT).estimate[
                    "ci95"
                ]
            )
        yield {
            "labels": n,
            "mean": mean,
            "judge's noise": noise,
            "coverage": share_covering(mean, ours),
            "coverage, stratified": share_covering(mean, weighted),
            "labels alone": share_covering(mean, alone),
            "width": mean_width(ours),
            "width, labels": mean_width(alone),
        }


def run_coverage(
    rounds: int, *, drifts: Sequence[float] = (0.0, 0.1, 0.3), steps: int = 10, labels: int = 30
) -> Iterator[Row]:
    """A run of ten checkpoints on 300 items, 30 labels each by verdict: the last one's share and its gain on the first.

    The judge's sensitivity falls along the run by the drift. Corrected each by its own labels, and by rates pooled over the
    run, which hold only while the judge errs alike everywhere.
    """
    rng = np.random.default_rng(23)
    for drift in drifts:
        found: dict[str, list[tuple[float, float] | None]] = {
            name: [] for name in ("share", "gain", "pooled share", "pooled gain", "raw gain")
        }
        truth = np.linspace(0.4, 0.6, steps)
        for _ in range(rounds):
            difficulty = rng.uniform(size=300)
            runs = []
            for step in range(steps):
                # Items stay what they are: a better checkpoint solves what the others did, and more.
                right = (difficulty + rng.normal(0, 0.1, size=300) < truth[step]).astype(float)
                _, verdicts = judge(rng, truth[step], 0.9 - drift * step / (steps - 1), 0.85, 300, right=right)
                chosen = draw_by_verdict(rng, labels, verdicts)
                runs.append((verdicts, only(right, chosen)))
            (first, first_labels), (last, last_labels) = runs[0], runs[-1]
            a = correct_verdicts(first, first_labels, by_verdict=True)
            b = correct_verdicts(last, last_labels, by_verdict=True)
            found["share"].append(b.estimate["ci95"])
            found["gain"].append(
                correct_difference(a, b, predict(first, first_labels), predict(last, last_labels))["ci95"]
            )
            verdicts, known, drawn = pooled(runs)
            rates = pooled_rates(verdicts, known, drawn)
            found["pooled share"].append(correct_by_rates(last, rates)["ci95"])
            found["pooled gain"].append(correct_difference_by_rates(first, last, rates)["ci95"])
            found["raw gain"].append(mean_estimate((np.array(last) - np.array(first)).tolist(), bounds=(-1, 1))["ci95"])
        # With noise of .1 on a uniform difficulty, far from its ends, the threshold is the share.
        last_share, gain = float(truth[-1]), float(truth[-1] - truth[0])
        row: Row = {"drift": drift}
        row |= {
            f"{name}": share_covering(last_share if "share" in name else gain, ends) for name, ends in found.items()
        }
        row |= {f"width, {name}": mean_width(found[name]) for name in ("share", "pooled share", "gain", "pooled gain")}
        yield row


def judge(
    rng: np.random.Generator,
    truth: float,
    sensitivity: float,
    specificity: float,
    n: int,
    *,
    right: Array | None = None,
) -> tuple[Array, list[float]]:
    """Answers that are right or wrong, and what a judge says of each."""
    right = rng.binomial(1, truth, size=n).astype(float) if right is None else right
    says = rng.uniform(size=n) < np.where(right == 1, sensitivity, 1 - specificity)
    return right, says.astype(float).tolist()


def draw(rng: np.random.Generator, n: int, of: int) -> Array:
    """Places of answers to label, at random."""
    return rng.permutation(of)[:n]


def draw_by_verdict(rng: np.random.Generator, n: int, verdicts: Sequence[float]) -> Array:
    """Places of answers to label, half of each verdict as far as there are."""
    order = rng.permutation(len(verdicts))
    given = np.array(verdicts)[order]
    right, wrong = order[given == 1], order[given == 0]
    most = max(min(n // 2, len(right)), n - len(wrong))
    return np.concatenate([right[:most], wrong[: n - most]])


def only(values: Array, places: Array) -> Labels:
    """Labels at these places, None elsewhere."""
    found: Labels = [None] * len(values)
    for place in places.tolist():
        found[place] = float(values[place])
    return found


def by_rates(verdicts: Sequence[float], right: Array, places: Array) -> tuple[float, float] | None:
    """Rogan and Gladen's interval, where the labels let it be made."""
    try:
        rates = pooled_rates([verdicts[place] for place in places.tolist()], right[places].tolist())
        return correct_by_rates(verdicts, rates)["ci95"]
    except StatsError:
        return None


def pooled(runs: Sequence[tuple[Sequence[float], Labels]]) -> tuple[list[float], list[float], list[float]]:
    """All labels of a run with their verdicts, and the share of its stratum that each was drawn with."""
    verdicts: list[float] = []
    known: list[float] = []
    drawn: list[float] = []
    for said, labels in runs:
        for verdict in (0.0, 1.0):
            places = [place for place, one in enumerate(said) if one == verdict]
            mine = [place for place in places if labels[place] is not None]
            verdicts += [verdict] * len(mine)
            known += [label for place in mine if (label := labels[place]) is not None]
            drawn += [len(mine) / len(places)] * len(mine)
    return verdicts, known, drawn


def share_of_defined(truth: float, intervals: Intervals) -> float:
    """Share of the defined intervals that hold the truth; NaN where none is."""
    known = [ends for ends in intervals if ends is not None]
    return share_covering(truth, known) if known else float("nan")

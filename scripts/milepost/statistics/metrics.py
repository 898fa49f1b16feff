"""Describes a scorer's metrics: name, direction, range, and how scores are reduced to the number."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from milepost.errors import RecordError
from milepost.records import Better, Estimate, Scale, Score, Summary
from milepost.statistics.intervals import UNIT, Bounds
from milepost.statistics.means import UNDEFINED, mean_estimate, ratio_estimate

# What is known of a number that nobody describes: a harness's, mostly.
PLAIN = Scale(better="higher", range=None)


@dataclass(frozen=True)
class Samples:
    """The samples of one metric that could be read, item by item; an item without one is left out.

    Attributes:
        values: By item's id, the value of each sample.
        weights: By item's id, the weight of each sample; 1 where the scorer gave none.
        clusters: By item's id, what items that are not independent of each other share; others are missing here.
    """

    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)

    @property
    def cluster_list(self) -> list[str] | None:
        """The cluster of each item in `values`, or None if no item names one; an item without a cluster is its own cluster."""
        return [self.clusters.get(item, item) for item in self.values] if self.clusters else None


def mean_of(metric: Metric, samples: Samples) -> Estimate:
    """The mean over items, each of which is the mean of its samples.

    >>> mean_of(Metric("right"), Samples({"a": [1, 0], "b": [1]}))["value"]
    0.75
    """
    values = [_mean(item) for item in samples.values.values()]
    return mean_estimate(values, clusters=samples.cluster_list, bounds=metric.range)


def ratio_of(metric: Metric, samples: Samples) -> Estimate:
    """The sum of weight times value over the sum of weights, such as instructions followed, or a weighted win rate.

    An item's part of either sum is the mean of its samples'.

    >>> ratio_of(Metric("followed"), Samples({"a": [0.5], "b": [1.0]}, {"a": [4], "b": [1]}))["value"]
    0.6
    """
    weights = {item: samples.weights.get(item, [1.0] * len(values)) for item, values in samples.values.items()}
    tops = [
        _mean([value * weight for value, weight in zip(values, weights[item], strict=True)])
        for item, values in samples.values.items()
    ]
    whole = [_mean(weights[item]) for item in samples.values]
    return ratio_estimate(tops, whole, clusters=samples.cluster_list, bounds=metric.range)


def clipped_mean_of(metric: Metric, samples: Samples) -> Estimate:
    """The mean over items, cut to the metric's range; the items themselves may lie outside.

    >>> clipped_mean_of(Metric("points met"), Samples({"a": [-1.0], "b": [0.4]}))["value"]
    0.0
    """
    low, high = metric.range or (-math.inf, math.inf)
    values = [_mean(item) for item in samples.values.values()]
    plain = mean_estimate(values, clusters=samples.cluster_list)

    def cut(number: float) -> float:
        return min(max(number, low), high)

    if plain["value"] is None:
        return plain
    ci95 = None if plain["ci95"] is None else (cut(plain["ci95"][0]), cut(plain["ci95"][1]))
    return Estimate(value=cut(plain["value"]), stderr=plain["stderr"], ci95=ci95)


def constant_of(metric: Metric, samples: Samples) -> Estimate:
    """The mean over items of what was worked out from them and not measured, such as a blind guess: it has no error.

    >>> constant_of(Metric("chance"), Samples({"a": [0.25], "b": [0.5]}))
    {'value': 0.375, 'stderr': None, 'ci95': None}
    """
    if not samples.values:
        return UNDEFINED
    return Estimate(value=_mean([_mean(item) for item in samples.values.values()]), stderr=None, ci95=None)


def fitted(metric: Metric, samples: Samples) -> Estimate:
    """Placeholder for metrics that are fitted to all answers at once: their scorer has its own `reduce`.

    Raises:
        NotImplementedError: The scorer does not.
    """
    del samples
    raise NotImplementedError(f"{metric.name} is made of all answers at once: its scorer needs a `reduce` of its own.")


@dataclass(frozen=True)
class Metric:
    """One number that a scorer reports.

    Attributes:
        name: Its key in `metrics` of each score.
        better: Whether higher or lower values are better.
        range: The lowest and the highest value that it can take; None where it has no bounds.
        reduce: Makes the number, with its error, of the samples: `mean_of`, `ratio_of`, `clipped_mean_of`, `constant_of`, or
            a function of the scorer's own; `fitted` where the scorer makes it of all answers at once.
    """

    name: str
    better: Better = "higher"
    range: Bounds | None = UNIT
    reduce: Callable[[Metric, Samples], Estimate] = mean_of

    @property
    def scale(self) -> Scale:
        """Direction and range, as a summary tells them."""
        return Scale(better=self.better, range=self.range)

    def estimate(self, samples: Samples) -> Estimate:
        """The number that the samples make, with its error."""
        return self.reduce(self, samples)

    @property
    def is_mean(self) -> bool:
        """Whether it is the plain mean over items, so that its variance can be split."""
        return self.reduce is mean_of


def reduce_scores(metrics: Iterable[Metric], scores: Sequence[Score]) -> dict[str, Estimate]:
    """Reduce the scores to an estimate for each metric, each from its own samples: the default of all scorers.

    >>> scores = [{"id": "a", "sample": 0, "score": 1.0, "metrics": {"right": 1.0}}]
    >>> reduce_scores([Metric("right")], scores)["right"]["value"]
    1.0
    """
    clusters = clusters_of(scores)
    return {metric.name: metric.estimate(samples_of(metric.name, scores, clusters)) for metric in metrics}


def samples_of(name: str, scores: Iterable[Score], clusters: Mapping[str, str]) -> Samples:
    """The samples of one metric that could be read."""
    values: dict[str, list[float]] = defaultdict(list)
    weights: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        value = score["metrics"].get(name)
        if value is not None:
            values[score["id"]].append(value)
            weights[score["id"]].append(score.get("weights", {}).get(name, 1.0))
    return Samples(dict(values), dict(weights), clusters)


def clusters_of(scores: Iterable[Score]) -> dict[str, str]:
    """The cluster of each item that names one.

    Raises:
        RecordError: Two samples of one item name different clusters.
    """
    clusters: dict[str, str] = {}
    for score in scores:
        if "cluster" in score:
            cluster = clusters.setdefault(score["id"], score["cluster"])
            if cluster != score["cluster"]:
                raise RecordError(
                    f"Item {score['id']!r} is in the clusters {cluster!r} and {score['cluster']!r}. An item belongs to "
                    "one: correct the task's data."
                )
    return clusters


def scale_of(summary: Summary | Mapping[str, Any], metric: str | None = None) -> Scale:
    """Direction and range of a number in a summary, of the headline if none is named; higher is better if unsaid.

    >>> scale_of({"metric": "wrong", "scales": {"wrong": {"better": "lower", "range": [0, 1]}}})["better"]
    'lower'
    """
    scales: Mapping[str, Scale] = summary.get("scales", {})
    return scales.get(metric or summary["metric"], PLAIN)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

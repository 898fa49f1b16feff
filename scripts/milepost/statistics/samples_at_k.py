"""What k samples of an item are worth: the best of them (pass@k), the worst (pass^k), and their majority (maj@k).

All are expected values over k samples drawn without replacement from the N that an item has: exact, no draw is made. With
scores of 0 and 1, c of N of them right, pass@k is 1 - C(N-c, k)/C(N, k) and pass^k is C(c, k)/C(N, k); of graded scores
they are the expected highest and lowest score.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from milepost.errors import StatsError
from milepost.records import Estimate, Score
from milepost.statistics.means import mean_estimate
from milepost.statistics.metrics import Metric

BEST, ALL, MAJORITY = "pass@", "pass^", "maj@"


def names_at(ks: Iterable[int], *, votes: bool = True) -> list[str]:
    """Names of the numbers for each k; `votes` says whether answers can be grouped.

    >>> names_at([2])
    ['pass@2', 'pass^2', 'maj@2']
    """
    return [f"{kind}{k}" for k in ks for kind in (BEST, ALL, *([MAJORITY] if votes else []))]


def estimates_at(
    scores: Iterable[Score], metric: Metric, ks: Sequence[int], clusters: Mapping[str, str]
) -> dict[str, Estimate]:
    """Each number for each k as a mean over items, with its interval.

    An item with fewer than k samples that could be read has no such number, and is left out of the mean. maj@k needs
    answers that can be grouped: what the scorer extracted, or which candidate it found an answer to be nearest to.

    Args:
        scores: Of all samples.
        metric: The headline metric, whose values stand in each `score`.
        ks: How many samples are drawn.
        clusters: The cluster of each item that names one.
    """
    values: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[str]] = defaultdict(list)
    votes = False
    for score in scores:
        if score["score"] is None:
            continue
        answer = score.get("extracted") or score.get("winner", {}).get("candidate")
        votes = votes or answer is not None
        values[score["id"]].append(score["score"])
        answers[score["id"]].append(answer or "")
    best, worst = (pass_all, pass_at) if metric.better == "lower" else (pass_at, pass_all)
    estimates = {}
    for k in ks:
        items = [item for item, drawn in values.items() if len(drawn) >= k]
        labels = [clusters.get(item, item) for item in items] if clusters else None
        numbers = {BEST: [best(values[item], k) for item in items], ALL: [worst(values[item], k) for item in items]}
        if votes:
            numbers[MAJORITY] = [majority_at(values[item], answers[item], k) for item in items]
        for kind, means in numbers.items():
            # A number that is cut to its range may be made of items beyond it.
            inside = metric.range and all(metric.range[0] <= mean <= metric.range[1] for mean in means)
            estimates[f"{kind}{k}"] = mean_estimate(means, clusters=labels, bounds=metric.range if inside else None)
    return estimates


def pass_at(scores: Sequence[float], k: int) -> float:
    """Expected highest score of k of the samples.

    Raises:
        StatsError: There are fewer than k samples.

    Source: Chen et al. (2021), arXiv 2107.03374, for scores of 0 and 1.

    >>> pass_at([1, 0, 0, 0], 2)
    0.5
    """
    return _expected_last(sorted(scores), k)


def pass_all(scores: Sequence[float], k: int) -> float:
    """Expected lowest score of k of the samples: of 0 and 1, how often all k are right (pass^k).

    Raises:
        StatsError: There are fewer than k samples.

    >>> pass_all([1, 1, 0, 1], 2)
    0.5
    """
    return _expected_last(sorted(scores, reverse=True), k)


def majority_at(scores: Sequence[float], answers: Sequence[str], k: int) -> float:
    """Expected score of what most of k samples say; answers with equally many votes share.

    Args:
        scores: Of each sample. The answer of several samples has their mean score.
        answers: What the scorer took for each sample's answer; equal ones are votes for the same.
        k: How many vote.

    Raises:
        StatsError: There are fewer than k samples, or not one answer for each.

    >>> majority_at([1, 1, 0, 0, 0], ["4", "4", "5", "6", "7"], 5)
    1.0
    >>> majority_at([1, 0], ["4", "5"], 2)
    0.5
    """
    if len(scores) != len(answers):
        raise StatsError(f"{len(scores)} scores and {len(answers)} answers were given; each sample needs its answer.")
    _check(len(scores), k)
    groups: dict[str, list[float]] = defaultdict(list)
    for score, answer in zip(scores, answers, strict=True):
        groups[answer].append(score)
    # Items with the same votes are many: those on which all samples agree, mostly.
    return _majority(tuple(sorted((len(group), math.fsum(group) / len(group)) for group in groups.values())), k)


def _expected_last(ordered: Sequence[float], k: int) -> float:
    """Expected value of that one of k samples which comes last in this order."""
    n = len(ordered)
    _check(n, k)
    # The i-th is the last if the k - 1 others are among the i before it.
    return math.fsum(score * math.comb(i, k - 1) for i, score in enumerate(ordered)) / math.comb(n, k)


def _check(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise StatsError(f"{k} samples of {n} cannot be drawn. Ask for more samples, or for a smaller k.")


@lru_cache(maxsize=100_000)
def _majority(groups: tuple[tuple[int, float], ...], k: int) -> float:
    """Expected score of the groups with most votes, of (votes, score)."""
    expected = []
    for top in range(1, k + 1):
        # Ways to draw so many in all, so many groups having the top number of votes; beside it their scores summed up.
        ways: dict[tuple[int, int], tuple[int, float]] = {(0, 0): (1, 0.0)}
        for size, score in groups:
            after: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0, 0.0])
            for (drawn, tied), (count, total) in ways.items():
                for votes in range(min(size, top, k - drawn) + 1):
                    times, won = math.comb(size, votes), votes == top
                    state = after[drawn + votes, tied + won]
                    state[0] += count * times
                    state[1] += times * (total + count * score * won)
            ways = {state: (int(count), total) for state, (count, total) in after.items()}
        expected += [total / tied for (drawn, tied), (_, total) in ways.items() if drawn == k and tied]
    return math.fsum(expected) / math.comb(sum(size for size, _ in groups), k)

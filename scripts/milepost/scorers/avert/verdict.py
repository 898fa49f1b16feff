"""Makes A-VERT's verdict: reduces similarities with candidates to one score per group, and decides on a match.

Whatever measures similarity (embeddings here) hands over one number per candidate; whatever reduces a group (the
maximum, the mean, the mean of the highest k) is a function. Neither knows of the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from milepost.errors import ConfigError

Grouping = Callable[[Sequence[float]], float]

CORRECT, WRONG = "correct", "wrong"

# Vectors are of single precision: closer than this, two similarities are the same.
_SAME = 1e-6


@dataclass(frozen=True)
class AvertVerdict:
    """A-VERT's verdict on one answer.

    Attributes:
        shares: The score of each group, in [0, 1], with the sum 1.
        match: Whether the correct group is higher than all others.
        tie: Whether it is among the highest, but not alone.
        winner: The group that is highest; the first of those that are level.
    """

    shares: dict[str, float]
    match: bool
    tie: bool
    winner: str

    @property
    def margin(self) -> float:
        """The correct group's share minus the highest other one, in [-1, 1]."""
        return self.shares[CORRECT] - max(share for group, share in self.shares.items() if group != CORRECT)


def grouping_of(name: str, *, compat: bool = False) -> Grouping:
    """The function that reduces a group: `max`, `mean` or `mean_top_k_K`.

    Args:
        name: Its name.
        compat: Whether the mean of the top k is that of the *first* k, as in the original.

    Raises:
        ConfigError: There is none of this name.

    >>> grouping_of("mean_top_k_2")([0.1, 0.5, 0.3])
    0.4
    """
    if name == "max":
        return max
    if name == "mean":
        return _numpy_mean if compat else _mean
    match = re.fullmatch(r"mean_top_k_([1-9]\d*)", name)
    if match is None:
        raise ConfigError(
            f"There is no grouping {name!r}. Groupings: max, mean, mean_top_k_K with a whole number K from 1 on."
        )
    count = int(match[1])
    if compat:
        return lambda scores: _numpy_mean(scores[:count])
    return lambda scores: _mean(sorted(scores, reverse=True)[:count])


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


def _numpy_mean(scores: Sequence[float]) -> float:
    """The mean, rounded as in the original, because rounding decides whether groups are level."""
    import numpy as np

    return float(np.mean(scores))


def verdict_of(similarities: Mapping[str, Sequence[float]], grouping: Grouping = max) -> AvertVerdict:
    """Make the verdict on one answer from its similarities.

    Args:
        similarities: For each group, how similar each of its candidates is to the answer: `correct` and others.
        grouping: Reduces the similarities of a group to the group's score.

    >>> verdict_of({"correct": [0.2, 0.6], "wrong": [0.4]}).match
    True
    """
    scores = {group: grouping(members) for group, members in similarities.items()}
    highest_other = max(score for group, score in scores.items() if group != CORRECT)
    # Decided on the scores and not on their shares, which lie closer together.
    lead = scores[CORRECT] - highest_other
    winner = max(scores, key=lambda group: scores[group])
    return AvertVerdict(shares_of(scores), match=lead > _SAME, tie=abs(lead) <= _SAME, winner=winner)


def original_verdict_of(similarities: Mapping[str, Sequence[float]], grouping: Grouping = max) -> AvertVerdict:
    """Make the verdict as the original program does: a tie is a match, a refusal never wins, and signs are ignored.

    >>> original_verdict_of({"correct": [-0.1], "wrong": [-0.3]}).match
    False
    """
    scores = {group: grouping(members) for group, members in similarities.items()}
    total = sum(scores.values())
    # As floating-point division goes there: by zero it gives infinities, and nan for 0/0.
    shares = {
        group: score / total if total else (math.nan if score == 0 else math.copysign(math.inf, score))
        for group, score in scores.items()
    }
    match = shares[CORRECT] >= shares[WRONG]
    return AvertVerdict(shares, match=match, tie=shares[CORRECT] == shares[WRONG], winner=CORRECT if match else WRONG)


def shares_of(scores: Mapping[str, float]) -> dict[str, float]:
    """Divide each group's score by the sum over groups, in a way that keeps their order.

    Cosines can be negative; divided by a negative sum they would change order, and by a sum of zero be infinite. If
    any is negative, all are first raised so that the lowest becomes 0: nothing jumps where a cosine crosses 0. If
    nothing is left above 0, all groups share equally.

    >>> shares_of({"correct": 0.75, "wrong": 0.25})
    {'correct': 0.75, 'wrong': 0.25}
    >>> shares_of({"correct": -0.1, "wrong": -0.3})
    {'correct': 1.0, 'wrong': 0.0}
    """
    lowest = min(0.0, *scores.values())
    raised = {group: score - lowest for group, score in scores.items()}
    total = sum(raised.values())
    return {group: score / total if total > 0 else 1 / len(raised) for group, score in raised.items()}

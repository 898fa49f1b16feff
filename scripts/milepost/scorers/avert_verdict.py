"""The verdict of A-VERT: from similarities with candidates to one score per group, and to a match.

Whatever measures similarity (embeddings here) hands over one number per candidate; whatever reduces a group (the
maximum here) is a function. Neither knows of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Grouping = Callable[[Sequence[float]], float]

CORRECT = "correct"

# Vectors are of single precision: closer than this, two similarities are the same.
_SAME = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What A-VERT says of one answer.

    Attributes:
        shares: The score of each group, in [0, 1], with the sum 1.
        match: Whether the correct group is higher than all others.
        tie: Whether it is among the highest, but not alone.
    """

    shares: dict[str, float]
    match: bool
    tie: bool


def verdict_of(similarities: Mapping[str, Sequence[float]], grouping: Grouping = max) -> Verdict:
    """Reduce the similarities of one answer.

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
    return Verdict(shares_of(scores), match=lead > _SAME, tie=abs(lead) <= _SAME)


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

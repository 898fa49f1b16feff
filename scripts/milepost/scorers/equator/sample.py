"""Which questions are evaluated by whom, where not every evaluator marks every answer.

The draw depends on the seed, the questions and the evaluators, never on the student: all checkpoints are marked on the
same questions by the same evaluators, so that their differences stay paired.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence


def draw_evaluators(
    categories: Mapping[str, str], evaluators: Sequence[str], *, questions: float, per_answer: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """Draw questions within each category, and evaluators in turn, so that each gets its share of every category.

    Args:
        categories: The category of each item.
        evaluators: All evaluators.
        questions: Share of each category's questions, in (0, 1]; at least one of each is drawn.
        per_answer: How many evaluators mark an answer.
        seed: Another seed draws others.

    Returns:
        The evaluators of each item that was drawn, in the order of `categories`.

    >>> draw_evaluators({"a": "x", "b": "x", "c": "y"}, ["j", "k"], questions=1, per_answer=1, seed=0)
    {'a': ('j',), 'b': ('k',), 'c': ('j',)}
    """
    members: dict[str, list[str]] = defaultdict(list)
    for item, category in categories.items():
        members[category].append(item)
    drawn: dict[str, tuple[str, ...]] = {}
    turn = 0
    for category in sorted(members):
        ranked = sorted(members[category], key=lambda item: hashlib.sha256(f"{seed}:{item}".encode()).digest())
        for item in ranked[: math.ceil(round(questions * len(ranked), 9))]:
            chosen = {evaluators[(turn + at) % len(evaluators)] for at in range(per_answer)}
            drawn[item] = tuple(name for name in evaluators if name in chosen)
            turn += per_answer
    return {item: drawn[item] for item in categories if item in drawn}

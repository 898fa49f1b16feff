"""Games: two answers to one prompt side by side, the side of each swapped or drawn, and what their labels say."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

_SWAP = str.maketrans("AB", "BA")


@dataclass(frozen=True)
class Game:
    """One comparison: the item, and whether the model under test stands first (as A)."""

    item: str
    model_first: bool

    def sides(self, model: str, baseline: str) -> tuple[str, str]:
        """The two answers as the judge sees them: A, then B."""
        return (model, baseline) if self.model_first else (baseline, model)

    def for_model(self, label: str) -> str:
        """A label as if the model stood first.

        >>> Game("x", model_first=False).for_model("A>>B"), Game("x", model_first=False).for_model("B")
        ('B>>A', 'A')
        """
        return label if self.model_first else swapped(label)


def swapped(label: str) -> str:
    """What a label says when the sides are swapped.

    >>> swapped("A>>B"), swapped("B=A"), swapped("C")
    ('B>>A', 'A=B', 'C')
    """
    return label.translate(_SWAP)


def both_games(item: str) -> tuple[Game, Game]:
    """The two games of an item, the baseline first and the model first."""
    return Game(item, model_first=False), Game(item, model_first=True)


def drawn_game(item: str, seed: int) -> Game:
    """The one game of an item where only one is played: who stands first is drawn by the seed, for each item by itself.

    >>> [drawn_game(item, 0).model_first for item in "abcdef"]
    [False, True, True, False, True, False]
    """
    return Game(item, hashlib.sha256(f"{seed}:{item}".encode()).digest()[0] % 2 == 0)


def score_of(label: str, strong: float = 1.0) -> tuple[float, float]:
    """What a label is worth for A, and how much it weighs: 1 for a win, .5 for a tie, 0; a strong one weighs more.

    >>> score_of("A>>B", strong=3), score_of("A=B"), score_of("B>A"), score_of("B<<A", strong=3), score_of("C")
    ((1.0, 3), (0.5, 1.0), (0.0, 1.0), (1.0, 3), (0.5, 1.0))
    """
    if label in ("A", "B", "C"):
        return {"A": 1.0, "B": 0.0, "C": 0.5}[label], 1.0
    weight = strong if ">>" in label or "<<" in label else 1.0
    if "=" in label:
        return 0.5, 1.0
    first_wins = ">" in label
    return float((label[0] == "A") == first_wins), weight


@dataclass(frozen=True)
class OrderEffect:
    """How much the side decides.

    Attributes:
        n: Items both of whose games could be read.
        consistent: Share of them with the same winner in both games.
        first_side: Mean score of whoever stands first, over all games; .5 where the side decides nothing.
    """

    n: int
    consistent: float
    first_side: float


def order_effect(labels: Sequence[tuple[str | None, str | None]]) -> OrderEffect | None:
    """How much the side decides, from the labels of both games of each item, as the judge gave them.

    Args:
        labels: The label of the game with the baseline first, and of the one with the model first; None if unreadable.

    Returns:
        None where no item has two readable games.

    >>> order_effect([("B>A", "A>>B"), ("A>B", "A>B"), (None, "A=B")])
    OrderEffect(n=2, consistent=0.5, first_side=0.75)
    """
    both = [(first, second) for first, second in labels if first is not None and second is not None]
    if not both:
        return None
    same = sum(1 - score_of(first)[0] == score_of(second)[0] for first, second in both)
    sides = math.fsum(score_of(label)[0] for pair in both for label in pair)
    return OrderEffect(len(both), same / len(both), sides / (2 * len(both)))

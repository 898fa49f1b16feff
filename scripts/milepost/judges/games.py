"""Games: two answers to one prompt side by side, the side of each swapped or drawn, and what their labels say."""

from __future__ import annotations

import hashlib
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

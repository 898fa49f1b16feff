"""Ranks as overlapping letter groups: models that share a letter could not be told apart."""

from __future__ import annotations

import string
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from milepost.statistics.sign_flips import Scores, max_t


def rank_letters(
    models: Scores, *, clusters: Sequence[Hashable] | None = None, seed: int = 0, alpha: float = 0.05
) -> list[str]:
    """The letters of each model, from all pairs by two-sided max-T; the best model has "a".

    Args:
        models: Item means, shape (n_models, n_items); NaN where an item is missing.
        clusters: The cluster of each item, shape (n_items,).
        seed: Of the sign flips.
        alpha: Level of all pairs together.

    Returns:
        Letters per model: two models share one exactly if their difference is not significant. A pair that cannot be
        tested shares one as well. A model without any score has none ("").
    """
    models = np.asarray(models, dtype=np.float64)
    scored = np.flatnonzero(~np.isnan(models).all(axis=1)) if models.size else np.array([], dtype=int)
    if not len(scored):
        return [""] * len(models)
    means = np.nanmean(models[scored], axis=1)
    order = scored[np.argsort(-means, kind="stable")]
    rows, columns = np.triu_indices(len(order), k=1)
    differ = np.zeros((len(order), len(order)), dtype=bool)
    if len(rows):
        family = max_t(models[order], list(zip(rows, columns, strict=True)), clusters=clusters, seed=seed)
        differ[rows, columns] = family.p_adjusted <= alpha
    letters = [""] * len(models)
    for model, own in zip(order, letter_groups(differ | differ.T), strict=True):
        letters[model] = own
    return letters


def letter_groups(differ: npt.NDArray[np.bool_]) -> list[str]:
    """Compact letter display of a table of significant differences.

    Every letter is a group without a significant pair that no other item could join, and every other pair shares a
    letter.

    Args:
        differ: Symmetric, shape (n, n), best first; True where two differ.

    Source: what the letters mean is Piepho (2004), J. Comput. Graph. Stat. 13; the groups are found greedily, since
    his algorithm may take exponential time.

    >>> letter_groups(np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=bool))
    ['a', 'ab', 'b']
    """
    n = len(differ)
    alike = ~differ
    # Each is in a group with itself.
    uncovered = np.triu(alike)
    groups: list[list[int]] = []
    for first in range(n):
        # Pairs before the model itself: alone it needs a letter only if no pair has given it one.
        for second in [*range(n - 1, first, -1), first]:
            if not uncovered[first, second]:
                continue
            group = [first, second] if second != first else [first]
            for other in range(n):
                if other not in group and alike[other, group].all():
                    group.append(other)
            groups.append(sorted(group))
            uncovered[np.ix_(group, group)] = False
    return ["".join(_letter(k) for k, group in enumerate(sorted(groups)) if i in group) for i in range(n)]


def _letter(number: int) -> str:
    """The letters a to z, A to Z, then the same with a dot before."""
    dots, place = divmod(number, len(string.ascii_letters))
    return "." * dots + string.ascii_letters[place]

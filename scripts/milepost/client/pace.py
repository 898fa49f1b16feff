"""How fast an endpoint with limits is asked: found out by asking, and by what its headers say.

It begins with few requests at once and takes more while all goes well. A refusal for haste (429) makes all wait, then one
asks alone. When that one is answered, it is known how many answers there are in how much time, and no more are asked for.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime

START = 4  # requests at once
GROWTH = 4  # answers for each further one
FEWEST_S = 1.0  # between two tries of one that asks alone
SHARE = 0.2  # of the time without an answer: the next such try comes after that
LONGEST_S = 60.0
SHRINK = 0.97  # of the period, after a whole one without a refusal, until the first one with a refusal
MARGIN = 1.02  # of the period: the server counts from when it got a request, not from when it was sent
REMAINING = ("x-ratelimit-remaining-requests", "x-ratelimit-remaining", "anthropic-ratelimit-requests-remaining")
RESET = ("x-ratelimit-reset-requests", "x-ratelimit-reset", "anthropic-ratelimit-requests-reset")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class RequestPace:
    """Places for requests to one endpoint, as an asynchronous context manager for each."""

    def __init__(self, most: int) -> None:
        """Begin moderately.

        Args:
            most: Requests at once, however well it goes.
        """
        self.most = most
        self.limit = float(min(START, most))
        self.answered_at = self._cycle_at = asyncio.get_running_loop().time()
        self._under_way = 0
        self._until = 0.0
        self._alone = False
        self._answers = 0  # since the cycle began
        self._window: tuple[int, float] | None = None  # at most so many in so many seconds
        self._found = False  # whether the period was once too short
        self._sent: deque[float] = deque()  # when what was not refused was sent
        self._changed = asyncio.Event()

    async def __aenter__(self) -> float:
        """Wait for a place; when it was given, by the loop's clock."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            wait_s = self._wait_s(now)
            if wait_s == 0.0:
                break
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s)
            except TimeoutError:
                pass
        self._under_way += 1
        self._sent.append(now)
        return now

    async def __aexit__(self, *error: object) -> None:
        """Give the place back."""
        self._under_way -= 1
        self._changed.set()

    def _wait_s(self, now: float) -> float | None:
        """Seconds until there may be a place: none, or unknown, until something changes."""
        if now < self._until:
            return self._until - now
        if self._under_way >= (1 if self._alone else int(self.limit)):
            return None
        if self._window is not None:
            most, period = self._window[0], self._window[1] * MARGIN
            while self._sent and now - self._sent[0] >= period:
                self._sent.popleft()
            if len(self._sent) >= most:
                return max(0.001, self._sent[0] + period - now)
        return 0.0

    def answered(self, sent_at: float, headers: Mapping[str, str]) -> None:
        """A request was answered, whatever the answer says."""
        now = asyncio.get_running_loop().time()
        self.answered_at = now
        self._answers += 1
        # Not one that was under way when another was refused: it says nothing of when there is room again.
        if self._alone and sent_at >= self._until:
            self._alone = False
            period = sent_at - self._cycle_at
            # Of few answers, nothing can be learnt; nor of a refusal that meant another's haste.
            if self._window is None and self._answers > 2 and period > 0.5:
                self._window = (self._answers - 1, period)
            self._cycle_at, self._answers = sent_at, 1
        elif not self._alone and self._window is not None and not self._found and self._answers >= self._window[0]:
            self._window = (self._window[0], self._window[1] * SHRINK)
            self._cycle_at, self._answers = now, 0
        self.limit = min(float(self.most), self.limit + 1 / GROWTH)
        left = next((headers[name] for name in REMAINING if name in headers), None)
        if left is not None and re.fullmatch(r"0+(\.0+)?", left.strip()):
            reset = next((headers[name] for name in RESET if name in headers), None)
            self._until = max(self._until, now + min(LONGEST_S, reset_s(reset) or 0.0))
        self._changed.set()

    def refused(self, sent_at: float, told_s: float | None) -> None:
        """A request was refused for haste: all wait, for as long as was told, or longer the longer nothing is answered."""
        now = asyncio.get_running_loop().time()
        if sent_at in self._sent:
            self._sent.remove(sent_at)
        if sent_at >= self._until:  # not one of those that were under way at the last one
            own = max(FEWEST_S, SHARE * (now - self.answered_at))
            self._until = now + min(LONGEST_S, max(told_s or 0.0, FEWEST_S) if told_s else own)
            self.limit = max(1.0, self.limit * (0.9 if self._window else 0.7))
            if self._window is not None and not self._alone:
                self._found = True
                self._window = (self._window[0], self._window[1] / SHRINK)
        self._alone = True
        self._changed.set()


def reset_s(value: str | None, now: float | None = None) -> float | None:
    """Seconds until a limit is reset, in the forms in which servers say it.

    >>> reset_s("6m0s"), reset_s("120ms"), reset_s("1.5"), reset_s("soon")
    (360.0, 0.12, 1.5, None)
    >>> reset_s("1970-01-01T00:01:00Z", now=50.0), reset_s("1700000060", now=1700000000.0)
    (10.0, 60.0)
    """
    now = time.time() if now is None else now
    value = (value or "").strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])", value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(\.\d+)?", value):
        number = float(value)
        # Seconds, or a moment, in seconds or milliseconds since 1970.
        moment = number / 1000 if number > 1e11 else number
        return max(0.0, moment - now) if moment > 1e9 else number
    try:
        return max(0.0, datetime.fromisoformat(value).timestamp() - now)
    except ValueError:
        return None

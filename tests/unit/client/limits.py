"""Servers with limits, and those who ask them, in a time that passes at once: no second is waited for."""

import asyncio
import selectors
from collections import deque
from dataclasses import dataclass, field

from milepost.client.pace import RequestPace


class Hasty(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next thing that is due."""

    def __init__(self):
        super().__init__(Jumping(self))
        self.now = 0.0

    def time(self):
        return self.now


class Jumping(selectors.SelectSelector):
    """Waits for nothing, and sets the loop's clock forward in place of that."""

    def __init__(self, loop):
        super().__init__()
        self.loop = loop

    def select(self, timeout=None):
        if timeout:
            self.loop.now += timeout
        return super().select(0)


@dataclass
class Server:
    """One that refuses: `admits` says, by its clock, whether there is room for a request of so many tokens."""

    latency_s: float = 0.3
    way_s: float = 0.02
    headers: dict = field(default_factory=dict)
    answered: int = 0
    refused: int = 0
    under_way: int = 0

    def admits(self, now, tokens):
        return True

    def told(self, now, admitted):
        """Headers of a reply."""
        return {} if admitted else self.headers

    async def ask(self, loop, tokens):
        await asyncio.sleep(self.way_s)
        admitted = self.admits(loop.time(), tokens)
        headers = self.told(loop.time(), admitted)
        if admitted:
            self.answered += 1
            self.under_way += 1
            await asyncio.sleep(self.latency_s)
            self.under_way -= 1
        else:
            self.refused += 1
        await asyncio.sleep(self.way_s)
        return admitted, headers


@dataclass
class Sliding(Server):
    """So many requests, or tokens, in any so many seconds; `says` in what headers."""

    most: float = 60
    period: float = 10.0
    of: str = "requests"
    says: bool = False
    sent: deque = field(default_factory=deque)

    def used(self, now):
        while self.sent and now - self.sent[0][0] >= self.period:
            self.sent.popleft()
        return sum(cost for _, cost in self.sent)

    def admits(self, now, tokens):
        cost = tokens if self.of == "tokens" else 1
        if self.used(now) + cost > self.most:
            return False
        self.sent.append((now, cost))
        return True

    def told(self, now, admitted):
        if not self.says:
            return super().told(now, admitted)
        left = self.most - self.used(now)
        reset = self.sent[0][0] + self.period - now if self.sent else 0.0
        said = {f"x-ratelimit-remaining-{self.of}": f"{left:.0f}", f"x-ratelimit-reset-{self.of}": f"{reset:.3f}s"}
        return said | super().told(now, admitted)


@dataclass
class Fixed(Sliding):
    """So many in each so many seconds by the clock."""

    phase: float = 3.0

    def used(self, now):
        begun = (now - self.phase) // self.period * self.period + self.phase
        while self.sent and self.sent[0][0] < begun:
            self.sent.popleft()
        return sum(cost for _, cost in self.sent)


@dataclass
class Bucket(Server):
    """A supply that fills up again by so many a second."""

    most: float = 60
    rate: float = 6.0
    of: str = "requests"
    says: bool = False
    level: float | None = None
    seen: float = 0.0

    def admits(self, now, tokens):
        cost = tokens if self.of == "tokens" else 1
        level = self.most if self.level is None else min(self.most, self.level + (now - self.seen) * self.rate)
        self.seen, admitted = now, level >= cost
        self.level = level - cost if admitted else level
        return admitted

    def told(self, now, admitted):
        if not self.says:
            return super().told(now, admitted)
        reset = (self.most - self.level) / self.rate
        said = {
            f"x-ratelimit-remaining-{self.of}": f"{int(self.level)}",
            f"x-ratelimit-reset-{self.of}": f"{reset:.3f}s",
        }
        return said | super().told(now, admitted)


@dataclass
class AtOnce(Server):
    """So many at once."""

    most: int = 8

    def admits(self, now, tokens):
        return self.under_way < self.most


def play(server, requests, most=64, patience_s=600.0, costs=None):
    """Put requests to a server: the seconds that it took by the loop's clock, and what slowed it at the end."""
    loop = Hasty()

    async def asked():
        pace = RequestPace(most, patience_s)
        left = deque(costs or [100.0] * requests)

        async def worker():
            while left:
                cost = left.popleft()
                while True:
                    async with pace.place(cost) as place:
                        admitted, headers = await server.ask(loop, cost)
                    if admitted:
                        pace.answered(place, headers)
                        break
                    told = headers.get("retry-after")
                    pace.refused(place, float(told) if told else None, headers)

        await asyncio.gather(*(worker() for _ in range(most)))
        return loop.time(), pace.words()

    try:
        return loop.run_until_complete(asked())
    finally:
        loop.close()


__all__ = ["AtOnce", "Bucket", "Fixed", "Server", "Sliding", "play"]

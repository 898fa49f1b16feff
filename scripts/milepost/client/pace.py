"""How fast an endpoint with limits is asked: found out by asking, and by what its headers say.

It begins with few requests and takes more while all goes well. What is refused for haste (429) shows a limit; a few further
tries, one alone each time, show which (`limits`). Nothing is sent that the limit found would refuse, and from time to time,
where hardly anything is refused, a little more is tried. What headers say of what remains holds besides.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from milepost.client.limits import NEVER, PERIODS, Limit, Slot, fits
from milepost.client.quotas import read_quotas

START = 32  # requests at once; two more for each answer
START_RATE = 24.0  # requests a second at first
RATE_MORE = 0.5  # a second, for each request that was sent
SHORTEST_S = 1e-4  # that is waited for
FEWEST_S = 0.3  # from a refusal to the next try, where the limit is not known
SHARE = 0.5  # of the time since the first refusal: the next try comes after that
LONGEST_S = 60.0  # between two tries, unless the server asks for more
MARGIN = 1.01  # of a period: the server counts from when it got a request, not from when it was sent
DUE_S = 0.05  # and this much for the way there, which takes once more and once less
CAREFUL = 0.98  # of a rate
REFUSED = 0.015  # of all requests, and five: with more, nothing is tried
KEPT = 3000  # requests that are remembered to find a limit by
FEW = 5  # answers, by which no limit is known at the first time
MET = 6  # of the times when a limit was met, so many are remembered


@dataclass
class Left:
    """What remains of a limit that headers tell of, and until when that holds."""

    remaining: float
    until: float
    spent: float  # by requests that were under way then, and by later ones
    cost: float = 0.0  # of the later ones, in tokens as they are guessed here


class RequestPace:
    """Places for requests to one endpoint, each given when the endpoint's limits let it."""

    def __init__(self, most: int, patience_s: float = 600.0) -> None:
        """Begin moderately.

        Args:
            most: Requests at once, however well it goes.
            patience_s: The longest wait that a server may ask for.
        """
        self.most = most
        self.patience_s = patience_s
        self.answered_at = asyncio.get_running_loop().time()
        self.answers = self.refusals = 0
        self.limit: Limit | None = None
        self._at_once = float(min(START, most))
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._under_way = self._number = 0
        self._rate = START_RATE
        self._cost_under_way = 0.0
        self._last = 0.0  # when one was sent
        self._until = 0.0  # nothing before
        self._why = ""
        self._places: deque[Slot] = deque(maxlen=KEPT)
        self._window: deque[Slot] = deque()  # what the limit's window holds
        self._held = 0.0  # of it, or of the supply
        self._held_at = 0.0
        self._of_tokens = False
        # While a limit is looked for: since when, when the next one tries, alone, and that one.
        self._looking: float | None = None
        self._try_at = 0.0
        self._trial: Slot | None = None
        self._refused_at = -1.0
        self._met: deque[float] = deque(maxlen=MET)
        self._forgiven = False  # whether refusals were once taken for no limit
        self._calm = 0  # answers since the limit was changed
        self._failed = 0  # tries of a little more; after each, the next one comes after twice as many answers
        self._left: dict[str, Left] = {}
        self._dear: dict[str, float] = {}  # what a token costs by the server's count, as its headers show

    def words(self) -> str:
        """What slows it, for progress: `its limit of 60 requests in 10 s`; nothing where nothing does."""
        if asyncio.get_running_loop().time() < self._until and self._why:
            return self._why
        if self._looking is not None:
            return "refusals for haste (429), until its limit is found"
        limit, of = self.limit, "tokens" if self._of_tokens else "requests"
        if limit is None:
            return ""
        if limit.kind == "at once":
            return f"its limit of {limit.most:.0f} requests at once"
        if limit.kind == "window":
            return f"its limit of {limit.most:.0f} {of} in {limit.period:.3g} s"
        return f"its limit of {limit.rate:.3g} {of} a second"

    @asynccontextmanager
    async def place(self, cost: float = 1.0) -> AsyncIterator[Slot]:
        """Wait for a place, and hold it.

        Args:
            cost: The tokens that the request may take.
        """
        loop = asyncio.get_running_loop()
        async with self._turn:
            while (wait_s := self._wait_s(now := loop.time(), cost)) != 0.0:
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), wait_s)
                except TimeoutError:
                    pass
            place = self._give(now, cost)
        try:
            yield place
        except BaseException:
            if self._trial is place:  # neither answered nor refused: another tries
                self._trial = None
            raise
        finally:
            self._under_way -= 1
            self._cost_under_way -= cost
            self._changed.set()

    def _give(self, now: float, cost: float) -> Slot:
        self._under_way += 1
        self._number += 1
        self._cost_under_way += cost
        place = Slot(now, cost, self._under_way)
        self._places.append(place)
        self._last = now
        if self._looking is not None:
            self._trial, place.alone = place, True
        if self.limit is not None and self.limit.kind != "at once":
            self._hold(place, self.limit)
        for kind, left in self._left.items():
            left.spent += self._price(kind, cost)
            left.cost += cost
        return place

    def _hold(self, place: Slot, limit: Limit) -> None:
        """Count a place within the limit's window, or to what was taken of its supply."""
        if limit.kind == "window":
            self._window.append(place)
        else:
            self._held = max(0.0, self._held - CAREFUL * limit.rate * (place.at - self._held_at))
            self._held_at = place.at
        self._held += self._own(place.cost)

    def _own(self, cost: float) -> float:
        return cost if self._of_tokens else 1.0

    def _wait_s(self, now: float, cost: float) -> float | None:
        """Seconds until there may be a place: none, or unknown, until something changes."""
        if now < self._until:
            return self._until - now
        limit = self.limit
        at_once = int(limit.most) if limit is not None and limit.kind == "at once" else int(self._at_once)
        if self._trial is not None or self._under_way >= at_once:
            return None
        # Not all at once: of few, few are refused.
        wait_s = max(self._wait_for_quota(now, cost), self._last + 1 / (self._rate + RATE_MORE * self._number) - now)
        if self._looking is not None:
            wait_s = max(wait_s, self._try_at - now)
        if limit is None:
            pass
        elif limit.kind == "window":
            wait_s = max(wait_s, self._wait_for_window(now, self._own(cost), limit))
        elif limit.kind == "supply":
            rate = CAREFUL * limit.rate
            more = self._held - rate * (now - self._held_at) + self._own(cost) - max(limit.most, self._own(cost))
            wait_s = max(wait_s, more / rate)
        return wait_s if wait_s > SHORTEST_S else 0.0

    def _wait_for_window(self, now: float, own: float, limit: Limit) -> float:
        period = limit.period * MARGIN + DUE_S
        while self._window and now - self._window[0].at >= period:
            self._held -= self._own(self._window.popleft().cost)
        if not self._window or self._held + own <= limit.most * 1.0001:
            return 0.0
        return max(0.001, self._window[0].at + period - now)

    def _wait_for_quota(self, now: float, cost: float) -> float:
        wait_s = 0.0
        for kind in [kind for kind, left in self._left.items() if now >= left.until]:
            del self._left[kind]
        for kind, left in self._left.items():
            if left.remaining - left.spent < self._price(kind, cost):
                wait_s = max(wait_s, left.until - now)
                if self.limit is None and left.until - now > FEWEST_S and not self._under_way:
                    # As good as a refusal, and none.
                    self._places.append(Slot(now, cost, NEVER, True))
                    self._met.append(now)
                    self._looking, self._try_at = now, left.until
                self._why = f"its limit of {kind}, which is reset in {left.until - now:.0f} s"
        return wait_s

    def _price(self, kind: str, cost: float) -> float:
        return 1.0 if kind == "requests" else cost * self._dear.get(kind, 1.0)

    def answered(self, place: Slot, headers: Mapping[str, str]) -> None:
        """Take note that a request was answered, whatever the answer says."""
        now = asyncio.get_running_loop().time()
        place.refused = False
        self.answered_at = now
        self.answers += 1
        self._calm += 1
        self._at_once = min(float(self.most), self._at_once + 2)
        if place is self._trial:
            self._trial = self._looking = None
            self._find(now, alone=False)
        self._read(headers, now)
        if self._looking is None and self.limit is not None:
            self._grow(self.limit)
        self._changed.set()

    def refused(self, place: Slot, told_s: float | None, headers: Mapping[str, str], words: str = "") -> None:
        """Take note that a request was refused for haste: send nothing for as long as was told, and look for the limit.

        Args:
            place: The request's.
            told_s: The seconds that the server asks to wait.
            headers: The refusal's.
            words: What it says.
        """
        now = asyncio.get_running_loop().time()
        place.refused = True
        self.refusals += 1
        self._of_tokens = self._of_tokens or ("token" in words.lower() and "request" not in words.lower())
        if told_s is None:
            empty = [quota.reset_s for quota in read_quotas(headers).values() if quota.remaining <= 0]
            told_s = max(empty, default=None)
        if told_s:
            self._until = max(self._until, now + min(told_s, self.patience_s))
            self._why = f"the pause of {told_s:.3g} s that it asks for"
        trial = place is self._trial
        # Those that were under way at the last refusal say nothing new of when there is room.
        if trial or place.at > self._refused_at:
            self._trial, self._refused_at = None, now
            if self._looking is None:
                self._met.append(now)
                self._failed += self.limit is not None
            self._find(now, alone=True)
        self._changed.set()

    def _find(self, now: float, *, alone: bool) -> None:
        """Look for the limit that fits what was answered and refused, and set when the next one is sent."""
        places = [place for place in self._places if not self._met or place.at >= self._forgotten(now)]
        if not any(place.refused for place in places):
            return
        if not alone and not self._forgiven and self.answers <= FEW:
            # So few answers may as well mean a server that was in trouble and is not any more.
            self._forgiven, self.limit, self._number = True, None, 0
            return
        at_once, windows, supply = fits(places, self._of_tokens)
        known = [limit for limit in windows if limit.longest]
        if at_once is not None:
            # One less than was tried is known to hold.
            held = self.limit is not None and self.limit.kind == "at once" and at_once.most < self.limit.most
            # Nor does one that is alone after a pause tell anything of how many there may be at once.
            self._take(at_once, now, alone=alone and not held and self._until <= now)
        elif windows and len(known) < len(windows):
            self._probe(places, windows, now)
        elif known:
            usual = [limit for limit in known if limit.period in PERIODS]
            self._take(replace((usual or known)[-1], shorter=known[0].period), now, alone=alone)
        elif supply is not None:
            self._take(supply, now, alone=alone)
        else:
            # Neither: it has changed, or others use it too. Evenly, a little slower than it was answered of late.
            let = sum(self._own(place.cost) for place in places if not place.refused)
            rate = 0.95 * max(let, 1.0) / max(1.0, now - places[0].at)
            self._met = deque([*self._met][len(self._met) // 2 :], MET)
            self._take(Limit("supply", self._own(places[-1].cost), rate=rate), now, alone=False)

    def _forgotten(self, now: float) -> float:
        """The moment before which what was sent no longer counts, because limits change."""
        return 0.0 if len(self._met) < MET else self._met[0] - 2 * (self._met[-1] - self._met[0])

    def _take(self, limit: Limit, now: float, *, alone: bool) -> None:
        """Keep to a limit from now on; `alone` has one request try it first."""
        self.limit, self._calm = limit, 0
        # As fast as it was answered of late, or as at the beginning; then more.
        let = [place for place in self._places if not place.refused]
        self._rate = max(START_RATE, len(let) / max(1.0, now - let[0].at)) if let else START_RATE
        self._number = 0
        self._window.clear()
        self._held = self._held_at = 0.0
        if limit.kind != "at once":
            for place in self._places:
                if not place.refused and (limit.kind == "supply" or now - place.at < limit.period * MARGIN + DUE_S):
                    self._hold(place, limit)
        self._looking = (self._looking or now) if alone else None
        self._try_at = now

    def _probe(self, places: list[Slot], windows: list[Limit], now: float) -> None:
        """Let one request try when a window of a usual length ends."""
        since = self._looking if self._looking is not None else now
        self._looking, self.limit = since, None
        earliest = max(now + min(LONGEST_S, max(FEWEST_S, SHARE * (now - since))), self._until)
        let = [place for place in places if not place.refused]
        at = earliest
        for limit in windows:
            if limit.period in PERIODS:
                held = 0.0
                first = let[-1] if let else places[-1]
                for place in reversed(let):
                    held += self._own(place.cost)
                    first = place
                    if held > limit.most - 1e-6:
                        break
                if (due := first.at + limit.period * MARGIN + DUE_S) >= earliest:
                    at = due
                    break
        # No later than patience ends: then it is given up.
        patient = max(now + FEWEST_S, self._until, self.answered_at + self.patience_s)
        self._try_at = min(at, max(earliest, now + LONGEST_S), patient)

    def _grow(self, limit: Limit) -> None:
        """Try a little more where nothing was refused for a while."""
        calm = {"window": 1.5 * len(self._window), "at once": 20 * limit.most, "supply": 20}[limit.kind]
        if self._left or self._calm < calm * 2**self._failed or self.refusals > 5 + REFUSED * self.answers:
            return
        now = asyncio.get_running_loop().time()
        if limit.kind == "at once" and limit.most < self.most:
            self._take(replace(limit, most=limit.most + 1), now, alone=False)
        elif limit.kind == "window" and limit.shorter < 0.95 * limit.period:
            shorter = max(math.sqrt(limit.period * limit.shorter), 0.8 * limit.period)
            self._take(replace(limit, period=shorter), now, alone=False)
        elif limit.kind == "supply":
            self._take(replace(limit, rate=1.03 * limit.rate), now, alone=False)

    def _read(self, headers: Mapping[str, str], now: float) -> None:
        """Learn from what a reply says of limits. Of what is under way, it is not known what it counts: all is taken off."""
        for kind, quota in read_quotas(headers).items():
            left = self._left.get(kind)
            if left is not None and kind != "requests" and left.remaining > quota.remaining and left.cost:
                dear = (left.remaining - quota.remaining) / left.cost
                self._dear[kind] = min(1.0, max(dear, 0.9 * self._dear.get(kind, dear)))
            under_way = float(self._under_way) if kind == "requests" else self._price(kind, self._cost_under_way)
            if self.limit is not None:  # then that sees to it
                under_way = 0.0
            self._left[kind] = Left(quota.remaining, now + min(quota.reset_s, self.patience_s), under_way)

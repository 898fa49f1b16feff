"""One pace for all calls of a user to models of others, over all processes and hosts that share a file.

Whoever calls takes a place in time from the file: the next free one, at least `MIN_INTERVAL_S` after the last one of
anybody, and as far apart as the endpoint's requests and tokens a minute ask for. A 429 with Retry-After holds the calls
of all to that endpoint. The clock is that of the wall, which hosts have in common as far as they keep time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.errors import ConfigError
from milepost.store.shared_state import SharedState

log = logging.getLogger("milepost")

INTERVAL_S = 0.005
# Places in time are given this far ahead and no further: whoever finds none asks again, so that a place further away is
# the sign of a state that is stale, or of a clock that was set.
AHEAD_S = 2.0
LONGEST_STEP_S = 60.0  # that one call, however many tokens it takes, keeps others waiting
LONGEST_HOLD_S = 300.0
SKEW_S = 5.0
FORGOTTEN_S = 3600.0  # after which an endpoint that nobody calls leaves the file
TOKEN_CHARS = 4  # characters of a token, for a guess at what a call will take


def state_path() -> Path:
    """The file of the pace: `EVAL_THROTTLE_STATE_PATH`, or one in the user's cache, which hosts of a cluster share."""
    given = os.environ.get("EVAL_THROTTLE_STATE_PATH")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "milepost" / "throttle.json"


def min_interval_s() -> float:
    """Seconds between two calls of anybody: `MIN_INTERVAL_S`, or 0.005; 0 for no pace.

    Raises:
        ConfigError: It is no number of seconds.
    """
    given = os.environ.get("MIN_INTERVAL_S", "").strip()
    try:
        seconds = float(given) if given else INTERVAL_S
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_STEP_S:
        raise ConfigError(
            f"The environment variable MIN_INTERVAL_S is {given!r}. It is the seconds between two calls to judges, from 0 "
            f"(no pace) to {LONGEST_STEP_S:g}. Correct it, or unset it for {INTERVAL_S:g}."
        )
    return seconds


@dataclass
class Throttle:
    """The pace of calls to one endpoint.

    Attributes:
        endpoint: What names it for all campaigns of the user: its URL and model.
        interval_s: Seconds between any two calls of the user, to whatever endpoint.
        requests_per_minute: To this endpoint; None for as many as there are.
        tokens_per_minute: Likewise, of prompts and replies.
        path: The file.
    """

    endpoint: str
    interval_s: float = field(default_factory=min_interval_s)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    path: Path = field(default_factory=state_path)

    def __post_init__(self) -> None:
        """Prepare the file's name for the endpoint, and the state of this process alone."""
        self._state = SharedState(self.path)
        # Without the address itself: the file tells nobody whom the user calls.
        self._name = hashlib.sha256(self.endpoint.encode()).hexdigest()[:16]
        self._alone: dict[str, Any] = {}
        self._warned = False

    @property
    def idle(self) -> bool:
        """Whether there is no pace to keep, but for a server's own wish to be left alone."""
        return self.interval_s == 0 and self.requests_per_minute is None and self.tokens_per_minute is None

    async def wait(self, body: Mapping[str, Any]) -> None:
        """Wait for a place in time for one call."""
        tokens = expected_tokens(body) if self.tokens_per_minute else 0.0
        while True:
            wait_s, taken = await self._change(lambda state: self._take(state, time.time(), tokens))
            await asyncio.sleep(wait_s)
            if taken:
                return

    async def settle(self, body: Mapping[str, Any], usage: Mapping[str, Any] | None) -> None:
        """Give back what a call was expected to take and did not; or take more."""
        if not self.tokens_per_minute or not usage:
            return
        used = float(usage.get("prompt_tokens") or 0) + float(usage.get("completion_tokens") or 0)
        step = self._token_step(used) - self._token_step(expected_tokens(body))
        await self._change(lambda state: self._move(state, step))

    async def hold(self, seconds: float) -> None:
        """Keep all callers of this endpoint away for a while, because it asked for that."""
        until = time.time() + min(seconds, LONGEST_HOLD_S)
        await self._change(lambda state: self._hold(state, until))

    def _take(self, state: dict[str, Any], now: float, tokens: float) -> tuple[float, bool]:
        """The seconds until the next free place, and whether it is taken; if not, ask again then."""
        endpoints = state.setdefault("endpoints", {})
        if not isinstance(endpoints, dict):
            endpoints = state["endpoints"] = {}
        for name in [name for name, one in endpoints.items() if now - _number(one, "seen") > FORGOTTEN_S]:
            del endpoints[name]
        mine = endpoints.get(self._name)
        if not isinstance(mine, dict):
            mine = endpoints[self._name] = {}
        mine["seen"] = now
        far = now + AHEAD_S + LONGEST_STEP_S + SKEW_S
        start = now
        steps = {
            "requests": 60 / self.requests_per_minute if self.requests_per_minute else 0.0,
            "tokens": self._token_step(tokens),
        }
        for place, most in (
            (_number(state, "next") if self.interval_s else 0.0, far),
            (_number(mine, "hold"), now + LONGEST_HOLD_S + SKEW_S),
        ):
            start = max(start, place if place <= most else now)
        for name, step in steps.items():
            place = _number(mine, name) if step else 0.0
            start = max(start, place if place <= far else now)
        if start > now + AHEAD_S:
            return min(start - now, AHEAD_S), False
        if self.interval_s:
            state["next"] = start + self.interval_s
        for name, step in steps.items():
            if step:
                mine[name] = start + step
        return start - now, True

    def _move(self, state: dict[str, Any], step: float) -> None:
        mine = state.get("endpoints", {}).get(self._name)
        if isinstance(mine, dict) and _number(mine, "tokens"):
            mine["tokens"] = _number(mine, "tokens") + step

    def _hold(self, state: dict[str, Any], until: float) -> None:
        endpoints = state.setdefault("endpoints", {})
        mine = endpoints.setdefault(self._name, {})
        mine["hold"], mine["seen"] = (
            max(until, _number(mine, "hold") if _number(mine, "hold") < until + LONGEST_HOLD_S else 0.0),
            time.time(),
        )

    def _token_step(self, tokens: float) -> float:
        return min(60 * tokens / self.tokens_per_minute, LONGEST_STEP_S) if self.tokens_per_minute else 0.0

    async def _change(self, change: Any) -> Any:
        try:
            # The file may lie on a network: nothing else waits for it.
            return await asyncio.to_thread(self._state.change, change)
        except (OSError, TypeError, AttributeError) as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "the pace of calls cannot be shared with other processes (%s: %s): this one keeps it alone",
                    self.path,
                    error,
                )
            return change(self._alone)


def expected_tokens(body: Mapping[str, Any]) -> float:
    """A guess at the tokens that a call takes: of its messages, and the longest reply.

    >>> expected_tokens({"messages": [{"content": "x" * 400}], "max_tokens": 50})
    150.0
    """
    messages = body.get("messages") or []
    chars = sum(len(str(message.get("content", ""))) for message in messages if isinstance(message, Mapping))
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    return chars / TOKEN_CHARS + float(limit)


def _number(state: Any, name: str) -> float:
    """A finite number of the state, or 0: a state that others have written may hold anything."""
    value = state.get(name) if isinstance(state, dict) else None
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        else 0.0
    )


def read_usage(body: Any) -> Mapping[str, Any] | None:
    """The tokens that a reply says it took."""
    usage = body.get("usage") if isinstance(body, dict) else None
    return usage if isinstance(usage, dict) else None

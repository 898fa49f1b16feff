"""What a campaign's calls have cost, and that they cost no more than they may: one file for all processes and hosts.

A call is paid for before it is sent, with the most that it can cost; its reply puts what it did cost in that place. So calls
at the same time, of whatever process, never cost more together than is left. What is under way is given back by whoever
waits for it; of a process that was killed, it counts for a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.client.money import Price, Tokens, billed_tokens, likely_tokens, most_tokens
from milepost.client.throttle import expected_tokens
from milepost.errors import BudgetError
from milepost.store.answers import STORE
from milepost.store.shared_state import SharedState

log = logging.getLogger("milepost")

BILLS = STORE.parent / "bills.json"
ENDPOINTS = "config/endpoints.yaml"
PAUSE_S = 0.2
# For calls under way that hold what is left: theirs may take an hour each.
PATIENCE_S = 1800.0
FORGOTTEN_S = 7200.0


@dataclass(frozen=True)
class Held:
    """What one call holds while it is under way."""

    tokens: float
    cost: float


@dataclass
class Bill:
    """The bill of one endpoint in this campaign.

    Attributes:
        name: The endpoint's.
        price: What it takes; None where only calls or tokens are bounded.
        budget: What it may cost this campaign.
        campaign_budget: What all endpoints together may cost it.
        max_calls: As many calls as may be answered.
        max_tokens: As many tokens of prompts and replies.
        path: The campaign's bills.
    """

    name: str
    price: Price | None = None
    budget: float | None = None
    campaign_budget: float | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    path: Path = BILLS
    _holder: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        """Name the file; nothing is opened yet."""
        self._state = SharedState(self.path)

    async def reserve(self, body: Mapping[str, Any]) -> Held:
        """Pay for one call before it is sent; waits for calls under way, where what they hold may be enough.

        Raises:
            BudgetError: It could cost more than is left.
        """
        held = Held(expected_tokens(body), self.price.of(most_tokens(body)) if self.price else 0.0)
        until = time.monotonic() + PATIENCE_S
        while True:
            over, waits = await self._change(lambda state: self._reserve(state, held))
            if not over:
                return held
            if not waits or time.monotonic() > until:
                raise BudgetError(
                    f"The endpoint {self.name!r} may not be asked any more in this campaign: {'; '.join(over)}, and the next"
                    f" call could take more than is left. What was answered is kept. Raise the bound ({ENDPOINTS}, or"
                    " `budget` in config/config.yaml) and run again: it asks for the rest."
                )
            await asyncio.sleep(PAUSE_S)

    async def settle(self, held: Held, body: Mapping[str, Any], reply: Any) -> None:
        """Put what a call did cost in the place of what it held: nothing for None, for one that was refused."""
        tokens = None if reply is None else billed_tokens(body, reply)
        await self._change(lambda state: self._settle(state, held, tokens))

    async def settle_unknown(self, held: Held, body: Mapping[str, Any]) -> None:
        """Give a guess at what a call cost of which no reply came: a server may have billed it all the same."""

        def settle(state: dict[str, Any]) -> None:
            mine = self._mine(state)
            calls = _number(mine, "calls")
            mean = _number(mine, "tokens_out") / calls if calls else None
            self._settle(state, held, likely_tokens(body, mean), answered=False)

        await self._change(settle)

    def _reserve(self, state: dict[str, Any], held: Held) -> tuple[list[str], bool]:
        """Hold what a call can take; otherwise, what would be exceeded, and whether waiting may help."""
        mine = self._mine(state)
        under_way = _under_way(mine)
        everybody = [_mapping(one) for one in _mapping(state.get("endpoints")).values()]
        spent = sum(_number(one, "cost") for one in everybody)
        held_by_all = sum(_under_way(one)["cost"] for one in everybody)
        bounds = (
            ("max_calls", self.max_calls, _number(mine, "calls"), under_way["calls"], 1.0),
            ("max_tokens", self.max_tokens, _tokens(mine), under_way["tokens"], held.tokens),
            ("budget", self.budget, _number(mine, "cost"), under_way["cost"], held.cost),
            ("the campaign's budget", self.campaign_budget, spent, held_by_all, held.cost),
        )
        over, waits = [], True
        for name, most, had, others, more in bounds:
            if most is not None and had + others + more > most * (1 + 1e-9):
                over.append(
                    f"{name} is {most:g}, and {_amount(had)} are spent"
                    + f", {_amount(others)} under way" * (others > 0)
                )
                # Calls under way give back what they do not take: at most all of it.
                waits = waits and others > 0 and had + more <= most
        if not over:
            open_ = mine.setdefault("open", {})
            own = _mapping(open_.get(self._holder))
            open_[self._holder] = {
                "calls": _number(own, "calls") + 1,
                "tokens": _number(own, "tokens") + held.tokens,
                "cost": _number(own, "cost") + held.cost,
                "seen": time.time(),
            }
        return over, waits

    def _settle(self, state: dict[str, Any], held: Held, tokens: Tokens | None, *, answered: bool = True) -> None:
        mine = self._mine(state)
        own = _mapping(mine["open"].pop(self._holder, None))
        if _number(own, "calls") > 1:
            mine["open"][self._holder] = {
                "calls": _number(own, "calls") - 1,
                "tokens": max(0.0, _number(own, "tokens") - held.tokens),
                "cost": max(0.0, _number(own, "cost") - held.cost),
                "seen": time.time(),
            }
        if tokens is None:
            return
        added = {
            "calls": float(answered),
            "unanswered": float(not answered),
            "guessed": float(tokens.guessed),
            "tokens_in": tokens.prompt,
            "tokens_out": tokens.completion,
            "tokens_cached": tokens.cached,
            "cost": self.price.of(tokens) if self.price else 0.0,
        }
        for name, value in added.items():
            mine[name] = _number(mine, name) + value

    def _mine(self, state: dict[str, Any]) -> dict[str, Any]:
        """This endpoint's part of the file, without what dead processes held; what it says of prices is up to date."""
        endpoints = state.get("endpoints")
        if not isinstance(endpoints, dict):
            endpoints = state["endpoints"] = {}
        for name, one in endpoints.items():
            held = _mapping(_mapping(one).get("open"))
            endpoints[name] = {**_mapping(one), "open": {who: its for who, its in held.items() if _is_alive(who, its)}}
        mine: dict[str, Any] = endpoints.setdefault(self.name, {"open": {}})
        if self.price is not None:
            mine["price"] = {"input": self.price.input, "output": self.price.output, "cached": self.price.cached}
        mine["budget"] = self.budget
        if self.campaign_budget is not None:
            state["budget"] = self.campaign_budget
        return mine

    async def _change(self, change: Any) -> Any:
        try:
            # The file may lie on a network: nothing else waits for it.
            return await asyncio.to_thread(self._state.change, change)
        except OSError as error:
            raise BudgetError(
                f"What the endpoint {self.name!r} costs cannot be kept in {self.path} ({error.strerror or error}), and without"
                " that its bounds cannot be held. Nothing more was asked. Put the campaign on a file system with locks and"
                f" room, or take `price`, `budget`, `max_calls` and `max_tokens` out of its entry in {ENDPOINTS}."
            ) from None


def read_bills(path: Path = BILLS) -> dict[str, Any]:
    """The campaign's bills, by endpoint under `endpoints`; empty where nothing was paid for."""
    import orjson

    try:
        state = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _under_way(mine: Mapping[str, Any]) -> dict[str, float]:
    held = [_mapping(one) for one in _mapping(mine.get("open")).values()]
    return {name: sum(_number(one, name) for one in held) for name in ("calls", "tokens", "cost")}


def _tokens(mine: Mapping[str, Any]) -> float:
    return _number(mine, "tokens_in") + _number(mine, "tokens_out")


def _is_alive(holder: str, held: Any) -> bool:
    """Whether a process may still wait for the calls that it holds."""
    if time.time() - _number(_mapping(held), "seen") > FORGOTTEN_S:
        return False
    host, _, rest = holder.partition(":")
    pid = rest.partition(":")[0]
    if host != socket.gethostname() or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _amount(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(state: Mapping[str, Any], name: str) -> float:
    value = state.get(name)
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else 0.0  # type: ignore[arg-type]

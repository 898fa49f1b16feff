"""What a judge may cost a campaign, at what pace it is asked, and that it stays the same one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from milepost.campaign.types import EndpointSpec
from milepost.client.outside import on_this_host
from milepost.client.throttle import Throttle, expected_tokens
from milepost.endpoints import ENDPOINTS
from milepost.endpoints.external import External
from milepost.errors import JudgeError
from milepost.records import Usage
from milepost.store.shared_state import SharedState

FILE = ".judge.json"


def throttle_of(spec: EndpointSpec) -> Throttle | None:
    """The pace at which a judge is asked; None for servers of ours.

    A server of others on this very host has the user's general pace only where the user has named one.
    """
    if not isinstance(spec, External) or spec.url is None:
        return None
    throttle = Throttle(
        f"{spec.url} {spec.model}",
        requests_per_minute=spec.requests_per_minute,
        tokens_per_minute=spec.tokens_per_minute,
    )
    if on_this_host(spec.url) and not os.environ.get("MIN_INTERVAL_S"):
        throttle.interval_s = 0.0
    # Even without a pace, one that asks to be left alone is left alone by all; but not a server of this host.
    return None if throttle.idle and on_this_host(spec.url) else throttle


class JudgeRecord:
    """What a campaign knows of one judge: what it has cost, and who replied.

    Kept beside its calls in one file, which all processes change in turn.
    """

    def __init__(self, folder: Path, spec: EndpointSpec) -> None:
        """Name the folder of the judge's kept calls; nothing is opened yet."""
        self.spec = spec
        self._state = SharedState(folder / FILE)
        self._who = hashlib.sha256(orjson.dumps(spec.identity, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
        self._seen: set[tuple[str | None, str | None]] = set()

    @property
    def bounded(self) -> bool:
        """Whether the campaign pays no more than a sum."""
        return isinstance(self.spec, External) and (self.spec.max_calls or self.spec.max_tokens) is not None

    def reserve(self, body: Mapping[str, Any]) -> float:
        """Count one call before it is sent; returns the tokens that it is expected to take.

        Raises:
            JudgeError: It would cost more than it may.
        """
        spec, tokens = self.spec, expected_tokens(body)
        assert isinstance(spec, External)

        def count(state: dict[str, Any]) -> None:
            calls, spent = _number(state, "calls") + 1, _number(state, "tokens") + tokens
            over = [
                f"{name} is {most}, and {had:.0f} are spent or under way"
                for name, most, sum_, had in (
                    ("max_calls", spec.max_calls, calls, calls - 1),
                    ("max_tokens", spec.max_tokens, spent, spent - tokens),
                )
                if most is not None and sum_ > most
            ]
            if over:
                raise JudgeError(
                    f"The judge {spec.name!r} may not be asked any more in this campaign: {'; '.join(over)}. What it replied "
                    f"is kept. Raise the bound in {ENDPOINTS} to have the rest judged, or lower what is judged."
                )
            state["calls"], state["tokens"] = calls, spent

        self._state.change(count)
        return tokens

    def settle(self, expected: float, usage: Usage | None) -> None:
        """Put what a call took in the place of what it was expected to take; None for one that was not answered."""

        def correct(state: dict[str, Any]) -> None:
            used = usage["prompt_tokens"] + usage["completion_tokens"] if usage else 0
            state["tokens"] = max(0.0, _number(state, "tokens") - expected + used)
            state["calls"] = max(0.0, _number(state, "calls") - (usage is None))

        self._state.change(correct)

    def see(self, asked_as: str, body: Any) -> None:
        """Hold what a reply says of its model against what earlier replies said, in whatever job of the campaign.

        Args:
            asked_as: The name that the model was asked by.
            body: The reply.

        Raises:
            JudgeError: The judge has become another one.
        """
        if not isinstance(self.spec, External) or not isinstance(body, dict):
            return
        model, print_ = _text(body.get("model")), _text(body.get("system_fingerprint"))
        if model == asked_as != self.spec.model:
            # A name with a nonce in it: another one after each start of the same server.
            model = None
        if self.spec.fingerprint == "name":
            print_ = None
        if (model, print_) in self._seen:
            return

        def hold(state: dict[str, Any]) -> None:
            known = state.setdefault("replied", {}).setdefault(self._who, {})
            for name, now in (("model", model), ("system_fingerprint", print_)):
                before = known.get(name)
                # One that says nothing contradicts nobody.
                if now is not None and before is not None and now != before:
                    raise JudgeError(
                        f"The judge {self.spec.name!r} has become another one within this campaign: its replies said {name} "
                        f"{before!r}, and now say {now!r}. Numbers of both would not be comparable. Set `revision` in "
                        f"{ENDPOINTS} to a new word to have all answers judged anew by the new one; or, if only the "
                        "fingerprint changed and you take the model for the same, set `fingerprint: name`."
                    )
                if now is not None:
                    known[name] = now

        self._state.change(hold)
        self._seen.add((model, print_))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(state: Mapping[str, Any], name: str) -> float:
    value = state.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0

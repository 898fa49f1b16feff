"""What an endpoint may cost a campaign, at what pace it is asked, and that it stays the same one: for all who ask it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import orjson

from milepost.campaign.frozen import config_option
from milepost.campaign.types import EndpointSpec
from milepost.client.bills import Bill
from milepost.client.outside import on_this_host
from milepost.client.throttle import Throttle
from milepost.endpoints import ENDPOINTS
from milepost.endpoints.external import External
from milepost.errors import JudgeError
from milepost.store.shared_state import SharedState

FILE = ".judge.json"
# How long an endpoint may answer nothing but that it is asked too fast. Limits of a day end a job, those of minutes do not.
PATIENCE_S = 600.0


def throttle_of(spec: EndpointSpec) -> Throttle | None:
    """The pace at which an endpoint is asked by all processes of the user; None for servers of ours.

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


def bill_of(spec: EndpointSpec) -> Bill | None:
    """What a campaign pays an endpoint, and may pay it; None where nothing is said of that."""
    if not isinstance(spec, External):
        return None
    whole = config_option("budget") if spec.price is not None else None
    if spec.price is None and spec.max_calls is None and spec.max_tokens is None:
        return None
    return Bill(
        spec.name,
        price=spec.price,
        budget=spec.budget,
        campaign_budget=whole,
        max_calls=spec.max_calls,
        max_tokens=spec.max_tokens,
    )


class Answerer:
    """Who replies at an endpoint that scores, throughout a campaign: a change is an error.

    Kept beside its calls in one file, which all processes change in turn.
    """

    def __init__(self, folder: Path, spec: EndpointSpec) -> None:
        """Name the folder of the endpoint's kept calls; nothing is opened yet."""
        self.spec = spec
        self._state = SharedState(folder / FILE)
        self._who = hashlib.sha256(orjson.dumps(spec.identity, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
        self._seen: set[tuple[str | None, str | None]] = set()

    def see(self, asked_as: str, body: Any) -> None:
        """Hold what a reply says of its model against what earlier replies said, in whatever job of the campaign.

        Args:
            asked_as: The name that the model was asked by.
            body: The reply.

        Raises:
            JudgeError: The model has become another one.
        """
        if not isinstance(self.spec, External) or not isinstance(body, dict):
            return
        model, print_ = _text(body.get("model")), _text(body.get("system_fingerprint"))
        if (model == asked_as != self.spec.model) or model in self.spec.accepts:
            # A name with a nonce in it: another one after each start of the same server. Or one that the user accepts.
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
                        f"{ENDPOINTS} to a new word to have all answers judged anew by the new one; or, if you take both for "
                        "the same, `accepts` the model's other name, or set `fingerprint: name`."
                    )
                if now is not None:
                    known[name] = now

        self._state.change(hold)
        self._seen.add((model, print_))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None

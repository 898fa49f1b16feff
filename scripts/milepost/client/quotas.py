"""What the headers of replies say of an endpoint's limits: what remains, and when it is there again."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    # What remains, and when it is reset: OpenAI and those who follow it, GitHub's and others' plain names, Anthropic.
    "requests": (
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("x-ratelimit-remaining", "x-ratelimit-reset"),
        ("ratelimit-remaining", "ratelimit-reset"),
        ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ),
    "tokens": (
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ),
    "output tokens": (("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),),
    "input tokens": (("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),),
}
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
STRANGE_S = 60.0  # the longest wait for a date where the server does not say what its clock shows


@dataclass(frozen=True)
class Quota:
    """What remains of one limit, and in how many seconds it is there again."""

    remaining: float
    reset_s: float


def read_quotas(headers: Mapping[str, str]) -> dict[str, Quota]:
    """The limits that headers tell of, by kind; those without a moment of reset are none.

    >>> read_quotas({"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1s"})
    {'requests': Quota(remaining=59.0, reset_s=1.0)}
    >>> read_quotas({"x-ratelimit-remaining": "0"})
    {}
    """
    said = {}
    for kind, names in KINDS.items():
        for remaining, reset in names:
            left = headers.get(remaining, "").strip()
            seconds = reset_s(headers.get(reset), clock(headers))
            if re.fullmatch(r"-?\d+(\.\d+)?", left) and seconds is not None:
                said[kind] = Quota(float(left), seconds)
                break
    return said


def told_pause_s(headers: Mapping[str, str] | None) -> float | None:
    """The seconds that a server's headers ask to wait before the next try; None if they do not say.

    >>> told_pause_s({"retry-after": "2"}), told_pause_s({"retry-after-ms": "1500", "retry-after": "2"})
    (2.0, 1.5)
    """
    headers = headers or {}
    pause = retry_after_s(headers.get("retry-after-ms"))
    return pause / 1000 if pause is not None else retry_after_s(headers.get("retry-after"), clock(headers))


def retry_after_s(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait that a Retry-After header asks for: a number of them, or a date.

    Args:
        value: The header.
        now: What the server's clock shows; None if it does not say. This host's is taken then, and may be another.

    >>> retry_after_s("2")
    2.0
    >>> retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", now=50.0)
    10.0
    >>> retry_after_s("soon") is None
    True
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return _until(parsedate_to_datetime(value).timestamp(), now)
    except ValueError:
        return None


def reset_s(value: str | None, now: float | None = None) -> float | None:
    """Seconds until a limit is reset, in the forms in which servers say it.

    >>> reset_s("6m0s"), reset_s("120ms"), reset_s("1.5"), reset_s("soon")
    (360.0, 0.12, 1.5, None)
    >>> reset_s("1970-01-01T00:01:00Z", now=50.0), reset_s("1700000060", now=1700000000.0)
    (10.0, 60.0)
    """
    value = (value or "").strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])", value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(\.\d+)?", value):
        number = float(value)
        # Seconds, or a moment, in seconds or milliseconds since 1970.
        moment = number / 1000 if number > 1e11 else number
        return _until(moment, now) if moment > 1e9 else number
    try:
        return _until(datetime.fromisoformat(value).timestamp(), now)
    except ValueError:
        return None


def clock(headers: Mapping[str, str]) -> float | None:
    """What the server's clock shows, by its Date header: its moments are told by it, and this host's may be wrong.

    >>> clock({"date": "Thu, 01 Jan 1970 00:01:00 GMT"}), clock({})
    (60.0, None)
    """
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _until(moment: float, now: float | None) -> float:
    """Seconds until a moment, by the server's clock; by this host's, no more than a minute."""
    if now is not None:
        return max(0.0, moment - now)
    return min(STRANGE_S, max(0.0, moment - time.time()))

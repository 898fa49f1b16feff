"""Finds the cause of a refusal: the endpoint (its address, key, account or model), this request, or something that passes.

A refusal that this request causes is stored as its answer. One that the endpoint causes would meet every request, so nothing
is stored. If a refusal does not show its cause, a harmless question of the same form is asked: if it is refused as well, the
endpoint refuses all.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

RETRIED = frozenset({408, 409, 425, 429})
# Not the server that was meant, or nobody who may ask it: another address or key, no money.
ENDPOINT = frozenset({401, 402, 404, 405, 407, 410, *range(300, 400)})
TOO_LARGE = 413
# How servers say that a text does not fit: vLLM, OpenAI, TGI, llama.cpp, TEI, Anthropic.
CONTEXT = (
    "context length",
    "context_length_exceeded",
    "maximum input length",
    "exceed_context_size",
    "context window",
    "max_model_len",
    "`inputs` must have less than",
    "prompt is too long",
)
# How they say that they will not answer this text: OpenAI, Azure, OpenRouter, Anthropic, Google, Bedrock.
FILTERED = (
    "content_filter",
    "content filter",
    "content_policy",
    "content policy",
    "content management policy",
    "responsibleai",
    "flagged",
    "moderation",
    "safety system",
    "safety_violation",
    "prohibited_content",
    "usage policies",
    "guardrail",
)
# How they say that there is no money left, whatever the status: OpenAI, Anthropic, DeepSeek, OpenRouter, Together, xAI.
UNPAID = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credit balance",
    "insufficient credits",
    "insufficient balance",
    "insufficient funds",
    "out of credits",
    "no credits",
    "payment required",
    "spending limit",
    "account is not active",
    "account_deactivated",
)
QUOTA = "exceeded your current quota"
# Google says the same of a limit for each minute, and when to come again.
COMES_AGAIN = ("retry in", "retryinfo", "per minute", "perminute", "try again in")
TEXT = "Say yes."
HARMLESS: Mapping[str, Any] = {
    "messages": [{"role": "user", "content": TEXT}],
    "prompt": TEXT,
    "input": ["yes"],
    "inputs": ["yes"],
    "query": "yes",
    "documents": ["yes"],
    "texts": ["yes"],
    "text_1": ["yes"],
    "text_2": ["yes"],
}


class Fault(enum.Enum):
    """The cause of a request's failure."""

    ENDPOINT = "every request will be refused"
    REQUEST = "this request will always be refused"
    PASSING = "it may go away"
    UNKNOWN = "a harmless question will tell"


@dataclass(frozen=True)
class Refusal:
    """What a reply with another status than 200 means: its cause, and a message.

    Attributes:
        kind: `context`, `filtered` or `refused` (this request), `endpoint`, or `server`.
        message: What the server says, with its status.
        fault: Whose it is.
    """

    kind: str
    message: str
    fault: Fault


def read_refusal(status: int, content: bytes, *, comes_again: bool = False) -> Refusal:
    """Read a refusal.

    Args:
        status: HTTP status.
        content: The body.
        comes_again: The server says when to come again.

    >>> read_refusal(429, b'{"error": {"message": "You exceeded ...", "code": "insufficient_quota"}}').kind
    'endpoint'
    >>> read_refusal(403, b'{"error": {"message": "Your prompt was flagged"}}').fault
    <Fault.REQUEST: 'this request will always be refused'>
    """
    message, sign = _words(content)
    if 300 <= status < 400:
        message = "it redirects to another address; give that one"
    said = f"{status}: {message}"

    def has(words: tuple[str, ...]) -> bool:
        return any(word in sign for word in words)

    if has(UNPAID) or (QUOTA in sign and not comes_again and not has(COMES_AGAIN)) or status in ENDPOINT:
        return Refusal("endpoint", said, Fault.ENDPOINT)
    if status in RETRIED or status >= 500:
        return Refusal("server", said, Fault.PASSING)
    if has(CONTEXT):
        return Refusal("context", said, Fault.REQUEST)
    if has(FILTERED):
        return Refusal("filtered", said, Fault.REQUEST)
    if status == TOO_LARGE:
        return Refusal("refused", said, Fault.REQUEST)
    return Refusal("refused", said, Fault.UNKNOWN)


def error_inside(body: Any) -> int | None:
    """The status of an error in a reply of status 200, as gateways send it; None where there is none.

    >>> error_inside({"error": {"message": "Provider returned error", "code": 429}})
    429
    >>> error_inside({"choices": [], "error": None}) is None
    True
    """
    if not isinstance(body, dict) or not body.get("error") or body.get("choices") or body.get("data"):
        return None
    error = body["error"]
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    return int(code) if str(code).isdigit() and 400 <= int(code) < 600 else 502  # type: ignore[arg-type]


def harmless(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request of the same form, with a text that nobody refuses in place of its own.

    >>> harmless({"model": "m", "prompt": "How do I ...", "max_tokens": 9})
    {'model': 'm', 'prompt': 'Say yes.', 'max_tokens': 9}
    """
    question = {key: HARMLESS.get(key, value) for key, value in body.items()}
    messages = body.get("messages")
    if isinstance(messages, list) and all(isinstance(message, dict) for message in messages):
        # What the task says before every question is part of the form.
        question["messages"] = [
            message if message.get("role") in ("system", "developer") else {**message, "content": TEXT}
            for message in messages
        ]
    return question


def form_of(path: str, body: Mapping[str, Any]) -> bytes:
    """What requests have in common that differ in their text and seed only."""
    rest = {key: value for key, value in body.items() if key not in HARMLESS and key != "seed"}
    return orjson.dumps([path, sorted(HARMLESS.keys() & body.keys()), rest], option=orjson.OPT_SORT_KEYS, default=str)


def _words(content: bytes) -> tuple[str, str]:
    """What a server says: its message, and all of it in lower case, to look for signs in."""
    kinds: list[Any] = []
    try:
        said = orjson.loads(content)
        said = said[0] if isinstance(said, list) and said and isinstance(said[0], dict) else said  # Google's
        inner = said.get("error", said) if isinstance(said, dict) else said
        message = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        # Some servers say it in the error's type or code only.
        kinds = (
            [inner.get(name) for name in ("type", "code", "status", "innererror", "details", "metadata")]
            if isinstance(inner, dict)
            else []
        )
    except orjson.JSONDecodeError:
        message = content.decode(errors="replace")
    message = message[:500]
    return message, " ".join(map(str, [message, *filter(None, kinds)])).lower()

"""What a reply to a chat or a completion request says, in the forms that servers give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from milepost.records import Usage

BROKEN_OFF = ("abort", "error")  # finish reasons of requests that a server gave up
MARK = b"\xef\xbb\xbf"  # of byte order, which some programs write before their JSON
REASONING = ("reasoning_content", "reasoning")


@dataclass(frozen=True)
class Reply:
    """A server's answer to one request: its parsed body, and the seconds from sending to the end of the answer."""

    body: Any
    latency_s: float


@dataclass(frozen=True)
class Choice:
    """What a model answered."""

    content: str
    reasoning: str
    finish_reason: str | None
    usage: Usage
    refusal: str = ""
    tool_calls: list[Any] | None = None


def who_answered(body: Any) -> dict[str, str]:
    """Who a reply says that it is by: the model, its fingerprint, and the provider that a router chose.

    >>> who_answered({"model": "m-2024", "system_fingerprint": None, "provider": "Azure", "choices": []})
    {'model': 'm-2024', 'provider': 'Azure'}
    """
    names = {"model": "model", "fingerprint": "system_fingerprint", "provider": "provider"}
    said = {name: body.get(key) for name, key in names.items()} if isinstance(body, Mapping) else {}
    return {name: value for name, value in said.items() if isinstance(value, str) and value}


def read_choice(body: Any) -> Choice:
    """The first answer in the body of a reply.

    Raises:
        ValueError: There is no whole answer in it, which an OpenAI-compatible server in good health never sends.
    """
    try:
        choice = body["choices"][0]
        message = choice.get("message")
        parts = message.get("content") if message is not None else choice["text"]
        content, thought = _texts(parts)
        reasoning = thought or next((text for name in REASONING if (text := _text((message or {}).get(name)))), "")
        finish_reason = choice.get("finish_reason")
        refusal = _text((message or {}).get("refusal"))
        calls = (message or {}).get("tool_calls") or None
        usage = body.get("usage") or {}
        counted = Usage(
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise ValueError(f"a reply without an answer: {str(body)[:200]}") from None
    # An answer that the server broke off itself, as it may when it ends, is not what the model says.
    if finish_reason in BROKEN_OFF or choice.get("error"):
        raise ValueError(f"a reply without an answer: {str(body)[:200]}")
    return Choice(content, reasoning, finish_reason, counted, refusal, calls if isinstance(calls, list) else None)


def _texts(content: Any) -> tuple[str, str]:
    """The text of a message, and the reasoning in it: as one text, or as a list of parts, as Mistral's is.

    >>> _texts([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Paris."}])
    ('Paris.', 'hm')
    """
    if not isinstance(content, list):
        return _text(content), ""
    said, thought = [], []
    for part in content:
        if "thinking" in part or part.get("type") in ("thinking", "reasoning"):
            thought.append(_texts(part.get("thinking", part.get("text")))[0])
        elif part.get("type") in ("text", "output_text", None):
            said.append(_text(part["text"]))
    return "".join(said), "".join(thought)


def _text(value: Any) -> str:
    """A text; nothing where there is none.

    Raises:
        TypeError: Something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError
    return value

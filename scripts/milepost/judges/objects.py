"""The objects in a reply: as JSON, or as Python writes a dictionary."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# A reply of braces would take the square of its length; no judge means it.
MOST_FAILED = 1000
_FLAT = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class ReplyObject:
    """An object, and where in the text it stands."""

    begin: int
    end: int
    content: dict[Any, Any]


def find_objects(text: str) -> Iterator[ReplyObject]:
    """The outermost objects in a text, in order.

    >>> [found.content for found in find_objects("a {'score': 1} b {'grade': 2}")]
    [{'score': 1}, {'grade': 2}]
    """
    decoder, at = json.JSONDecoder(strict=False, object_pairs_hook=_joined), 0
    failed = 0
    while (begin := text.find("{", at)) >= 0 and failed < MOST_FAILED:
        at = begin + 1
        failed += 1
        try:
            content, end = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            match = _FLAT.match(text, begin)
            if match is None:
                continue
            end = match.end()
            try:
                content = ast.literal_eval(match[0])
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
        if isinstance(content, dict):
            yield ReplyObject(begin, end, content)
            at, failed = end, 0


def value_of(content: dict[Any, Any], *keys: str) -> list[Any]:
    """What an object has under any of these keys, whatever their case."""
    return [value for key, value in content.items() if str(key).strip().lower() in keys]


def text_of(content: dict[Any, Any], *keys: str) -> str | None:
    """The first text under one of these keys that is not blank."""
    values = (content.get(key) for key in keys)
    return next((text.strip() for text in values if isinstance(text, str) and text.strip()), None)


def number_of(value: Any) -> float | None:
    """A finite number, or the text of one; None for anything else.

    >>> number_of(7), number_of("7.5"), number_of(True), number_of("seven"), number_of(1e999)
    (7.0, 7.5, None, None, None)
    """
    if isinstance(value, str):
        return float(value) if re.fullmatch(r"\s*-?[0-9]{1,15}(?:\.[0-9]{1,15})?\s*", value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _joined(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands twice with two values has both, so that neither is taken for its word."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        content[key] = [content[key], value] if key in content and content[key] != value else value
    return content

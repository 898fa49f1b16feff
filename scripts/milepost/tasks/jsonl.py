"""Reads items from a JSON Lines file: `id`, `messages` or `prompt`, and what the scorer needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from milepost.errors import RecordError, did_you_mean
from milepost.records import Prompt, read_records

KEYS = ("id", "messages", "prompt", "target", "choices", "meta")
ROLES = ("system", "user", "assistant")


def read_items(path: str | Path) -> list[Prompt]:
    """Read and check the items of a task.

    Raises:
        RecordError: No item at all, a malformed one, or an id that stands twice; names file and line.
    """
    items: list[Prompt] = []
    lines: dict[str, int] = {}
    for number, record in enumerate(read_records(path), 1):
        problem = _problem(record) or _read_for_scorer(record)
        if problem:
            raise RecordError(f"{path}, line {number}: {problem}")
        if record["id"] in lines:
            raise RecordError(
                f"{path}, line {number}: the id {record['id']!r} stands in line {lines[record['id']]} already."
                " Ids file the answers: give each item its own."
            )
        lines[record["id"]] = number
        items.append(cast(Prompt, record))
    if not items:
        raise RecordError(
            f"{path} is empty. A task needs one JSON object a line, with 'id' and 'messages' or 'prompt'."
        )
    return items


def _problem(record: dict[str, Any]) -> str | None:
    """What is wrong with an item, or None."""
    unknown = [key for key in record if key not in KEYS]
    if unknown:
        return f"unknown key {unknown[0]!r}. Keys of an item: {', '.join(KEYS)}.{did_you_mean(unknown[0], KEYS)} Put others under 'meta'."
    if not isinstance(record.get("id"), str) or not record["id"]:
        return "an item needs an 'id', a text that is not empty."
    if ("messages" in record) == ("prompt" in record):
        return f"item {record['id']!r} needs either 'messages' (a chat) or 'prompt' (a text to go on from)."
    if "prompt" in record:
        return None if isinstance(record["prompt"], str) and record["prompt"] else "'prompt' is not a text, or empty."
    messages = record["messages"]
    if not isinstance(messages, list) or not messages:
        return "'messages' is not a list of messages, or empty."
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"} or message["role"] not in ROLES:
            return f"a message is an object with 'role' ({', '.join(ROLES)}) and 'content'."
        if not isinstance(message["content"], str):
            return "the 'content' of a message is a text."
    return None


def _read_for_scorer(record: dict[str, Any]) -> str | None:
    """Bring what the scorer needs into its form, in the record itself; what is wrong with it, or None."""
    meta = record.get("meta", {})
    if not isinstance(meta, dict):
        return f"'meta' of item {record['id']!r} is {_kind(meta)}. It is an object: names with their values."
    if not isinstance(meta.get("cluster", ""), str | int) or isinstance(meta.get("cluster"), bool):
        return f"'meta.cluster' of item {record['id']!r} is {_kind(meta['cluster'])}. It is a text or a whole number."
    choices = record.get("choices")
    if isinstance(choices, dict) and set(choices) == {"text", "label"}:
        # As ARC and others have it on the hub.
        record["choices"] = choices["text"]
    for key, several in (("target", "a text, or a list of texts that are all right"), ("choices", "a list of texts")):
        if key not in record:
            continue
        value = record[key]
        if key == "choices" and not isinstance(value, list):
            return f"'choices' of item {record['id']!r} is {_kind(value)}. It is {several}."
        texts = [_text(one) for one in (value if isinstance(value, list) else [value])]
        for text, one in zip(texts, value if isinstance(value, list) else [value], strict=True):
            if text is None and isinstance(one, float):
                return (
                    f"{key!r} of item {record['id']!r} is the number {one}, which people write in more than one way. Write "
                    f'it as a text, as "{one:g}".'
                )
            if text is None:
                return f"{key!r} of item {record['id']!r} holds {_kind(one)}. It is {several}."
        record[key] = texts if isinstance(value, list) else texts[0]
    return None


def _text(value: Any) -> str | None:
    """A text, or a number as people write it; None for anything else.

    >>> _text(42), _text(0.5), _text(2.0), _text(True)
    ('42', '0.5', None, None)
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    text = str(value)
    # 2.0 may stand for 2, as tables write it, and 1e+16 for anything.
    return text if isinstance(value, int) or not ("e" in text or text.endswith(".0")) else None


def _kind(value: Any) -> str:
    """What a value of JSON is, in words."""
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "null")

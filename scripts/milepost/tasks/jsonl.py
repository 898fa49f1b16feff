"""Reads items from a JSON Lines file: `id`, `messages` or `prompt`, and what the scorer needs."""

from __future__ import annotations

from typing import Any, cast

from milepost.errors import RecordError, did_you_mean
from milepost.records import Prompt, read_records

KEYS = ("id", "messages", "prompt", "target", "choices", "meta")
ROLES = ("system", "user", "assistant")


def read_items(path: str) -> list[Prompt]:
    """Read and check the items of a task.

    Raises:
        RecordError: No item at all, a malformed one, or an id that stands twice; names file and line.
    """
    items: list[Prompt] = []
    lines: dict[str, int] = {}
    for number, record in enumerate(read_records(path), 1):
        problem = _problem(record)
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

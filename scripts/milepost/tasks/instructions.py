"""Turns rows of IFEval and IFBench into items: a prompt, and the instructions in it that a rule can check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.records import Prompt

# The key of an item's `meta` under which its instructions stand, each with its `id` and its `kwargs`.
INSTRUCTIONS = "instructions"
_EXACT = 2**53  # up to which each whole number is one of its own as a float


def instruction_item(row: Mapping[str, Any]) -> Prompt:
    """Turn a row into an item.

    A row of two turns has `messages` beside its prompt: the first turn with its answer, and the second, which is answered.

    Raises:
        KeyError, TypeError, ValueError: A column is missing, or is not as the benchmarks have it.

    >>> row = {"key": 7, "prompt": "Hi.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"n": None}]}
    >>> instruction_item(row)["meta"]
    {'instructions': [{'id': 'punctuation:no_comma', 'kwargs': {}}]}
    """
    idents, given = row["instruction_id_list"], row["kwargs"]
    if not idents or len(idents) != len(given):
        raise ValueError(f"{len(idents)} instructions and {len(given)} sets of arguments")
    instructions = [
        {"id": str(ident), "kwargs": _arguments(kwargs)} for ident, kwargs in zip(idents, given, strict=True)
    ]
    messages = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
    asked = [{"role": str(message["role"]), "content": str(message["content"])} for message in messages]
    if asked[-1]["role"] != "user":
        raise ValueError("the last of the messages is not the user's")
    return Prompt(id=str(row["key"]), messages=asked, meta={INSTRUCTIONS: instructions})  # type: ignore[typeddict-item]


def _arguments(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments that are given. Tables have all columns for all rows, and numbers of a column with gaps as 3.0."""
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT else value
        for key, value in (kwargs or {}).items()
        if value is not None
    }

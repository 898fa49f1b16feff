"""Turns rows of benchmarks that judges score into items: a prompt, and what judges hold an answer against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.records import Message, Prompt


def healthbench_item(row: Mapping[str, Any]) -> Prompt:
    """A conversation of HealthBench, with the rubric by which its answer is judged.

    >>> turn = {"role": "user", "content": "My head hurts."}
    >>> rubric = {"criterion": "Asks since when", "points": 5, "tags": ["axis:context_awareness"]}
    >>> row = {"prompt_id": "x", "prompt": [turn], "rubrics": [rubric], "example_tags": ["theme:hedging"]}
    >>> healthbench_item(row)["meta"]["tags"]
    ['theme:hedging']
    """
    rubrics = [
        {"criterion": str(one["criterion"]), "points": _points(one["points"]), "tags": list(map(str, one["tags"]))}
        for one in row["rubrics"]
    ]
    if not rubrics:
        raise ValueError("its list of rubrics is empty")
    messages = [Message(role=one["role"], content=_text(one["content"])) for one in row["prompt"]]
    return Prompt(
        id=str(row["prompt_id"]), messages=messages, meta={"rubrics": rubrics, "tags": list(row["example_tags"])}
    )


def _points(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the points of a rubric are no number: {value!r}")
    return value


def _text(content: Any) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        parts = [part.get("text", "") if part.get("type") == "text" else "[no text]" for part in content]
        return " ".join(parts)
    if not isinstance(content, str):
        raise ValueError(f"a message's content is no text: {str(content)[:60]}")
    return content

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


def writingbench_item(row: Mapping[str, Any]) -> Prompt:
    """A writing task of WritingBench, with the criteria that were made for it.

    >>> row = {"index": 9, "domain1": "Education", "domain2": "Coursework", "query": "Write.", "checklist": [{"name": "Clear"}]}
    >>> writingbench_item(row)["meta"]["domain"]
    'Education'
    """
    criteria = [{str(key): str(value) for key, value in one.items()} for one in row["checklist"]]
    if not criteria or not all(one.get("name") for one in criteria):
        raise ValueError("its checklist is empty, or a criterion has no name")
    meta: dict[str, Any] = {"criteria": criteria}
    for ours, column in (("domain", "domain1"), ("subdomain", "domain2"), ("lang", "lang")):
        if row.get(column):
            meta[ours] = str(row[column])
    return Prompt(id=str(row["index"]), messages=[Message(role="user", content=_text(row["query"]))], meta=meta)


def arena_hard_item(row: Mapping[str, Any]) -> Prompt:
    """A prompt of Arena-Hard; its category says which baseline an answer is compared with.

    >>> arena_hard_item({"uid": "x", "category": "hard_prompt", "subcategory": "coding", "prompt": "Sort."})["meta"]
    {'category': 'hard_prompt', 'subcategory': 'coding'}
    """
    meta = {key: str(row[key]) for key in ("category", "subcategory") if row.get(key)}
    return Prompt(id=str(row["uid"]), messages=[Message(role="user", content=_text(row["prompt"]))], meta=meta)


def alpaca_eval_item(row: Mapping[str, Any]) -> Prompt:
    """An instruction of AlpacaEval, from a set of instructions or from a baseline's answers to them.

    >>> alpaca_eval_item({"instruction": "Say hi.", "dataset": "koala", "output": "Hi."})["meta"]
    {'dataset': 'koala'}
    """
    instruction = _text(row["instruction"])
    if row.get("input"):
        instruction = f"{instruction}\n\n{row['input']}"
    meta = {"dataset": str(row["dataset"])} if row.get("dataset") else {}
    return Prompt(id="", messages=[Message(role="user", content=instruction)], meta=meta)


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

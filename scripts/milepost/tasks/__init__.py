"""Tasks of our own: their data as prompts, and what is asked of a model for each."""

from __future__ import annotations

import hashlib
from typing import Any

from milepost.campaign.identity import CACHE, DigestCache
from milepost.campaign.sampling import SOURCE
from milepost.campaign.types import Task
from milepost.records import Message, Partial, Prompt, PromptSet, TaskHeader
from milepost.tasks.jsonl import read_items
from milepost.tasks.known import read_known
from milepost.tasks.lm_eval_files import files_digest

DEFAULT_SAMPLING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 2048, "seed": 0}


def load_items(task: Task) -> list[Prompt]:
    """All items of a task; none for a harness, which keeps its own.

    Raises:
        RecordError: Malformed, empty or repeated items, with file and line.
    """
    if task.kind == "nemo":
        return []
    form = task.spec.get("format", "items")
    return read_items(task.spec["data"]) if form == "items" else read_known(task.spec["data"], form)


def asks_chat(task: Task, items: list[Prompt]) -> bool:
    """Whether the task uses the chat interface, and so needs a chat template."""
    if task.kind == "nemo":
        return bool(task.spec.get("endpoint_type", "chat") == "chat")
    return any("messages" in item for item in items)


def build_prompts(task: Task, limit: int | None = None) -> PromptSet:
    """Everything that is asked: the items with the system message, and sampling and N in the header.

    Args:
        task: The task.
        limit: Ask only so many items; the smaller of this and the task's own holds.
    """
    limits = [value for value in (limit, task.spec.get("limit")) if value]
    header = TaskHeader(
        task=task.name,
        kind="nemo" if task.kind == "nemo" else "native",
        version=task.spec["version"],
        generation=task.spec.get("generation", 1),
        samples=task.spec.get("samples", 1),
        sampling={},
    )
    if task.kind == "nemo":
        asked = task.questions()
        params = dict(asked.get("params", {}))
        limits += [params["limit_samples"]] if "limit_samples" in params else []
        if limits:
            params["limit_samples"] = min(limits)
            # How many items there are, only the harness knows.
            header["partial"] = Partial(limit=min(limits), of="?")
        cache = DigestCache(CACHE)
        header["harness"] = {
            "eval_type": asked["eval_type"],
            "endpoint_type": asked.get("endpoint_type", "chat"),
            "params": params,
            **{
                key: asked[key]
                for key in ("tokenizer", "adapter", "environment", "container", "sampling")
                if asked.get(key)
            },
        }
        files = files_digest(task.spec, cache)
        cache.save()
        if files is not None:
            header["harness"]["files"] = files
        return PromptSet(header, [])
    header["sampling"] = {**DEFAULT_SAMPLING, **task.spec.get("sampling", {})}
    if SOURCE in header["sampling"] and "temperature" not in task.spec["sampling"]:
        del header["sampling"]["temperature"]
    items = load_items(task)
    if limits and min(limits) < len(items):
        header["partial"] = Partial(limit=min(limits), of=len(items))
        items = draw(items, min(limits))
    system = task.spec.get("system")
    if system:
        items = [with_system(item, system) for item in items]
    return PromptSet(header, items)


def draw(items: list[Prompt], n: int) -> list[Prompt]:
    """The n items whose ids hash lowest, in their order: a larger n keeps those of a smaller one."""
    rank = sorted(items, key=lambda item: hashlib.sha256(item["id"].encode()).digest())
    chosen = {item["id"] for item in rank[:n]}
    return [item for item in items if item["id"] in chosen]


def with_system(item: Prompt, system: str) -> Prompt:
    """The item with a system message before its own messages; a plain prompt gets it as its first paragraph."""
    if "messages" in item:
        return {**item, "messages": [Message(role="system", content=system), *item["messages"]]}
    return {**item, "prompt": f"{system}\n\n{item['prompt']}"}

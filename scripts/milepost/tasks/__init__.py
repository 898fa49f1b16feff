"""Native tasks: reads their data as items, and makes the prompts that a model is asked."""

from __future__ import annotations

import hashlib

from milepost.campaign.identity import CACHE, DigestCache
from milepost.campaign.types import NativeTask, NemoTask, Task
from milepost.records import Message, Partial, Prompt, PromptSet, TaskHeader
from milepost.tasks.data_files import data_file
from milepost.tasks.jsonl import read_items
from milepost.tasks.known import read_known
from milepost.tasks.lm_eval_files import files_digest


def load_items(task: Task) -> list[Prompt]:
    """Read all items of a task; none for a task of NeMo Evaluator, whose harness keeps its own.

    Raises:
        RecordError: Malformed, empty or repeated items, with file and line.
        ConfigError: The data is on the hub or in a package, and not here.
    """
    if not isinstance(task, NativeTask):
        return []
    path = data_file(task)
    return read_items(path) if task.format == "items" else read_known(path, task.format)


def asks_chat(task: Task, items: list[Prompt]) -> bool:
    """Whether the task uses the chat interface, and so needs a chat template."""
    if isinstance(task, NemoTask):
        return task.endpoint_type == "chat"
    return any("messages" in item for item in items)


def build_prompts(task: Task, limit: int | None = None) -> PromptSet:
    """Make a task's prompts: its items with the system message, after a header with sampling and number of samples.

    Args:
        task: The task.
        limit: Ask at most this many items; the task's own limit holds if it is smaller.
    """
    limits = [value for value in (limit, task.limit) if value]
    header = TaskHeader(
        task=task.name,
        kind=task.kind,
        version=task.version,
        generation=task.generation,
        samples=task.samples,
        sampling={},
    )
    if isinstance(task, NemoTask):
        questions = task.questions()
        params = questions["params"]
        limits += [params["limit_samples"]] if "limit_samples" in params else []
        if limits:
            params["limit_samples"] = min(limits)
            # How many items there are, only the harness knows.
            header["partial"] = Partial(limit=min(limits), of="?")
        cache = DigestCache(CACHE)
        header["harness"] = {
            "eval_type": task.eval_type,
            "endpoint_type": task.endpoint_type,
            "params": params,
            **{
                key: questions[key]
                for key in ("tokenizer", "adapter", "environment", "container", "sampling")
                if questions.get(key)
            },
        }
        files = files_digest(task, cache)
        cache.save()
        if files is not None:
            header["harness"]["files"] = files
        return PromptSet(header, [])
    assert isinstance(task, NativeTask)
    header["sampling"] = dict(task.sampling)
    items = load_items(task)
    if limits and min(limits) < len(items):
        header["partial"] = Partial(limit=min(limits), of=len(items))
        items = draw(items, min(limits))
    if task.system:
        items = [with_system(item, task.system) for item in items]
    return PromptSet(header, items)


def draw(items: list[Prompt], n: int) -> list[Prompt]:
    """Choose the n items whose ids have the lowest hashes, in their order: a larger n keeps all items of a smaller one."""
    rank = sorted(items, key=lambda item: hashlib.sha256(item["id"].encode()).digest())
    chosen = {item["id"] for item in rank[:n]}
    return [item for item in items if item["id"] in chosen]


def with_system(item: Prompt, system: str) -> Prompt:
    """Add a system message before an item's own messages; a plain prompt gets it as its first paragraph."""
    if "messages" in item:
        return {**item, "messages": [Message(role="system", content=system), *item["messages"]]}
    return {**item, "prompt": f"{system}\n\n{item['prompt']}"}

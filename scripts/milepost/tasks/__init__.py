"""Native tasks: reads their data as items, and makes the prompts that a model is asked."""

from __future__ import annotations

import hashlib

from milepost.campaign.identity import CACHE, DigestCache
from milepost.campaign.sampling import SOURCE
from milepost.campaign.schemas import defaults
from milepost.campaign.types import Task
from milepost.errors import ConfigError
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
    if task.kind == "nemo":
        return []
    form = task.spec.get("format", "items")
    try:
        path = data_file(task.spec)
    except ConfigError as error:
        raise ConfigError(f"config/tasks/{task.name}.yaml: {error}") from None
    return read_items(path) if form == "items" else read_known(path, form)


def asks_chat(task: Task, items: list[Prompt]) -> bool:
    """Whether the task uses the chat interface, and so needs a chat template."""
    if task.kind == "nemo":
        return bool(task.spec.get("endpoint_type", "chat") == "chat")
    return any("messages" in item for item in items)


def build_prompts(task: Task, limit: int | None = None) -> PromptSet:
    """Make a task's prompts: its items with the system message, after a header with sampling and number of samples.

    Args:
        task: The task.
        limit: Ask at most this many items; the task's own limit holds if it is smaller.
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
        questions = task.questions()
        params = dict(questions.get("params", {}))
        limits += [params["limit_samples"]] if "limit_samples" in params else []
        if limits:
            params["limit_samples"] = min(limits)
            # How many items there are, only the harness knows.
            header["partial"] = Partial(limit=min(limits), of="?")
        cache = DigestCache(CACHE)
        header["harness"] = {
            "eval_type": questions["eval_type"],
            "endpoint_type": questions.get("endpoint_type", "chat"),
            "params": params,
            **{
                key: questions[key]
                for key in ("tokenizer", "adapter", "environment", "container", "sampling")
                if questions.get(key)
            },
        }
        files = files_digest(task.spec, cache)
        cache.save()
        if files is not None:
            header["harness"]["files"] = files
        return PromptSet(header, [])
    header["sampling"] = {**defaults("task_native", "sampling"), **task.spec.get("sampling", {})}
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
    """Choose the n items whose ids have the lowest hashes, in their order: a larger n keeps all items of a smaller one."""
    rank = sorted(items, key=lambda item: hashlib.sha256(item["id"].encode()).digest())
    chosen = {item["id"] for item in rank[:n]}
    return [item for item in items if item["id"] in chosen]


def with_system(item: Prompt, system: str) -> Prompt:
    """Add a system message before an item's own messages; a plain prompt gets it as its first paragraph."""
    if "messages" in item:
        return {**item, "messages": [Message(role="system", content=system), *item["messages"]]}
    return {**item, "prompt": f"{system}\n\n{item['prompt']}"}

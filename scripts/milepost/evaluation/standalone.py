"""Evaluates one native task at an endpoint that somebody else serves, without a campaign: asks, scores and reduces.

NeMo Evaluator runs it as a harness (core_evals/milepost), and so may anybody by hand.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import platform
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from milepost import __version__
from milepost.campaign.config import native_task
from milepost.campaign.sampling import effective, task_sampling
from milepost.campaign.types import NativeTask
from milepost.client.shape import Shape
from milepost.endpoints import Endpoint
from milepost.errors import ConfigError, RecordError, ServerError
from milepost.evaluation.asking import Asking
from milepost.evaluation.work import Request, question_of, requests_of
from milepost.reasoning import split_answers
from milepost.records import Answer, PromptSet, Score, Summary, write_record, write_records
from milepost.schemas import of_schema
from milepost.scorers import check_scoring, load_scorer
from milepost.statistics.summary import samples_by_metric, summarize
from milepost.store.answers import TaskStore, open_stores, read_settled
from milepost.store.lease import acquire
from milepost.store.provenance import commit
from milepost.tasks import build_prompts, load_items

KEPT = ".answered"  # the store of what was answered, in the folder that a run writes to
PATHS = {"chat": "/chat/completions", "completions": "/completions"}


@dataclass(frozen=True)
class Target:
    """The endpoint that is evaluated, which is served already.

    Attributes:
        url: Where requests are posted, path included: `http://host/v1/chat/completions`, or a proxy's address.
        kind: The kind of request that it takes: `chat` or `completions`.
        model: Name to ask for.
        key: Bearer token; it never enters a file or a log.
        shape: How it takes requests.
        concurrency: Requests under way at once.
        timeout_s: Seconds that one try may take.
        retries: Further tries of a request.
    """

    url: str
    kind: str
    model: str
    key: str
    shape: Shape = field(default_factory=Shape)
    concurrency: int = of_schema("endpoint_external", "concurrency")
    timeout_s: float = of_schema("endpoint_external", "request_timeout_s")
    retries: int = of_schema("endpoint_external", "retries")

    @property
    def digest(self) -> str:
        """Who answers, as far as it can be seen from here: what stored answers are filed under."""
        shaped = [self.shape.identity] if self.shape.identity else []
        return hashlib.sha256(json.dumps([self.url, self.model, *shaped]).encode()).hexdigest()

    def __repr__(self) -> str:
        """The target's fields without the key, so that no log shows it."""
        return f"Target(url={self.url!r}, kind={self.kind!r}, model={self.model!r})"


def make_task(name: str, content: Mapping[str, Any], limit: float | None = None) -> NativeTask:
    """Make a task as a file of config/tasks would describe it; options that are None keep their defaults.

    Args:
        name: The task's name in the results.
        content: The keys of such a file, but for `version`.
        limit: Ask at most this many items; below 1 it is a share of them.

    Raises:
        ConfigError: A wrong value or an unknown scorer.
        RecordError: Malformed items, with file and line.
    """
    sampling = {key: value for key, value in task_sampling(content.get("sampling", {})).items() if value is not None}
    given = {key: value for key, value in content.items() if value is not None}
    where = f"Task {name!r}"
    task = native_task(name, {"version": 1, **given, "sampling": sampling}, where)
    if limit is not None:
        if limit <= 0 or (limit > 1 and limit != int(limit)):
            raise ConfigError(f"{where}: the limit is {limit}. Give a number of items, or their share between 0 and 1.")
        n_items = math.ceil(len(load_items(task)) * limit) if limit < 1 else int(limit)
        task = replace(task, limit=n_items)
    return task


def evaluate_task(task: NativeTask, target: Target, out: Path) -> Summary:
    """Ask a task's items, score the answers, and write prompts, answers, scores and summary to a folder.

    It gets `prompts.jsonl`, `answers.jsonl`, `scores.jsonl` and, last, `summary.json`, formatted as a campaign's. What an
    earlier run into it was answered by the same model at the same address is not asked again.

    Raises:
        RecordError: Items that the endpoint's kind cannot ask.
        ServerError: The endpoint cannot be reached, refuses the key or the model, or left requests unanswered.
    """
    summary_file = out / "summary.json"
    # Numbers of an earlier run must not pass for those of this one, should it fail.
    summary_file.unlink(missing_ok=True)
    prompts = build_prompts(task)
    _check_kind(task, prompts, target)
    # Before a model is asked: what cannot be scored is found without paying for answers.
    scorer = load_scorer(task.scorer)
    check_scoring(scorer, prompts.prompts, f"Task {task.name!r}")
    write_records(out / "prompts.jsonl", [prompts.header, *prompts.prompts])
    lease, _ = acquire(out / ".lease", lambda line: print(line, file=sys.stderr))
    try:
        with open_stores(out, [KEPT], uuid.uuid4().hex[:12]) as stores:
            answers = asyncio.run(ask(prompts, target, stores[KEPT]))
    finally:
        lease.release()
    write_records(out / "answers.jsonl", answers)
    answers = split_answers(answers, prompts.prompts, {})
    scores = list(scorer.score(prompts.prompts, answers))
    write_records(out / "scores.jsonl", scores)
    summary = summarize(
        target.model, prompts, answers, scores,
        scorer=scorer.name, metric=scorer.metrics[0].name, metrics=scorer.metrics,
        reduce=partial(scorer.reduce, prompts.prompts),
        provenance=_provenance(target, out / "prompts.jsonl") | scorer.provenance(),
    )  # fmt: skip
    # What else the endpoint does, only whoever runs it knows.
    summary["provenance"]["sampling"] = effective(prompts.header["sampling"], {})
    summary["provenance"]["items_by_metric"] = count_items(scores, scorer.metrics[0].name)
    write_record(summary_file, summary)
    return summary


def count_items(scores: list[Score], metric: str) -> dict[str, int]:
    """Count the items that each metric rests on.

    >>> count_items([{"id": "a", "sample": 0, "score": None, "metrics": {"loose": 1.0}}], "strict")
    {'strict': 0, 'loose': 1}
    """
    return {name: len(samples) for name, samples in samples_by_metric(scores, metric).items()}


async def ask(prompts: PromptSet, target: Target, store: TaskStore) -> list[Answer]:
    """Ask all prompts; returns the answers by item (in the prompts' order) and sample.

    Args:
        prompts: What to ask.
        target: The endpoint to ask.
        store: Holds what was answered before, and gets each answer as it comes.

    Raises:
        ServerError: The endpoint cannot be reached, refuses the key or the model, or left requests unanswered.
    """
    requests = list(requests_of(prompts, target.digest))
    unanswered: list[str] = []

    def keep(request: Request, answer: Answer, final: bool) -> None:
        store.append(request.key, answer, final)
        if not final:
            unanswered.append(f"{answer['error']['type']}: {answer['error']['message']}")

    how = Asking(
        concurrency=target.concurrency,
        timeout_s=target.timeout_s,
        retries=target.retries,
        kept="Nothing was scored; what was answered is kept, and the same command goes on there.",
        # The address has its path.
        path_of=lambda request: "",
    )
    endpoint = Endpoint(target.url, target.key, target.model, target.model, shape=target.shape)
    await how.ask(endpoint, [request for request in requests if request.key not in store.settled], keep)
    if unanswered:
        raise ServerError(
            f"{len(unanswered)} of {len(requests)} requests were not answered by {target.url} after {target.retries}"
            f" further tries each. The last reason given: {unanswered[-1].rstrip('.')}. {how.kept} Give a request more time, or"
            " ask fewer at once, if they timed out."
        )
    answers = read_settled(store.path)
    return [answers[request.key] for request in requests]


def _check_kind(task: NativeTask, prompts: PromptSet, target: Target) -> None:
    """Refuse items that the endpoint's address cannot take: it takes either chats or plain prompts."""
    path = PATHS[target.kind]
    others = [prompt["id"] for prompt in prompts.prompts if question_of(prompt)[0] != path]
    if others:
        has, needs = ("prompt", "messages") if target.kind == "chat" else ("messages", "prompt")
        other_kind = "completions" if target.kind == "chat" else "chat"
        raise RecordError(
            f"{task.data}: {len(others)} of {len(prompts.prompts)} items (such as {others[0]!r}) have {has!r}, which"
            f" an endpoint of type {target.kind!r} does not take. Give them {needs!r}, or evaluate them against one of type"
            f" {other_kind!r}."
        )


def _provenance(target: Target, prompts: Path) -> dict[str, Any]:
    """The provenance of the numbers; of the model, only its name is known here."""
    return {
        "model": target.model,
        "prompts": hashlib.sha256(prompts.read_bytes()).hexdigest(),
        "versions": {"milepost": __version__, "python": platform.python_version()},
        "commit": commit(),
    }

"""Digests of all that decides a campaign's numbers: what is asked, of which model, and how it is scored.

The rules hand these digests to their steps as parameters, so that a step runs again when one changes; each number carries
those that made it, and what is shown of a campaign takes no number that bears others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from milepost.campaign.identity import DigestCache, identify
from milepost.campaign.shown import Current
from milepost.campaign.types import Campaign, Checkpoint, NativeTask, NemoTask, Task
from milepost.code_digest import SCRIPTS, code_digest
from milepost.errors import ModelError
from milepost.preflight.campaign import scorer_of
from milepost.scorers import scorer_module
from milepost.tasks.data_files import data_file
from milepost.tasks.lm_eval_files import files_digest


def digest_of(decides: Any) -> str:
    """Digest of a value that can be written as JSON.

    >>> digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:32]


@cache
def code_of(script: str, *modules: str) -> str:
    """Digest of a step's code, and of modules that it loads by name."""
    return code_digest(SCRIPTS / script, *modules)


def questions(task: Task, limit: int | None, digests: DigestCache) -> dict[str, Any]:
    """All that decides what a task asks: its part of the task's file, its data or the harness's files, and the limit.

    Args:
        task: The task.
        limit: The campaign's.
        digests: Digests of files; the caller saves them.

    Raises:
        ConfigError, HarnessError: A harness's files cannot be found.
    """
    asked = {**task.questions(), "campaign_limit": limit}
    if isinstance(task, NemoTask):
        asked["files"] = files_digest(task, digests)
    elif isinstance(task, NativeTask):
        path = data_file(task)
        asked["data_digests"] = [digests.digest(path)] if path.is_file() else []
    return asked


def asked_digest(task: Task, limit: int | None, digests: DigestCache) -> str:
    """Digest of all that decides what a task asks, the code of its step included."""
    return digest_of([questions(task, limit, digests), code_of("prepare_prompts.py")])


def scoring(task: Task, digests: DigestCache) -> dict[str, Any]:
    """All that decides how a task's answers are scored, the code aside; with who is asked for it, and the user's files.

    Raises:
        ConfigError: An endpoint that does not exist.
    """
    decides = task.scoring()
    if isinstance(task, NativeTask):
        scorer = scorer_of(task)
        own = scorer.own_options
        decides["scorer"] = {key: value for key, value in decides["scorer"].items() if key not in own}
        decides["asked"] = scorer.decides()
        files = [Path(path) for path in scorer.needs().files]
        decides["files"] = [digests.digest(path) for path in files if path.is_file()]
    return decides


def scoring_code(task: Task) -> str:
    """Digest of the code that scores a task's answers, its scorer's included."""
    if isinstance(task, NativeTask):
        return code_of("score_answers.py", scorer_module(task.scorer["name"]))
    return code_of("score_harness.py")


def scored_digest(task: Task, digests: DigestCache) -> str:
    """Digest of all that decides how a task's answers are scored, the code included."""
    return digest_of([scoring(task, digests), scoring_code(task)])


def current_digests(campaign: Campaign, digests: DigestCache) -> Current:
    """The digests of all that decides today's numbers of a campaign.

    A checkpoint whose files are gone is left out: its numbers stand, and nothing can tell that they are of another model.
    """
    limit = campaign.config.get("limit")
    return Current(
        asked={name: asked_digest(task, limit, digests) for name, task in campaign.tasks.items()},
        scored={name: scored_digest(task, digests) for name, task in campaign.tasks.items()},
        models=dict(_models(campaign.checkpoints.values(), digests)),
    )


def _models(ckpts: Iterable[Checkpoint], digests: DigestCache) -> Iterable[tuple[str, str]]:
    for ckpt in ckpts:
        try:
            yield ckpt.name, str(identify(ckpt, digests)["digest"])
        except ModelError:
            continue


def shown_record(campaign: Campaign, options: Iterable[str] = (), current: Current | None = None) -> dict[str, Any]:
    """Make the settings of a step that shows results; see `campaign.shown`.

    Args:
        campaign: The campaign.
        options: Which options of its configuration the step reads.
        current: What decides today's numbers, for steps that read numbers.
    """
    from milepost.campaign.shown import Point, Shown, ShownTask

    return Shown(
        checkpoints={name: Point(name, ckpt.run, ckpt.step) for name, ckpt in campaign.checkpoints.items()},
        tasks={name: ShownTask(task.title, task.beside) for name, task in campaign.tasks.items()},
        config={name: campaign.config[name] for name in options if name in campaign.config},
        current=current or Current(),
    ).record()

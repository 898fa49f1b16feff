"""Loads a campaign from its config folder, and finds mistakes in it before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from milepost.campaign.config import complete_config, load_config, load_task
from milepost.campaign.frozen import freeze
from milepost.campaign.models import find_model, has_chat_template
from milepost.campaign.sheet import read_checkpoints, read_rows
from milepost.campaign.types import Campaign, NativeTask, Task
from milepost.comparisons.pairs import plan_pairs
from milepost.endpoints.specs import checkpoint_at, load_endpoints
from milepost.errors import ConfigError, ModelError
from milepost.records import Prompt
from milepost.runtime.environments import environment_python
from milepost.schemas import check_names
from milepost.scorers import BaseScorer, CheckpointTask, check_scoring, load_scorer
from milepost.statistics.samples_at_k import names_at
from milepost.tasks import asks_chat, load_items
from milepost.tasks.data_files import is_here


def load_campaign(config: Mapping[str, Any] | None = None) -> Campaign:
    """Read and check the campaign in the current folder.

    Raises:
        ConfigError: An unknown key, task or profile, a wrong value, or a checkpoint named twice.
    """
    config = load_config() if config is None else complete_config(config)
    check_names(config["tasks"], "config/config.yaml, tasks")
    tasks = {name: load_task(name) for name in config["tasks"]}
    sheet = Path(config["checkpoints"])
    checkpoints = read_checkpoints(sheet, config.get("model_profiles", {}), checkpoint_at)
    load_endpoints()  # also where nothing refers to one: a wrong entry is found before it is needed
    return Campaign(config, checkpoints, tasks)


def freeze_campaign(campaign: Campaign) -> Path:
    """Write the copy of the configuration that this run's steps and jobs read; returns its folder."""
    sheet = Path(campaign.config["checkpoints"])
    return freeze(campaign.config, read_rows(sheet), list(campaign.tasks))


def check_campaign(campaign: Campaign, *, installed: bool = True, fetched: bool = True) -> None:
    """Check all that can be checked before anything runs: comparisons, models, chat templates, items, scoring.

    Args:
        campaign: The campaign.
        installed: Whether the environments that scorers start have to be there.
        fetched: Whether data that comes from the hub has to be there.

    Raises:
        ConfigError: A checkpoint or run to be compared that does not exist, or a scorer that cannot do what it should.
        ModelError: A model folder that is missing, or has no chat template where a task chats.
        RecordError: Items that are malformed, empty, share an id or cannot be scored; names file and line, or the item.
        EnvironmentMissingError: An environment that a scorer starts is not installed.
    """
    plan_pairs(campaign.config, campaign.checkpoints)
    items = {name: load_items(task) for name, task in campaign.tasks.items() if fetched or is_here(task)}
    for each in campaign.tasks.values():
        check_k(each)
    for name, task in campaign.native.items():
        if name in items:
            check_task(task, items[name])
        if installed:
            for environment in scorer_of(task).needs().environments:
                environment_python(environment)
    chats = [name for name in items if asks_chat(campaign.tasks[name], items[name])]
    for ckpt in campaign.checkpoints.values():
        folder = find_model(ckpt)
        if folder is not None and chats and not has_chat_template(folder, ckpt.serving):
            raise ModelError(
                f"Checkpoint {ckpt.name!r}: the tokenizer in {folder} has no chat template, and {_listed(chats)} chats."
                " Add one (vllm_args: --chat-template FILE), or ask with 'prompt' in place of 'messages'."
            )


def scorer_of(task: NativeTask) -> BaseScorer:
    """Build the scorer of a native task, before there are answers.

    Raises:
        ConfigError: Options that it cannot use; the message names the task's file.
    """
    try:
        return load_scorer(task.scorer, CheckpointTask(None, task.name))
    except ConfigError as error:
        raise type(error)(f"config/tasks/{task.name}.yaml: {error}") from None


def check_task(task: NativeTask, items: Sequence[Prompt]) -> None:
    """Check that a native task can be scored, before a model is asked anything.

    Raises:
        ConfigError: A metric, endpoint or option that cannot be.
        RecordError: An item that cannot be scored.
    """
    named = [task.metric] if task.metric is not None else []
    at_k = names_at(task.k)
    beside = [name for name in task.beside if name not in at_k]
    check_scoring(scorer_of(task), items, f"config/tasks/{task.name}.yaml", [*named, *beside])


def check_k(task: Task) -> None:
    """See that a task has as many samples as its `k` draws.

    Raises:
        ConfigError: It has fewer.
    """
    most, samples = max(task.k, default=1), task.samples
    if most > samples:
        raise ConfigError(
            f"config/tasks/{task.name}.yaml asks for pass@{most} (`k`) of {samples} sample{'s' if samples > 1 else ''} per "
            f"item. Raise `samples` to {most} or more, or take {most} out of `k`."
        )


def _listed(names: Iterable[str]) -> str:
    return "task " + ", ".join(repr(name) for name in names)

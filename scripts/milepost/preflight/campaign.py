"""Load a campaign from its config folder, and check what can be seen to be wrong before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from milepost.campaign.config import load_config, load_task
from milepost.campaign.frozen import freeze
from milepost.campaign.models import find_model, has_chat_template
from milepost.campaign.schemas import check
from milepost.campaign.sheet import read_checkpoints, read_rows
from milepost.campaign.types import Campaign
from milepost.comparisons.pairs import plan_pairs
from milepost.endpoints.specs import checkpoint_at, load_endpoints
from milepost.errors import ModelError
from milepost.scorers.avert.settings import compared_by
from milepost.tasks import asks_chat, load_items


def load_campaign(config: Mapping[str, Any] | None = None) -> Campaign:
    """Read and check the campaign in the current folder.

    Raises:
        ConfigError: An unknown key, task or profile, a wrong value, or a checkpoint named twice.
    """
    config = dict(config if config is not None else load_config())
    check(config, "config", "config/config.yaml")
    tasks = {name: load_task(name) for name in config["tasks"]}
    sheet = Path(config.get("checkpoints", "config/checkpoints.tsv"))
    checkpoints = read_checkpoints(sheet, config.get("model_profiles", {}), checkpoint_at)
    load_endpoints()  # also where nothing refers to one: a wrong entry is found before it is needed
    return Campaign(config, checkpoints, tasks)


def freeze_campaign(campaign: Campaign) -> Path:
    """Write the copy of the configuration that this run's steps and jobs read; returns its folder."""
    sheet = Path(campaign.config.get("checkpoints", "config/checkpoints.tsv"))
    return freeze(campaign.config, read_rows(sheet), list(campaign.tasks))


def check_campaign(campaign: Campaign) -> None:
    """What can be seen to be wrong before anything runs: comparisons, models, chat templates, items.

    Raises:
        ConfigError: A checkpoint or run to be compared that does not exist.
        ModelError: A model folder that is missing, or has no chat template where a task chats.
        RecordError: Items that are malformed, empty or share an id; names file and line.
    """
    plan_pairs(campaign.config, campaign.checkpoints)
    for task in campaign.tasks.values():
        if task.spec.get("scorer", {}).get("name") == "avert":
            compared_by(task.spec["scorer"], task.name)
    chats = [name for name, task in campaign.tasks.items() if asks_chat(task, load_items(task))]
    for ckpt in campaign.checkpoints.values():
        folder = find_model(ckpt)
        if folder is not None and chats and not has_chat_template(folder, ckpt.serving):
            raise ModelError(
                f"Checkpoint {ckpt.name!r}: the tokenizer in {folder} has no chat template, and {_listed(chats)} chats."
                " Add one (vllm_args: --chat-template FILE), or ask with 'prompt' in place of 'messages'."
            )


def _listed(names: Iterable[str]) -> str:
    return "task " + ", ".join(repr(name) for name in names)

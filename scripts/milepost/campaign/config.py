"""The files of a campaign's config folder, read and checked against closed schemas: config.yaml and the tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from milepost.campaign.frozen import config_folder, frozen_folder
from milepost.campaign.sampling import AT_MOST, REST, SOURCE, task_sampling
from milepost.campaign.types import LONGEST, NAME, NativeTask, NemoTask, Task
from milepost.errors import ConfigError, UnknownScorerError, UnknownTaskError, did_you_mean
from milepost.schemas import SCHEMAS, check, defaults, expand, read_yaml, with_defaults

RESERVED = "all"  # results/figures/all.svg is of all tasks


def load_config() -> dict[str, Any]:
    """The campaign's configuration as Snakemake merged it, or config/config.yaml when a step is run by hand; checked.

    A run writes it down when it starts (see frozen.py), so that `--configfile` and `--config` hold in every step.
    """
    frozen = frozen_folder()
    return complete_config(
        json.loads((frozen / "config.json").read_bytes()) if frozen else read_yaml(Path("config/config.yaml"))
    )


def complete_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with everything in its place: checked, with whole paths, and the schema's defaults.

    Raises:
        ConfigError: An unknown key, or a wrong value.
    """
    check(given, "config", "config/config.yaml")
    return with_defaults(expand(given, "config", "config/config.yaml"), "config")


def load_task(name: str) -> Task:
    """Read and check config/tasks/{name}.yaml.

    Raises:
        UnknownTaskError: There is no such file; the message names those that there are.
    """
    path = config_folder() / "tasks" / f"{name}.yaml"
    if not re.fullmatch(NAME, name) or len(name) > LONGEST or not path.is_file():
        known = sorted(file.stem for file in Path("config/tasks").glob("*.yaml"))
        add = f", or add {path}" if re.fullmatch(NAME, name) and len(name) <= LONGEST else ""
        raise UnknownTaskError(
            f"config/config.yaml asks for task {name!r}. Tasks in config/tasks: {', '.join(known) or 'none'}."
            f"{did_you_mean(name, known)} Correct the name{add}."
        )
    if name.casefold() == RESERVED:
        raise ConfigError(f"A task is named {name!r}, as the sheet of all figures is. Rename {path}.")
    content = read_yaml(path)
    make = nemo_task if content.get("harness") == "nemo" else native_task
    return make(name, content, str(path))


def native_task(name: str, content: Mapping[str, Any], where: str) -> NativeTask:
    """Check what a task's file says, and make the task.

    Raises:
        ConfigError: An unknown key, scorer or option of it, or a wrong value.
    """
    content = dict(content)
    if "sampling" in content:
        content["sampling"] = task_sampling(content["sampling"])
    check(content, "task_native", where)
    check_scorer(content["scorer"], where)
    content = expand(content, "task_native", where)
    schema = f"scorers/{content['scorer']['name']}"
    # The defaults stand with what the scorer is told: they decide scores as much as what the file says.
    scorer = with_defaults(expand(content["scorer"], schema, f"{where}, scorer"), schema)
    given = content.get("sampling", {})
    sampling = {**defaults("task_native", "sampling"), **given}
    if AT_MOST in sampling and sampling["max_tokens"] != REST:
        raise ConfigError(
            f"{where}: `at_most` in `sampling` is for `max_tokens: rest`, and `max_tokens` is {sampling['max_tokens']}. Take "
            "one of them out."
        )
    if SOURCE in given and "temperature" not in given:
        del sampling["temperature"]
    return NativeTask(**_fields(NativeTask, name, {**content, "scorer": scorer, "sampling": sampling}))


def nemo_task(name: str, content: Mapping[str, Any], where: str) -> NemoTask:
    """Check what the file of a task of NeMo Evaluator says, and make the task.

    Raises:
        ConfigError: An unknown key, or a wrong value.
    """
    check(content, "task_nemo", where)
    content = {"params": {}, "adapter": {}, **expand(content, "task_nemo", where)}
    bounds = content.get("range")
    return NemoTask(**_fields(NemoTask, name, {**content, "range": tuple(bounds) if bounds else None}))


def _fields(kind: type[Task], name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task: what its file says, and the schema's defaults for the rest."""
    values = {**defaults(f"task_{kind.kind}"), "title": name, **content, "name": name}
    values |= {key: tuple(content.get(key, ())) for key in ("k", "beside")}
    return {field.name: values.get(field.name) for field in fields(kind)}


def check_scorer(spec: Mapping[str, Any], where: str) -> None:
    """Check a task's `scorer` against the schema of the scorer that it names.

    Raises:
        UnknownScorerError: No such scorer; the message names those that there are.
    """
    name = spec["name"]
    known = sorted(file.stem for file in (SCHEMAS / "scorers").glob("*.yaml"))
    if name not in known:
        raise UnknownScorerError(
            f"{where} asks for scorer {name!r}. Scorers: {', '.join(known)}.{did_you_mean(name, known)} "
            "Correct the name, or add a module to scripts/milepost/scorers with its schema in config/schemas/scorers."
        )
    check(spec, f"scorers/{name}", f"{where}, scorer")

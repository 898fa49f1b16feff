"""The files of a campaign's config folder, read and checked against closed schemas: config.yaml and the tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.campaign.frozen import config_folder, frozen_folder
from milepost.campaign.sampling import task_sampling
from milepost.campaign.schemas import SCHEMAS, check, expand, read_yaml
from milepost.campaign.types import LONGEST, NAME, Task
from milepost.errors import ConfigError, UnknownScorerError, UnknownTaskError, did_you_mean

RESERVED = "all"  # results/figures/all.svg is of all tasks


def load_config() -> dict[str, Any]:
    """The campaign's configuration as Snakemake merged it, or config/config.yaml when a step is run by hand.

    A run writes it down when it starts (see frozen.py), so that `--configfile` and `--config` hold in every step.
    """
    frozen = frozen_folder()
    return dict(json.loads((frozen / "config.json").read_bytes()) if frozen else read_yaml(Path("config/config.yaml")))


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
    spec = read_yaml(path)
    if spec.get("harness") == "nemo":
        check(spec, "task_nemo", str(path))
    else:
        if "sampling" in spec:
            spec["sampling"] = task_sampling(spec["sampling"])
        check(spec, "task_native", str(path))
        check_scorer(spec["scorer"], str(path))
    if name.casefold() == RESERVED:
        raise ConfigError(f"A task is named {name!r}, as the sheet of all figures is. Rename {path}.")
    spec = expand(spec, "task_nemo" if spec.get("harness") == "nemo" else "task_native", str(path))
    if "scorer" in spec:
        spec["scorer"] = expand(spec["scorer"], f"scorers/{spec['scorer']['name']}", f"{path}, scorer")
    return Task(name, spec)


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

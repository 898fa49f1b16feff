"""The files of a campaign's config folder, read and checked against closed schemas: config.yaml and the tasks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.campaign.sampling import task_sampling
from milepost.campaign.schemas import SCHEMAS, check, read_yaml
from milepost.campaign.types import NAME, Task
from milepost.errors import UnknownScorerError, UnknownTaskError, did_you_mean


def load_config() -> dict[str, Any]:
    """The campaign's configuration as Snakemake merged it, or config/config.yaml when a step is run by hand.

    The workflow hands its configuration down in the environment, so that `--configfile` and `--config` hold in every
    step without becoming a parameter that would rerun it.
    """
    handed = os.environ.get("MILEPOST_CONFIG")
    config = json.loads(handed) if handed else read_yaml(Path("config/config.yaml"))
    return dict(config)


def load_task(name: str) -> Task:
    """Read and check config/tasks/{name}.yaml.

    Raises:
        UnknownTaskError: There is no such file; the message names those that there are.
    """
    path = Path("config/tasks") / f"{name}.yaml"
    if not re.fullmatch(NAME, name) or not path.is_file():
        known = sorted(file.stem for file in Path("config/tasks").glob("*.yaml"))
        raise UnknownTaskError(
            f"config/config.yaml asks for task {name!r}. Tasks in config/tasks: {', '.join(known) or 'none'}."
            f"{did_you_mean(name, known)} Correct the name, or add {path}."
        )
    spec = read_yaml(path)
    if spec.get("harness") == "nemo":
        check(spec, "task_nemo", str(path))
    else:
        if "sampling" in spec:
            spec["sampling"] = task_sampling(spec["sampling"])
        check(spec, "task_native", str(path))
        check_scorer(spec["scorer"], str(path))
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

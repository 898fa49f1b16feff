"""Keeps a run's own copy of its configuration: edits during a run take effect in the next one.

A run that was started writes down the configuration as it was merged and checked; each of its steps, and each of its jobs
on a cluster, reads that copy. It lies in a folder that is named by its content, so that it never changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The environment variable that names the copy in the steps of a run.
FROZEN = "MILEPOST_CAMPAIGN"
FOLDER = Path(".snakemake/milepost")
KEPT_S = 60 * 24 * 3600.0  # jobs on a cluster may outlive the run that submitted them


def frozen_folder() -> Path | None:
    """The folder of the configuration's copy that this run reads, or None outside of a run."""
    folder = os.environ.get(FROZEN)
    return Path(folder) if folder else None


def config_folder() -> Path:
    """The folder of tasks and endpoints: the run's own copy, or the campaign's `config` outside a run."""
    return frozen_folder() or Path("config")


def config_option(name: str) -> Any:
    """An option of the configuration that this process reads: of the run's own copy, or of config/config.yaml outside a run."""
    frozen = frozen_folder()
    if frozen is not None:
        return json.loads((frozen / "config.json").read_bytes()).get(name)
    path = Path("config/config.yaml")
    if not path.is_file():
        return None
    import yaml  # here: steps that ask nobody import this module by the thousand

    config = yaml.safe_load(path.read_bytes())
    return config.get(name) if isinstance(config, dict) else None


def freeze(config: Mapping[str, Any], rows: Sequence[Mapping[str, str]], tasks: Sequence[str]) -> Path:
    """Write a run's copy of the configuration in the current folder.

    Args:
        config: config.yaml, as it was merged with what the command line says.
        rows: The rows of the sheet; patterns are spread over the folders that fit.
        tasks: Names of the tasks.

    Returns:
        The copy's folder.
    """
    files = {"config.json": json.dumps(config, sort_keys=True), "checkpoints.json": json.dumps(list(rows))}
    sources = [Path("config/tasks") / f"{name}.yaml" for name in tasks]
    files |= {f"tasks/{path.name}": path.read_text(encoding="utf-8") for path in sources}
    for others in (Path("config/endpoints.yaml"), Path("config/presets.yaml")):
        if others.is_file():
            files[others.name] = others.read_text(encoding="utf-8")
    folder = FOLDER / hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        for name, content in files.items():
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        try:
            unfinished.rename(folder)
        except OSError:  # another run of this campaign was quicker
            shutil.rmtree(unfinished, ignore_errors=True)
    os.utime(folder)
    remove_old(folder.parent)
    return folder


def write_settings(settings: Any) -> str:
    """Write what a step is told, into a file that is named by its content; returns the file's path."""
    path = Path(settings_path(settings))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(settings), encoding="utf-8")
        unfinished.replace(path)
    return str(path)


def settings_path(settings: Any) -> str:
    """The path to which `write_settings` writes a step's settings."""
    # Not sorted: the order of checkpoints and tasks is that of the tables.
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    return str(FOLDER / "settings" / f"{digest[:32]}.json")


def remove_old(folder: Path) -> None:
    """Remove copies that no run has begun with for two months."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != "settings" and time.time() - path.stat().st_mtime > KEPT_S:
            shutil.rmtree(path, ignore_errors=True)

"""Finds the stored runs of a NeMo Evaluator task and those that are missing, and copies their results."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from milepost.nemo.results import LM_EVAL, newest_samples, stated_by_lm_eval
from milepost.records import TaskHeader, write_record

DONE = "done.json"


def run_folders(store: Path, digest: str, header: TaskHeader) -> list[Path]:
    """The folders of a task's runs, one per repetition.

    A folder belongs to one model and one configuration: lm-eval keeps a cache in it that would answer for another model.

    Args:
        store: results/store/{ckpt}.
        digest: The model's.
        header: The task's.
    """
    asked = json.dumps([digest, header["generation"], header.get("harness", {})], sort_keys=True)
    folder = store / header["task"] / hashlib.sha256(asked.encode()).hexdigest()[:16]
    return [folder / f"run-{repetition}" for repetition in range(header["samples"])]


def is_done(folder: Path) -> bool:
    """Whether a run has ended well, as `run` found it."""
    return (folder / DONE).is_file()


def missing_runs(store: Path, digest: str, header: TaskHeader) -> list[tuple[int, Path]]:
    """The runs of a task that have not ended well yet: number and folder.

    Args:
        store: results/store/{ckpt}.
        digest: The model's.
        header: The task's.
    """
    folders = run_folders(store, digest, header)
    return [(number, folder) for number, folder in enumerate(folders) if not is_done(folder)]


def collect(folders: list[Path], to: Path) -> None:
    """Copy the finished runs' results and samples to `to`; the raw folders stay in the store."""
    shutil.rmtree(to, ignore_errors=True)
    for folder in folders:
        target = to / folder.name
        target.mkdir(parents=True)
        for name in ("results.yml", "eval_factory_metrics.json", DONE):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
        for path in newest_samples(folder):
            shutil.copyfile(path, target / path.name)
        if stated := stated_by_lm_eval(folder):
            write_record(target / LM_EVAL, stated)

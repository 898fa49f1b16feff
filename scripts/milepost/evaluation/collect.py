"""Collects a task's answers from the store as declared results: all of them, or none and the reason."""

from __future__ import annotations

import json
from pathlib import Path

from milepost.evaluation.work import requests_of, store_file
from milepost.records import Answer, PromptSet, TaskHeader
from milepost.store.answers import STORE, read_settled


class IncompleteError(Exception):
    """The store does not answer everything that the task asks."""


def collect_answers(ckpt: str, digest: str, prompts: PromptSet) -> list[Answer]:
    """Collect the answers of a checkpoint to a native task, sorted by item (in the prompts' order) and sample.

    Raises:
        IncompleteError: Some are missing.
    """
    settled = read_settled(store_file(ckpt, prompts.header["task"]))
    requests = list(requests_of(prompts, digest))
    missing = sum(request.key not in settled for request in requests)
    if missing:
        raise IncompleteError(f"{missing} of {len(requests)} answers are missing")
    return [settled[request.key] for request in requests]


def finished_runs(ckpt: str, digest: str, header: TaskHeader) -> list[Path]:
    """The folders of a NeMo task's runs.

    Raises:
        IncompleteError: Some have not ended well.
    """
    from milepost.nemo import run as nemo

    folders = nemo.run_folders(STORE / ckpt, digest, header)
    missing = sum(not nemo.is_done(folder) for folder in folders)
    if missing:
        raise IncompleteError(f"{missing} of {len(folders)} runs of NeMo Evaluator are missing")
    return folders


def withdraw(note: Path, task: str, error: IncompleteError) -> str:
    """Mark a checkpoint's note as withdrawn, so that the next run goes on with it.

    The note itself stays until the end of this run: removing it now would take waiting jobs with it.

    Returns:
        A sentence for the user.
    """
    note.with_name(f"{note.name}.withdrawn").touch()
    try:
        reason = json.loads(note.read_bytes())["tasks"][task].get("error")
    except (OSError, ValueError, KeyError, TypeError):
        reason = None
    because = f" The last reason given: {str(reason).rstrip('.')}." if reason else ""
    return (
        f"IncompleteError: {note.stem}, task {task!r}: {error}.{because} What there is stays stored; run the same command"
        " again, and it asks for the rest."
    )

"""Collects a task's answers from the store as declared results: all of them, or none and the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from milepost.evaluation.work import requests_of, store_file
from milepost.nemo.runs import missing_runs, run_folders
from milepost.records import Answer, PromptSet, TaskHeader, write_record
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
    """The folders of the runs of a task of NeMo Evaluator.

    Raises:
        IncompleteError: Some have not ended well.
    """
    missing = len(missing_runs(STORE / ckpt, digest, header))
    folders = run_folders(STORE / ckpt, digest, header)
    if missing:
        raise IncompleteError(f"{missing} of {len(folders)} runs of NeMo Evaluator are missing")
    return folders


def stamp_of(collected: Path) -> Path:
    """The file beside collected answers that says what they answer.

    >>> stamp_of(Path("results/answers/c1/t1.jsonl"))
    PosixPath('results/answers/c1/.t1.json')
    """
    return collected.with_name(f".{collected.name.removesuffix('.jsonl')}.json")


def stamp(collected: Path, asked: str | None, model: str, code: str) -> None:
    """Write down what collected answers answer: digests of the questions and of the model, and of the code that collected."""
    write_record(stamp_of(collected), {"asked": asked, "model": model, "code": code})


def is_current(collected: Path, asked: str, model: str, code: str) -> bool:
    """Whether collected answers are there and answer today's questions by today's model.

    Nothing has to be evaluated or collected for them then, whatever else runs.
    """
    if not collected.exists():
        return False
    try:
        return bool(json.loads(stamp_of(collected).read_bytes()) == {"asked": asked, "model": model, "code": code})
    except (OSError, ValueError):
        return False


def set_aside(collected: Path) -> None:
    """Move answers to other questions out of the way, to `.TASK.earlier` beside them: only a store that is whole has them too."""
    earlier = collected.with_name(f".{collected.name.removesuffix('.jsonl')}.earlier")
    if earlier.is_dir():
        shutil.rmtree(earlier)
    collected.replace(earlier)


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

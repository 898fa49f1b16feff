"""Finds what is scored so far, while a campaign runs or after it failed, and why the other scores are missing.

Files are only read, and may appear, vanish or be rewritten meanwhile. A summary that answers other questions than today's
counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.campaign.shown import Shown
from milepost.campaign.types import Campaign, Checkpoint, NativeTask, Task
from milepost.errors import RecordError
from milepost.records import Summary, read_summary

# Bytes at the end of a log that are read.
TAIL_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class MissingRow:
    """One line of missing.csv: a checkpoint and a task without a score. `state` says how far it came, `reason` why."""

    ckpt: str
    task: str
    title: str
    state: str
    reason: str | None = None


@dataclass(frozen=True)
class Cell:
    """One checkpoint on one task, in the folders of a campaign; `prompts` and `model` are today's digests, if known."""

    results: Path
    logs: Path
    ckpt: Checkpoint
    task: Task
    prompts: str | None
    model: str | None

    @property
    def summary(self) -> Path:
        """Path of the summary."""
        return self.results / "summaries" / self.ckpt.name / f"{self.task.name}.json"

    @property
    def scores(self) -> Path:
        """Path of the scores."""
        return self.results / "scores" / self.ckpt.name / f"{self.task.name}.jsonl"

    @property
    def answers(self) -> Path:
        """Path of the collected answers: a file, or for NeMo Evaluator a folder."""
        if self.task.kind == "nemo":
            return self.results / "harness" / self.ckpt.name / self.task.name
        return self.results / "answers" / self.ckpt.name / f"{self.task.name}.jsonl"

    @property
    def store(self) -> Path:
        """Path of the stored answers, as they came: a file, or for NeMo Evaluator a folder with its runs."""
        name = self.task.name if self.task.kind == "nemo" else f"{self.task.name}.jsonl"
        return self.results / "store" / self.ckpt.name / name

    def log(self, step: str) -> Path:
        """Path of the log of a step for this checkpoint and task."""
        return self.logs / step / self.ckpt.name / f"{self.task.name}.log"


def take_snapshot(campaign: Campaign, shown: Shown, into: Path, results: Path, logs: Path) -> list[MissingRow]:
    """Put the usable summaries with their scores into a folder, where no running step changes them.

    Args:
        campaign: What should be there.
        shown: What decides its numbers today.
        into: A new folder; gets scores/ and summaries/.
        results: The campaign's results.
        logs: The campaign's logs.

    Returns:
        A row for each missing score, in the campaign's order.
    """
    missing = []
    prompts = {name: _digest(results / "prompts" / f"{name}.jsonl") for name in campaign.tasks}
    for ckpt in campaign.checkpoints.values():
        model = _model(results / "models" / f"{ckpt.name}.json")
        for task in campaign.tasks.values():
            row = _take(Cell(results, logs, ckpt, task, prompts[task.name], model), shown, into)
            if row is not None:
                missing.append(row)
    return missing


def read_note(results: Path, ckpt: str) -> dict[str, Any]:
    """Read the note of a checkpoint's evaluation; empty if there is none, or none that can be read."""
    try:
        note = json.loads((results / "evaluated" / f"{ckpt}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and isinstance(note.get("tasks"), dict) else {}


def state_of(cell: Cell) -> MissingRow:
    """Find out how far a checkpoint came on a task that has no summary, and why it came no further."""
    note = read_note(cell.results, cell.ckpt.name).get("tasks", {}).get(cell.task.name)
    if cell.answers.exists():
        return _row(cell, "collected, not scored", _last_words(_log_of_scoring(cell)))
    # The note of an incomplete evaluation is removed when the run ends, but the log of the collecting step says why, too.
    last_line = _last_words(cell.log("collect_harness" if cell.task.kind == "nemo" else "collect_answers"))
    if isinstance(note, dict):
        if note.get("missing"):
            unit = "runs" if cell.task.kind == "nemo" else "answers"
            counts = f"{note['missing']} of {note['missing'] + note.get('done', 0)} {unit} are missing"
            return _row(cell, "evaluated, incomplete", ". ".join(filter(None, [counts, note.get("error")])))
        return _row(cell, "evaluated, not collected", last_line)
    stored = _stored(cell)
    if stored:
        progress = f"{stored} stored so far"
        return _row(cell, "not finished", f"{progress}. At the last try: {last_line}" if last_line else progress)
    log = cell.logs / "evaluate_checkpoint" / f"{cell.ckpt.name}.log"
    last = _last_words(log)
    return _row(cell, "not evaluated", f"The log of its evaluation ends: {last}" if last else None)


def by_state(missing: Iterable[MissingRow]) -> dict[str, int]:
    """Count the missing scores by state."""
    counts: dict[str, int] = {}
    for row in missing:
        counts[row.state] = counts.get(row.state, 0) + 1
    return counts


def _take(cell: Cell, shown: Shown, into: Path) -> MissingRow | None:
    """Link a usable summary and its scores into the snapshot and return None; otherwise return why it is missing."""
    kept = into / "summaries" / cell.ckpt.name / cell.summary.name
    kept_scores = into / "scores" / cell.ckpt.name / cell.scores.name
    try:
        _link(cell.summary, kept)
        _link(cell.scores, kept_scores)
        summary = read_summary(kept)
        other = _other_configuration(cell, shown, summary)
    except FileNotFoundError:
        # Never made, or being made anew: a step's outputs are removed before it begins.
        row: MissingRow | None = state_of(cell)
    except (RecordError, OSError, KeyError, TypeError) as error:
        row = _row(cell, "cannot be read", f"{type(error).__name__}: {error}")
    else:
        row = _row(cell, "outdated", f"{other}; run the campaign to make it anew") if other else None
    if row is not None:
        kept.unlink(missing_ok=True)
        kept_scores.unlink(missing_ok=True)
    return row


def _other_configuration(cell: Cell, shown: Shown, summary: Summary) -> str | None:
    """What has changed since a summary was made, so that its number is outdated; None if nothing has."""
    task, facts = cell.task, summary["provenance"]
    if summary["task_version"] != task.version:
        return f"scored for version {summary['task_version']} of the task, which is now {task.version}"
    if isinstance(task, NativeTask) and summary["scorer"] != task.scorer["name"]:
        return f"scored by {summary['scorer']}, and the task now asks for {task.scorer['name']}"
    if cell.prompts is not None and facts.get("prompts") not in (None, cell.prompts):
        return "scored for other prompts than today's"
    if cell.model is not None and facts.get("model") not in (None, cell.model):
        return "scored for another model than today's"
    stale = shown.why_stale(summary)
    return f"{stale} changed since it was scored" if stale else None


def _row(cell: Cell, state: str, reason: str | None) -> MissingRow:
    title = cell.task.title
    return MissingRow(ckpt=cell.ckpt.name, task=cell.task.name, title=title, state=state, reason=reason or None)


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, so that its content stays when the original is removed; copy it where links are impossible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _stored(cell: Cell) -> str | None:
    """How many answers or runs the store holds of a task, in words; None if there are none."""
    if cell.task.kind == "nemo":
        runs = sum(1 for _ in cell.store.rglob("done.json"))
        return f"{runs} runs" if runs else None
    with suppress(OSError), cell.store.open("rb") as file:
        lines = sum(1 for _ in file)
        return f"{lines} answers" if lines else None
    return None


def _log_of_scoring(cell: Cell) -> Path:
    return cell.log("score_harness" if cell.task.kind == "nemo" else "score_answers")


def _last_words(log: Path) -> str | None:
    """The last line of a log that is not empty; None if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            tail = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    return next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), None)


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _model(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

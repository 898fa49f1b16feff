"""Take out of a checkpoint's store what one attempt stored: answers of a server that turned out not to be the model's."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import orjson

from milepost.errors import StoreError
from milepost.store.answers import STORE, read_lines, read_records_if_any
from milepost.store.lease import acquire
from milepost.store.ledger import LEDGER

log = logging.getLogger("milepost")
EVALUATED, ANSWERS, HARNESS = Path("results/evaluated"), Path("results/answers"), Path("results/harness")


def forget_attempt(ckpt: str, attempt: str) -> dict[str, int]:
    """Remove an attempt's answers and harness runs, and what was made of them; the next run asks for them again.

    Returns:
        How many answers of each task are gone; of a harness, runs.

    Raises:
        StoreError: No such checkpoint or attempt, or a job is at work in the store.
    """
    store = STORE / ckpt
    if not store.is_dir():
        there = sorted(path.name for path in STORE.glob("*"))
        raise StoreError(f"{store} does not exist. Checkpoints in {STORE}: {', '.join(there) or 'none'}.")
    lease, _ = acquire(store / ".lease", log.info)
    try:
        gone = {path.stem: _forget_answers(path, attempt) for path in sorted(store.glob("[!.]*.jsonl"))}
        for record in sorted(store.glob("*/*/run-*.requests.jsonl")):
            if any(line.get("attempt") == attempt for line in read_records_if_any(record)):
                run = record.with_name(record.name.removesuffix(".requests.jsonl"))
                shutil.rmtree(run, ignore_errors=True)
                record.unlink()
                task = record.parents[1].name
                gone[task] = gone.get(task, 0) + 1
    finally:
        lease.release()
    gone = {task: count for task, count in gone.items() if count}
    if not gone:
        known = [str(line.get("attempt")) for line in read_records_if_any(store / LEDGER)]
        raise StoreError(
            f"{store} holds nothing of attempt {attempt!r}. Attempts in its ledger: {', '.join(known) or 'none'}."
        )
    # Made of what is gone: nobody is to take them for whole.
    (EVALUATED / f"{ckpt}.json").unlink(missing_ok=True)
    for task in gone:
        (ANSWERS / ckpt / f"{task}.jsonl").unlink(missing_ok=True)
        shutil.rmtree(HARNESS / ckpt / task, ignore_errors=True)
    return gone


def _forget_answers(path: Path, attempt: str) -> int:
    """Write a task's file anew without an attempt's lines; how many these were."""
    lines = list(read_lines(path))
    kept = [line for line in lines if line.get("attempt") != attempt]
    if len(kept) < len(lines):
        draft = path.with_name(f".{path.name}.draft")
        with draft.open("wb") as file:
            file.writelines(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    return len(lines) - len(kept)

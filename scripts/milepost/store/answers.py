"""Answers as they come: append-only JSON Lines that outlive the job, resumable to the answer.

A line is written with one call, so that a crash of the process leaves it whole or absent; files are synced once a second
and at the end, so that a crash of the machine costs about the last second's answers, never an older one. What such a crash can
leave (a torn last line, blocks of zeros) is recognised on opening and asked again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from milepost.errors import StoreError
from milepost.records import Answer

STORE = Path("results/store")
FINAL_AFTER = 3  # jobs that tried an item and failed, after which its error is final
ANSWER_KEYS = (
    "id", "sample", "content", "reasoning", "finish_reason", "usage", "seed", "latency_s", "refusal", "tool_calls", "model",
    "fingerprint", "provider", "error",
)  # fmt: skip


class TaskStore:
    """The answers of one checkpoint to one task. Open it for writing only while holding the checkpoint's lease."""

    def __init__(self, path: Path, attempt: str) -> None:
        """Read what is there; mend the end of a file that a crash left torn."""
        self.path = path
        self.attempt = attempt
        path.parent.mkdir(parents=True, exist_ok=True)
        mend(path)
        self.settled: set[str] = set()
        self._failures: dict[str, set[str]] = {}
        for line in read_lines(path):
            if is_forgotten(line, self._failures):
                self.settled.discard(line["key"])
            elif is_settled(line, self._failures):
                self.settled.add(line["key"])
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._synced = True

    def append(self, key: str, answer: Answer, final: bool = True) -> None:
        """Store one answer. An error that may go away (`final` false) is asked again by the next job."""
        if key in self.settled:
            raise StoreError(f"{self.path} already holds an answer to {answer['id']!r}, sample {answer['sample']}.")
        record: dict[str, Any] = {"key": key, **answer, "attempt": self.attempt}
        if "error" in answer:
            record["final"] = final
        append(self._file, orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE), self.path)
        self._synced = False
        if is_settled(record, self._failures):
            self.settled.add(key)

    def sync(self) -> None:
        """Make sure that everything stored so far is on the disk."""
        if not self._synced:
            self._synced = True
            sync(self._file, self.path)

    def close(self) -> None:
        """Sync and close."""
        try:
            # Also if a sync is under way in another thread: it may not have begun.
            sync(self._file, self.path)
        finally:
            os.close(self._file)


def append(file: int, line: bytes, path: Path) -> None:
    """Write one line to the end of an open file, whole or not at all.

    Raises:
        StoreError: It could not be written.
    """
    try:
        written = os.write(file, line)
        if written < len(line):
            # Nothing may be glued to a part of a line. There is one writer: the part is the file's end.
            os.ftruncate(file, os.fstat(file).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise StoreError(unwritable(path, error)) from None


def sync(file: int, path: Path) -> None:
    """Make sure that what was written to a file is on the disk.

    Raises:
        StoreError: It cannot.
    """
    try:
        os.fdatasync(file)
    except OSError as error:
        raise StoreError(unwritable(path, error)) from None


def unwritable(path: Path, error: OSError) -> str:
    """The message of the error for a file that cannot be written."""
    return f"{path} cannot be written: {error.strerror}. What is stored already is kept: make room (disk, quota), and run again."


@contextmanager
def open_stores(folder: Path, tasks: list[str], attempt: str) -> Iterator[dict[str, TaskStore]]:
    """Open the stores of several tasks of one checkpoint, and close them at the end of the `with` block."""
    stores = {task: TaskStore(folder / f"{task}.jsonl", attempt) for task in tasks}
    try:
        yield stores
    finally:
        for store in stores.values():
            store.close()


def mend(path: Path) -> None:
    """Cut off a last line that was not written whole."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            block = file.read(end - start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the stored lines, without those that a crash of the machine destroyed (they hold zeros, which JSON never does).

    Raises:
        StoreError: A line that was damaged in another way; names file and line.
    """
    for _, record in read_places(path):
        yield record


def read_places(path: Path) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """Yield the stored lines as `read_lines` does, each with its place in the file: its first byte, and its length.

    Raises:
        StoreError: As `read_lines`.
    """
    if not path.exists():
        return
    begin, end = 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            begin, end = end, end + len(line)
            if not line.endswith(b"\n"):
                return  # `mend` will cut it off, even if only its end is missing
            try:
                record = orjson.loads(line)
                record["key"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                if b"\0" in line:
                    continue
                raise StoreError(
                    f"{path}, line {number} is damaged. Each line is one stored answer: restore the line, or remove it"
                    " to have this one asked again."
                ) from None
            yield (begin, len(line)), record


def is_settled(line: dict[str, Any], failures: dict[str, set[str]]) -> bool:
    """Whether a stored line is final: a success, an error that will not change, or an error after too many failed jobs.

    Args:
        line: A stored line.
        failures: Attempts that failed so far, by key; this line's is added.
    """
    if "error" not in line or line.get("final"):
        return True
    attempts = failures.setdefault(line["key"], set())
    attempts.add(str(line.get("attempt")))
    return len(attempts) >= FINAL_AFTER


def is_forgotten(line: dict[str, Any], failures: dict[str, set[str]]) -> bool:
    """Whether a line says that what was stored under its key is to be asked again; its failures then count no more."""
    if line.get("forgotten"):
        failures.pop(line["key"], None)
        return True
    return False


def forget(path: Path, kinds: Collection[str], attempt: str) -> int:
    """Have what is stored as an error for good asked again. Only while holding the checkpoint's lease.

    Args:
        path: The store of a checkpoint and a task.
        kinds: Of errors: `refused`, `timeout` and the like.
        attempt: Names this act in the store.

    Returns:
        How many answers are missing now that were there before.
    """
    mend(path)
    settled = read_settled(path)
    wrong = [key for key, answer in settled.items() if "error" in answer and answer["error"]["type"] in kinds]
    if wrong:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            for key in wrong:
                line = {"key": key, "forgotten": True, "attempt": attempt}
                append(file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE), path)
            sync(file, path)
        finally:
            os.close(file)
    return len(wrong)


def read_settled(path: Path) -> dict[str, Answer]:
    """The final answer of every key that has one: the latest success, or else the error."""
    failures: dict[str, set[str]] = {}
    settled: dict[str, Answer] = {}
    for line in read_lines(path):
        key = line["key"]
        if is_forgotten(line, failures):
            settled.pop(key, None)
        elif is_settled(line, failures) and ("error" not in line or key not in settled or "error" in settled[key]):
            answer: Any = {name: line[name] for name in ANSWER_KEYS if name in line}
            settled[key] = answer
    return settled


def read_records_if_any(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file of the store that has no keys, such as the ledger."""
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                continue

"""What an attempt at evaluating a checkpoint took: one line each, kept in the store, also of attempts that were killed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import orjson

from milepost.errors import RecordError
from milepost.records import Answer, LedgerLine
from milepost.store.answers import append, mend, read_records_if_any, sync

LEDGER = ".ledger.jsonl"
SUMMED = ("start_s", "busy_s", "idle_s", "requests", "tokens_in", "tokens_out")


class Ledger:
    """The running account of one attempt. Times are seconds of wall clock while the server was up."""

    def __init__(
        self,
        attempt: str,
        gpus: int,
        versions: dict[str, str],
        sampling: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Start the account of an attempt, with all times and counts at zero.

        Args:
            attempt: Names it.
            gpus: GPUs of the server.
            versions: Of what answers.
            sampling: How the server samples where a request says nothing.
        """
        self.gpus = gpus
        self._line = LedgerLine(
            attempt=attempt,
            host=socket.gethostname(),
            job=os.environ.get("SLURM_JOB_ID"),
            gpus=gpus,
            gpu_type=gpu_type() if gpus else None,
            start_s=0.0,
            busy_s=0.0,
            idle_s=0.0,
            requests=0,
            tokens_in=0,
            tokens_out=0,
            versions=versions,
            end="running",
        )
        self.sampling(sampling or {})
        self._phase: str | None = None
        self._since = 0.0
        self._under_way = 0
        # One for all, as it holds nothing: a generator for each request would cost as much as storing its answer.
        self._busy = _Busy(self)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that answer, by name; whoever learns of one adds it here."""
        return self._line["versions"]

    def sampling(self, sampling: Mapping[str, Mapping[str, Any]]) -> None:
        """Note how the server samples where a request says nothing."""
        self._line["sampling"] = {whose: dict(settings) for whose, settings in sampling.items()}

    def starting(self) -> None:
        """Note that the server is being started: its start-up time begins."""
        self._enter("start_s")

    def ready(self) -> None:
        """Note that the server can be asked: its start-up time ends."""
        self._enter("idle_s")

    def over(self) -> None:
        """Note that the server has ended."""
        self._enter(None)

    def busy(self) -> AbstractContextManager[None]:
        """Count the server as busy during a `with` block, which encloses one request."""
        return self._busy

    def answered(self, answer: Answer) -> None:
        """Count one answer, or one failure."""
        self._line["requests"] += 1
        usage = answer.get("usage")
        if usage:
            self._line["tokens_in"] += usage["prompt_tokens"]
            self._line["tokens_out"] += usage["completion_tokens"]

    def line(self, end: str = "running") -> LedgerLine:
        """The account so far, as one line of the ledger."""
        self._enter(self._phase)
        line = self._line
        rounded = {
            "start_s": round(line["start_s"], 2),
            "busy_s": round(line["busy_s"], 2),
            "idle_s": round(line["idle_s"], 2),
        }
        return cast(LedgerLine, {**line, **rounded, "end": end})

    def begin(self) -> None:
        """Note that one more request is under way."""
        self._under_way += 1
        if self._under_way == 1:
            self._enter("busy_s")

    def end(self) -> None:
        """Note that one request less is under way."""
        self._under_way -= 1
        if self._under_way == 0 and self._phase == "busy_s":
            self._enter("idle_s")

    def _enter(self, phase: str | None) -> None:
        now = time.monotonic()
        if self._phase is not None:
            self._line[self._phase] += now - self._since  # type: ignore[literal-required]
        self._phase, self._since = phase, now


class _Busy(AbstractContextManager[None]):
    """The context manager that `Ledger.busy` returns: a request is under way within it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __enter__(self) -> None:
        self._ledger.begin()

    def __exit__(self, *error: object) -> None:
        self._ledger.end()


def append_line(store: Path, line: LedgerLine) -> None:
    """Add an attempt to a checkpoint's ledger, durably; one that it holds already is not counted twice."""
    path = store / LEDGER
    mend(path)
    if any(known.get("attempt") == line["attempt"] for known in read_records_if_any(path)):
        return
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        append(handle, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE), path)
        sync(handle, path)
    finally:
        os.close(handle)


def sum_lines(store: Path) -> dict[str, Any]:
    """Sums over all attempts at a checkpoint; `gpu_s` weighs each attempt's time by its GPUs."""
    total: dict[str, Any] = {"attempts": 0, **dict.fromkeys(SUMMED, 0), "gpu_s": 0.0}
    for line in read_records_if_any(store / LEDGER):
        total["attempts"] += 1
        for name in SUMMED:
            total[name] += line.get(name, 0)
        total["gpu_s"] += line.get("gpus", 0) * sum(line.get(name, 0) for name in ("start_s", "busy_s", "idle_s"))
    return {name: round(value, 2) for name, value in total.items()}


def sums_so_far(store: Path) -> dict[str, Any]:
    """Sums over the attempts at a checkpoint; empty where there was none, or where the ledger cannot be read."""
    try:
        total = sum_lines(store)
    except (RecordError, OSError, TypeError):
        return {}
    return total if total["attempts"] else {}


def gpu_type() -> str | None:
    """Name of this host's GPU, as its driver reports it; None without a driver."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (listing.stdout.splitlines() or [None])[0]  # type: ignore[list-item]

"""A small state that processes on several hosts change in turn: one JSON object in a file that all of them see.

The file itself is locked (POSIX locks, which NFS carries between hosts and ends with their holder), read, changed and
written in place. A state that cannot be read, because a writer was killed in the middle, counts as empty. Where the file
system has no locks, or a holder hangs, the caller is told so and does without.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

PATIENCE_S = 5.0  # for a lock: its holders keep it for milliseconds
MOST_BYTES = 1 << 20

Change = Callable[[dict[str, Any]], Any]


class SharedState:
    """The state in one file. One instance serves all threads of its process."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened yet."""
        self.path = path
        # POSIX locks are the process's: its own threads need another one.
        self._mine = threading.Lock()

    def change(self, change: Change) -> Any:
        """Change the state, while nobody else can.

        Args:
            change: Called with the state, which it changes in place.

        Returns:
            What `change` returned.

        Raises:
            OSError: The file cannot be opened, locked or written.
        """
        with self._mine:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _lock(file)
                # Read after the lock is held: until then, NFS may show an older state.
                state = _parse(os.pread(file, MOST_BYTES, 0))
                result = change(state)
                data = orjson.dumps(state)
                os.ftruncate(file, len(data))
                os.pwrite(file, data, 0)
                return result
            finally:
                os.close(file)  # ends the lock


def _lock(file: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN) or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.0005, 0.003))  # noqa: S311 (jitter)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        state = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return state if isinstance(state, dict) else {}

"""Processes that end when they should: groups of their own, ended with TERM, a wait and KILL, and a watchdog for the rest."""

from __future__ import annotations

import errno
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from milepost.errors import ServerError

if TYPE_CHECKING:
    import asyncio

GRACE_S = 3.0
MARK = "MILEPOST_WATCHDOG"  # a variable in the environment of every program that a watchdog looks after
# Apptainer starts what is inside an image with the variables that begin so, and empties its own environment.
MARKS = (MARK, f"APPTAINERENV_{MARK}", f"SINGULARITYENV_{MARK}")
_WATCHDOG = Path(__file__).with_name("watchdog.py")

# Places in /proc/PID/stat after the name.
GROUP, SESSION = 2, 3


class Watchdog:
    """Ends registered process groups if this process dies without doing so itself, even by KILL.

    A small process of its own session reads a pipe; when the pipe's other end is gone, so is this process. It then ends
    the groups that it was told of, and those of any process that carries its mark: this process may have died between
    the start of a program and the word about it, and a program may have left its group.
    """

    def __init__(self) -> None:
        """Start the watchdog's process."""
        self.mark = uuid.uuid4().hex
        read_end, self._pipe = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_WATCHDOG), f"{MARK}={self.mark}"],
            stdin=read_end, start_new_session=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        os.close(read_end)
        # Wait for its first word: from then on it ignores signals, as it must one that is sent to the whole job.
        with self._process.stdout as said:  # type: ignore[union-attr]
            said.readline()

    def watch(self, group: int) -> None:
        """Register a process group."""
        self._say(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Take a process group that has ended off the watchdog's list."""
        self._say(f"-{group}\n")

    def remove(self, folder: Path) -> None:
        """Register a folder that is to be removed if this process dies."""
        self._say(f">{folder}\n")

    def keep(self, folder: Path) -> None:
        """Take a folder off the list of those to be removed."""
        self._say(f"<{folder}\n")

    def _say(self, line: str) -> None:
        # A watchdog that was killed is needed only if this process is killed as well.
        with suppress(BrokenPipeError):
            os.write(self._pipe, line.encode())

    def close(self) -> None:
        """End the watchdog, after all registered groups have ended."""
        os.close(self._pipe)
        self._process.wait()


class ProcessGroup:
    """A program in a process group of its own, writing to a log file."""

    def __init__(self, process: asyncio.subprocess.Process, watchdog: Watchdog, log: Path) -> None:
        """Made by `start`."""
        self.process = process
        self.log = log
        self._watchdog = watchdog

    @classmethod
    async def start(
        cls, command: Sequence[str], *, env: Mapping[str, str], log: Path, watchdog: Watchdog
    ) -> ProcessGroup:
        """Start a program; its output goes to the end of `log`.

        It runs under a small process that ends with this one: a watchdog may be killed together with it, as where SLURM ends
        a job's processes one by one.

        Raises:
            OSError: There is no such program.
        """
        # Here: every small step imports this module, and starts no program.
        import asyncio

        if shutil.which(command[0], path=env.get("PATH", os.defpath)) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", str(_WATCHDOG), "--run", *command,
                # Never written to: it closes with this process.
                stdin=asyncio.subprocess.PIPE, stdout=file, stderr=asyncio.subprocess.STDOUT,
                env={**env, **dict.fromkeys(MARKS, watchdog.mark)}, start_new_session=True,
            )  # fmt: skip
        watchdog.watch(process.pid)
        return cls(process, watchdog, log)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """End the group: TERM, a wait, KILL. Nothing of it is left afterwards."""
        import asyncio

        group = self.process.pid
        _signal_group(group, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and _processes(GROUP, group):
            await asyncio.sleep(0.05)
        # Also where the leader has ended: its children may not have.
        _signal_group(group, signal.SIGKILL)
        # The program that mounts a container image for it is a group of its own, in the same session, and outlives a KILL.
        for pid in _processes(SESSION, group):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.process.wait()
        self._watchdog.forget(group)

    def last_lines(self, count: int = 15) -> str:
        """The last lines of this program's log, for an error message."""
        return last_lines(self.log, count)


def last_lines(log: Path, count: int = 15) -> str:
    """The last lines of a file that are not empty."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - max(16384, 256 * count)))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-count:])


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _processes(field: int, number: int) -> list[int]:
    """The processes of a group or a session; the remains of ended ones do not count."""
    pids = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                # Bytes: the name before them is anybody's, and may be cut within a letter.
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[field]) == number and fields[0] != b"Z":
                pids.append(int(entry.name))
    return pids


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port of this host on which nobody listens at the moment."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def owner_of(port: int) -> str:
    """Who listens at a port of this host, in words, as far as anybody may see that."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                try:
                    return f"a program of the user {pwd.getpwuid(int(fields[7])).pw_name}"
                except KeyError:
                    return f"a program of the user {fields[7]}"
    return "a program that has ended"


def end_with_snakemake(kill_after_s: float = 10.0) -> None:
    """Have this step end when the Snakemake that started it is gone, be it by KILL.

    The local executor leaves its steps running then, and they would write beside those of the next run. The workflow
    names its process in MILEPOST_SNAKEMAKE; a step that was started by hand has none and runs on.

    Args:
        kill_after_s: Seconds after TERM at which it gets KILL.
    """
    named = os.environ.get("MILEPOST_SNAKEMAKE", "")
    host, _, pid = named.partition(":")
    if not pid or host != socket.gethostname():
        return
    try:
        handle = os.pidfd_open(int(pid))
    except OSError:
        raise ServerError("Snakemake, which started this step, is gone.") from None

    def wait() -> None:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(kill_after_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="end-with-snakemake").start()

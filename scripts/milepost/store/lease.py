"""One writer at a time for a checkpoint's store: a lease with a heartbeat, in a file that every host can see.

A lease is taken over when its heart has not beaten for 60 s; after one beat that was missed where its SLURM job has ended;
and at once when its holder was a process of this very host (same boot, same process namespace) that is gone. A process id
or the number of a job alone says nothing: hosts share the folder, not their processes, and so do the clusters of a site. A
heart that beats is never taken for dead, whatever SLURM says.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from milepost.errors import StoreError
from milepost.store.slurm_jobs import job_has_ended, names_of_job

STALE_S = 60.0
BEAT_S = 10.0
MISSED_S = 1.5 * BEAT_S  # a beat that should have come by then
# What does not pass by itself: no room, no right to write.
FINAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


class Lease:
    """A held lease. `content` is written with every beat, so that a successor can read what this attempt had taken."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        """Made by `acquire`."""
        self.path = path
        self.owner = owner
        self._beaten = time.monotonic()

    def beat(self, content: dict[str, Any]) -> None:
        """Renew the lease, which shows that its holder is alive.

        What may be over in a moment (no descriptors left, a stale file handle, a folder that was moved away) is no reason
        to end, as long as the last beat is young enough for nobody to take the lease over.

        Raises:
            StoreError: Somebody else has taken the lease over, or it cannot be written.
        """
        try:
            if not self.held():
                raise StoreError(
                    f"{self.path} was taken over by another evaluation of this checkpoint: this one was silent for more than"
                    f" {STALE_S:.0f} s. It stops here; what it stored is kept."
                )
            _write(self.path, {**self.owner, "content": content})
            self._beaten = time.monotonic()
        except OSError as error:
            if error.errno not in FINAL and time.monotonic() - self._beaten < STALE_S - 2 * BEAT_S:
                return
            if error.errno == errno.ENOENT:
                self.confirm()
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror}. Without it, another may write here."
            ) from None

    def held(self) -> bool:
        """Whether the file still names this holder.

        Raises:
            OSError: It cannot be read, which says nothing; so does a folder that is not there, for it may come back.
        """
        try:
            return bool(json.loads(self.path.read_bytes())["nonce"] == self.owner["nonce"])
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise
            return False
        except (ValueError, KeyError, TypeError):
            return False

    def confirm(self) -> None:
        """Check that the folder is the one that was opened, before anything is written into it by its name.

        Raises:
            StoreError: It was moved away or removed, another is in its place, or another writer has it.
        """
        try:
            held = self.held()
        except OSError:
            held = False
        if not held:
            raise StoreError(
                f"{self.path.parent} is no longer the folder that was opened: it was moved away or removed, or another took it"
                " over. Nothing more is written there, and what was stored lies where that folder is. Put it back in its"
                " place, and run again."
            )

    def release(self) -> None:
        """Give the lease back, so that another writer can take it at once."""
        with suppress(OSError):
            if self.held():
                self.path.unlink(missing_ok=True)


def acquire(path: Path, say: Callable[[str], None], stale_s: float = STALE_S) -> tuple[Lease, dict[str, Any] | None]:
    """Take the lease, waiting until one that may be dead has shown whether it lives.

    Args:
        path: The lease's file.
        say: Called with a line that says what is waited for.
        stale_s: Age of the last beat, in seconds, from which a holder counts as dead.

    Returns:
        The lease, and the last content of a dead holder's, if there was one.

    Raises:
        StoreError: Another writer is at work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {**_this_process(), "nonce": uuid.uuid4().hex}
    first_beat: float | None = None
    while True:
        if _create(path, owner):
            return Lease(path, owner), None
        holder = read_lease(path)
        age = file_age(path)
        if age is None:
            continue  # it was given back just now
        if age >= stale_s or has_ended(holder, age):
            if _take_over(path, holder, owner):
                return Lease(path, owner), holder.get("content")
            continue
        beat = _beaten(path)
        if first_beat is None:
            first_beat = beat
            say(
                f"{describe(holder)} wrote here {age:.0f} s ago; waiting to see whether it lives (at most {stale_s:.0f} s)"
            )
        elif beat > first_beat:
            raise StoreError(
                f"{path.parent} is being written by {describe(holder)}. Two writers would ask the same things twice:"
                " wait for it, or end it, and run again."
            )
        time.sleep(min(1.0, stale_s / 10))


def describe(holder: dict[str, Any]) -> str:
    """A phrase for messages that names the holder of a lease: its host, process and job."""
    cluster = f" of cluster {holder['cluster']}" if holder.get("cluster") else ""
    job = f", SLURM job {holder['job']}{cluster}" if holder.get("job") else ""
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}{job}"


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "namespace": os.readlink("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": started(os.getpid()),
        **names_of_job(os.environ.get("SLURM_JOB_ID")),
    }


def started(pid: int) -> str | None:
    """When a process of this host started, in clock ticks since boot; None if it has ended (zombies count as ended)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def has_ended(holder: dict[str, Any], age: float) -> bool:
    """Whether the holder of a lease is known to be gone: its process on this very host, or its SLURM job.

    Args:
        holder: What the lease says.
        age: Seconds since its last beat.
    """
    here = _this_process()
    if all(holder.get(key) == here[key] for key in ("host", "boot", "namespace")):
        return started(int(holder.get("pid", 0))) != holder.get("started")
    return age > MISSED_S and job_has_ended(holder)


def _create(path: Path, owner: dict[str, Any]) -> bool:
    """Make the file with its content, or find that it exists."""
    draft = path.with_name(f"{path.name}.{owner['nonce']}")
    draft.write_text(json.dumps(owner))
    try:
        return place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def place(draft: Path, path: Path) -> bool:
    """Give a file a second name, unless that name is taken: of several that try, one is first, on NFS, too.

    A hard link is there in one step. Where the file system knows none (FAT, exFAT, some that are mounted over a network),
    the name is made first and its content follows: for a moment, others see it empty.

    Returns:
        Whether the name was free.
    """
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:
        content = draft.read_bytes()
        try:
            file = path.open("xb")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(content)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return True


def _take_over(path: Path, holder: dict[str, Any], owner: dict[str, Any]) -> bool:
    """Put a dead holder's file aside; only one of several successors gets it."""
    if read_lease(path).get("nonce") != holder.get("nonce"):
        return False
    aside = path.with_name(f"{path.name}.{owner['nonce']}.dead")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    if read_lease(aside).get("nonce") != holder.get("nonce"):
        # Another successor was quicker and this was its lease: give it back.
        place(aside, path)
        aside.unlink()
        return False
    aside.unlink()
    return _create(path, owner)


def _beaten(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def file_age(path: Path) -> float | None:
    """Seconds since the last beat by the clock of the file system, so that hosts' clocks may differ."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}.now")
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def read_lease(path: Path) -> dict[str, Any]:
    """The content of a lease's file, which says who holds it; an empty record if nobody does."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_name(f"{path.name}.{content['nonce']}")
    draft.write_text(json.dumps(content))
    os.replace(draft, path)

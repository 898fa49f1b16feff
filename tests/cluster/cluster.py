"""The test cluster as Python sees it: commands on its hosts, what runs there, what SLURM accounted for.

up.sh brings it up.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

CLUSTER = Path(os.environ.get("CLUSTER_DIR", "/tmp/milepost-cluster"))
GPU_HOSTS = ("gpu01", "gpu02")
HOSTS = ("login", *GPU_HOSTS, "cpu01")
ADDRESSES = dict(zip(HOSTS, ("10.77.0.1", "10.77.0.11", "10.77.0.12", "10.77.0.21"), strict=True))
USER_ID, OTHER_USER_ID = 5001, 5003  # alice and bob
STRANGER_ID = 5002  # of somebody who has no account
# Programs of SLURM and its helpers that run as the job's user.
SLURMS_OWN = ("slurmstepd", "srun", "sshd")


# What was begun and may still run, each as what ends it. A test that fails has what it began ended: it may have waited for
# it in vain, and its jobs would hold the hosts that the next test needs.
BEGUN: list[Callable[[], None]] = []


@dataclass(frozen=True)
class Process:
    """A living process of a host."""

    pid: int
    started: str  # in clock ticks since boot: tells it from another that has its number later
    command: str = field(compare=False)  # a program may write another over it

    def runs(self, program: str) -> bool:
        """Whether this is Python with a script or a module of this name."""
        words = self.command.split(" ")
        return Path(words[0]).name.startswith("python") and any(word.endswith(program) for word in words[1:4])


@dataclass(frozen=True)
class SlurmJob:
    """A job as SLURM's accounting has it. Times are seconds since the epoch."""

    id: str
    rule: str
    wildcards: str
    state: str
    node: str
    gpus: int
    limit_min: int
    submitted: float
    started: float | None
    ended: float | None


class Cluster:
    """The hosts, and SLURM."""

    def call(self, host: str, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """What a command printed that alice ran on a host."""
        return _call("as", host, *command, env=env)

    def call_as_root(self, host: str, *command: str | Path) -> str:
        """What a command printed that root ran on a host."""
        return _call("on", host, *command)

    def processes(self, host: str, user_id: int = USER_ID) -> list[Process]:
        """Living processes of a user on a host, SLURM's own aside; the remains of ended ones do not count."""
        found = []
        name = f"{(CLUSTER / 'tag').read_text().strip()}-{host}"  # as names.sh makes it
        pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True).stdout
        for pid in pids.split():
            entry = Path("/proc", pid)
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                program = Path(command.split(" ")[0].rstrip(":")).name
                if fields[0] != "Z" and entry.stat().st_uid == user_id and not program.startswith(SLURMS_OWN):
                    found.append(Process(int(pid), fields[19], command))
        return found

    def jobs(self, since: float = 0.0) -> list[SlurmJob]:
        """All jobs that were submitted since a moment, oldest first."""
        fields = ("JobID", "Comment", "State", "NodeList", "AllocTRES", "TimelimitRaw", "Submit", "Start", "End")
        said = self.call(
            "login", "sacct", "--allocations", "--parsable2", "--noheader", "--starttime=now-1days",
            f"--format={','.join(fields)}",
        )  # fmt: skip
        found = []
        for line in said.splitlines():
            row = dict(zip(fields, line.split("|"), strict=True))
            rule, _, wildcards = row["Comment"].removeprefix("rule_").partition("_wildcards_")
            given = dict(part.split("=") for part in row["AllocTRES"].split(",") if part)
            job = SlurmJob(
                id=row["JobID"],
                rule=rule,
                wildcards=wildcards,
                state=row["State"].split(" ")[0],
                node=row["NodeList"],
                gpus=int(given.get("gres/gpu", 0)),
                limit_min=int(row["TimelimitRaw"] or 0),
                submitted=moment(row["Submit"]) or 0.0,
                started=moment(row["Start"]),
                ended=moment(row["End"]),
            )
            if job.submitted >= since:
                found.append(job)
        return sorted(found, key=lambda job: int(job.id))

    def queue(self) -> list[tuple[str, str, str]]:
        """Jobs that wait or run: id, comment (what Snakemake calls it) and host, empty while it waits."""
        lines = self.call("login", "squeue", "--noheader", "--format=%i|%k|%N").splitlines()
        return [(ident, comment, host) for ident, comment, host in (line.split("|") for line in lines)]

    def job_of(self, ckpt: str, within_s: float = 120.0) -> tuple[str, str]:
        """Id and host of the job that evaluates a checkpoint just now; waits until it runs."""
        comment = f"rule_evaluate_checkpoint_wildcards_{ckpt}"
        running: list[tuple[str, str]] = []

        def runs() -> bool:
            running[:] = [(ident, host) for ident, said, host in self.queue() if said == comment and host]
            return bool(running)

        wait_until(f"the job of {ckpt}", runs, within_s)
        return running[0]


def _call(user: str, host: str, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
    call = [CLUSTER / "bin" / user, host, *command]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
    assert done.returncode == 0, f"{command} on {host} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def moment(text: str) -> float | None:
    """A time of sacct; None for one that has not come.

    >>> moment("Unknown")
    """
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None


def as_stranger(host: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """What somebody else on the cluster gets."""
    who = ["setpriv", "--reuid", str(STRANGER_ID), "--regid", str(STRANGER_ID), "--clear-groups", "env", "-i"]
    call = [CLUSTER / "bin" / "on", host, *who, "PATH=/usr/bin:/bin", *command]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def wait_until(what: str, holds: Callable[[], object], within_s: float, every_s: float = 0.5) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(every_s)

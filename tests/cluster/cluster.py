"""The test cluster as Python sees it, and a copy of the project on it that its ordinary user can read and run.

up.sh brings the cluster up; `Cluster` runs commands on its hosts and says what runs there and what SLURM accounted for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = Path(os.environ.get("CLUSTER_DIR", "/tmp/milepost-cluster"))
HOSTS = ("login", "gpu01", "cpu01", "cpu02")
USER_ID = 5001
CODE = ("Snakefile", "rules", "scripts", "profiles", "report", "slurm", "envs", "containers", "config/schemas")
# SLURM's own on a host, and what stands between it and a job.
SLURMS_OWN = ("slurmd", "slurmstepd", "slurmctld", "slurmdbd", "srun", "sshd", "mariadbd", "munged")


@dataclass(frozen=True)
class Process:
    """A living process of a host."""

    pid: int
    user: int
    command: str


@dataclass(frozen=True)
class SlurmJob:
    """A job as SLURM's accounting has it."""

    id: str
    rule: str
    wildcards: str
    state: str
    node: str
    gpus: int
    limit_min: int
    submitted: float
    started: float
    ended: float | None


class Cluster:
    """The hosts, and SLURM."""

    def run(
        self, host: str, *command: str | Path, user: str = "as", check: bool = True, env: Mapping[str, str] = {}
    ) -> str:
        """Run a command on a host as alice (`as`) or as root (`on`); what it printed."""
        call = [CLUSTER / "bin" / user, host, *command]
        done = subprocess.run(call, capture_output=True, text=True, check=False, env={**os.environ, **env})
        assert not check or done.returncode == 0, f"{command} on {host}: {done.stdout}{done.stderr}"
        return done.stdout

    def processes(self, host: str) -> list[Process]:
        """The living processes of a host; the remains of ended ones do not count."""
        found = []
        for pid in subprocess.run(
            ["ip", "netns", "pids", host], capture_output=True, text=True, check=True
        ).stdout.split():
            entry = Path("/proc", pid)
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if fields[0] != "Z":
                    found.append(Process(int(pid), entry.stat().st_uid, command))
        return found

    def ours(self, host: str) -> list[Process]:
        """Processes of alice on a host, SLURM's own aside."""
        return [
            process
            for process in self.processes(host)
            if process.user == USER_ID
            and not Path(process.command.split(" ")[0].rstrip(":")).name.startswith(SLURMS_OWN)
        ]

    def jobs(self, since: float = 0.0) -> list[SlurmJob]:
        """All jobs that SLURM has accounted for since a moment, oldest first; sacct lags by a second or so."""
        fields = (
            "JobID",
            "Comment",
            "State",
            "NodeList",
            "AllocTRES",
            "ReqTRES",
            "TimelimitRaw",
            "Submit",
            "Start",
            "End",
        )
        said = self.run(
            "login", "sacct", "--allocations", "--parsable2", "--noheader", "--starttime=now-1days",
            f"--format={','.join(fields)}", env={"SLURM_TIME_FORMAT": "%s"},
        )  # fmt: skip
        found = []
        for line in said.splitlines():
            row = dict(zip(fields, line.split("|"), strict=True))
            rule, _, wildcards = row["Comment"].removeprefix("rule_").partition("_wildcards_")
            tres = dict(part.split("=") for part in (row["AllocTRES"] or row["ReqTRES"]).split(",") if part)
            job = SlurmJob(
                row["JobID"], rule, wildcards, row["State"].split(" ")[0], row["NodeList"], int(tres.get("gres/gpu", 0)),
                int(row["TimelimitRaw"] or 0), seconds(row["Submit"]) or 0.0, seconds(row["Start"]) or 0.0, seconds(row["End"]),
            )  # fmt: skip
            if job.submitted >= since:
                found.append(job)
        return sorted(found, key=lambda job: job.submitted)


def seconds(text: str) -> float | None:
    """A moment of sacct; None for one that has not come."""
    with suppress(ValueError):
        return float(text)
    if "T" in text:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    return None


def copy_project(target: Path) -> None:
    """Copy what runs to where alice can read it, environments included, without an environment's weight of gigabytes."""
    target.mkdir(parents=True)
    for name in CODE:
        source = REPOSITORY / name
        if source.is_symlink():
            (target / name).symlink_to(os.readlink(source))
        elif source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", ".venv*", "*.sif"))
        elif source.exists():
            shutil.copy2(source, target / name)
    for venv in REPOSITORY.glob("envs/*/.venv"):
        copy_environment(venv, target / "envs" / venv.parent.name / ".venv")


def copy_environment(source: Path, target: Path) -> None:
    """Copy a Python environment by hard links, or in full where the file system has none, and tell it its new place."""
    if subprocess.run(["cp", "-al", source, target], capture_output=True, check=False).returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)
    # The first lines of its programs, and the stamp of envs/setup.sh.
    for file in [*target.glob("bin/*"), *target.glob(".milepost-stamp*")]:
        if file.is_symlink() or not file.is_file():
            continue
        content = file.read_bytes()
        moved = content.replace(os.fsencode(source), os.fsencode(target))
        if moved != content:
            draft = file.with_name(f"{file.name}.moved")
            draft.write_bytes(moved)
            shutil.copymode(file, draft)
            draft.replace(file)

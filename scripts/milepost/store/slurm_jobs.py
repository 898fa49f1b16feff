"""What SLURM knows of a job that a file names. A number alone names no job: each cluster of a site has its own numbers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
UNKNOWN = "UNKNOWN"  # no word of SLURM's: it does not know the job, or not any more


def cluster_name() -> str | None:
    """Name of the cluster that this host's SLURM commands ask; None where there is none, or where it does not answer."""
    try:
        return os.environ.get("SLURM_CLUSTER_NAME") or _configured_name()
    except LookupError:
        return None


@cache
def _configured_name() -> str:
    for line in (_said("scontrol", "show", "config") or "").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "ClusterName":
            return value.strip()
    raise LookupError("no name")  # which is not remembered: the next call may get an answer


def names_of_job(job: str | None) -> dict[str, str | None]:
    """A job as files name it: its number, and its cluster."""
    return {"job": job, "cluster": cluster_name() if job else None}


def is_of_this_cluster(record: Mapping[str, Any]) -> bool:
    """Whether a record names a job of the cluster that this host can ask about."""
    return bool(record.get("job")) and record.get("cluster") is not None and record["cluster"] == cluster_name()


def state_of(record: Mapping[str, Any]) -> str | None:
    """The state of the job that a record names, in SLURM's words, or UNKNOWN; None if this host cannot say."""
    if not is_of_this_cluster(record):
        return None
    # Without --states, squeue is silent on a job that has just ended.
    said = _said("squeue", "--noheader", "--states=all", "--jobs", str(record["job"]), "--format", "%T")
    return said if said is None else said.strip() or UNKNOWN


def job_has_ended(record: Mapping[str, Any]) -> bool:
    """Whether SLURM says that a job is over. One that it does not know is not known to be."""
    return state_of(record) in ENDED


def job_is_awaited(record: Mapping[str, Any]) -> bool:
    """Whether a submitted job may still begin: one of this cluster that has not ended, or that SLURM cannot be asked about.

    A job of another cluster, or one that SLURM has forgotten, is nothing to wait for.
    """
    return is_of_this_cluster(record) and state_of(record) not in ENDED | {UNKNOWN}


def _said(*command: str) -> str | None:
    """What a command of SLURM printed; UNKNOWN for a job that it does not know, None if it could not say."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return UNKNOWN if "Invalid job id" in done.stderr else None
    return done.stdout

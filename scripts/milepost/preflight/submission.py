"""The jobs that a run would submit, as the workflow describes them: where, with which resources, for which checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SERVING_RULE = "evaluate_checkpoint"


@dataclass(frozen=True)
class JobRequest:
    """Jobs of one rule that ask for the same resources.

    Attributes:
        rule: The rule's name.
        ckpts: Checkpoints, for the rule that serves them.
        gpus: GPUs of each job; 0 also for a checkpoint whose answers are all stored.
        accounts: One, or several that take turns; none where the profile sets none.
        runtimes: Walltime of each attempt in minutes; empty where none is set.
    """

    rule: str
    ckpts: tuple[str, ...] = ()
    gpus: int = 0
    accounts: tuple[str, ...] = ()
    partition: str | None = None
    constraint: str | None = None
    gpu_model: str | None = None
    gres: str | None = None
    mem_mb: int | None = None
    runtimes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Submission:
    """All jobs that a run would submit, and how.

    Attributes:
        executor: Snakemake's, `slurm` or `local`.
        attempts: How often a job is tried at most.
        logdir: Where SLURM's own logs go.
        locked: Whether Snakemake's lock was here before this step looked.
    """

    executor: str = "local"
    attempts: int = 1
    logdir: str | None = None
    locked: bool = False
    requests: list[JobRequest] = field(default_factory=list)

    @property
    def to_slurm(self) -> bool:
        """Whether jobs go to SLURM."""
        return self.executor == "slurm"

    def request_of(self, ckpt: str) -> JobRequest:
        """The resources that a checkpoint's job asks for."""
        return next((request for request in self.requests if ckpt in request.ckpts), JobRequest(SERVING_RULE))


def read_submission(text: str | None) -> Submission:
    """Read the submission that the rule hands over; without one (a step run by hand), it is a run on this machine.

    Args:
        text: JSON `{"executor", "attempts", "logdir", "locked", "jobs": [{"rule", "ckpts", "attempts": [resources]}]}`.
    """
    if not text:
        return Submission()
    submission = json.loads(text)
    requests = [_request(job) for job in submission["jobs"]]
    return Submission(
        submission["executor"], submission["attempts"], submission["logdir"], submission["locked"], requests
    )


def _request(job: Mapping[str, Any]) -> JobRequest:
    first = job["attempts"][0]
    runtimes = [attempt.get("runtime") for attempt in job["attempts"]]
    return JobRequest(
        rule=job["rule"],
        ckpts=tuple(job["ckpts"]),
        gpus=_number(first.get("gpu")) or 0,
        accounts=tuple(filter(None, re.split(r"[,\s]+", _text(first.get("slurm_account")) or ""))),
        partition=_text(first.get("slurm_partition")),
        constraint=_text(first.get("constraint")),
        gpu_model=_text(first.get("gpu_model")),
        gres=_text(first.get("gres")),
        mem_mb=_number(first.get("mem_mb")),
        runtimes=tuple(float(runtime) for runtime in runtimes if isinstance(runtime, int | float)),
    )


def _number(value: Any) -> int | None:
    """A resource as a number, or None if Snakemake did not know it yet."""
    return value if isinstance(value, int) else None


def _text(value: Any) -> str | None:
    """A resource as text. YAML makes a number of an account that has digits only."""
    return None if value in (None, "") else str(value)

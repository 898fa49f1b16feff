"""What a campaign evaluates, as types: checkpoints, how they are served, and tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


# The parts of a task's file, so that a change in one reruns only what depends on it.
NATIVE_QUESTIONS = ("version", "generation", "data", "format", "system", "samples", "sampling", "limit")


NEMO_QUESTIONS = (
    "version", "generation", "eval_type", "endpoint_type", "params", "tokenizer", "adapter", "environment", "container",
    "samples", "limit", "sampling",
)  # fmt: skip


# What of a NeMo task's settings changes no answer: nothing is asked again for it.
NEMO_TUNING = {
    "params": ("parallelism", "request_timeout", "max_retries"),
    "adapter": (
        "log_failed_requests",
        "use_request_logging",
        "use_response_logging",
        "save_requests",
        "save_responses",
    ),
}


SCORING = ("scorer", "metric")


@dataclass(frozen=True)
class Serving:
    """How a checkpoint is served: its model profile with its row's own options on top."""

    gpus: int = 1
    vllm_args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    concurrency: int = 64
    start_timeout_s: float = 1800.0
    request_timeout_s: float = 600.0
    retries: int = 5
    stage: bool = False


class ServedElsewhere(Protocol):
    """An endpoint of config/endpoints.yaml that answers for a checkpoint; `identity` says what decides its answers."""

    @property
    def name(self) -> str:
        """Its name in config/endpoints.yaml."""
        ...

    @property
    def provider(self) -> str:
        """Who runs it."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its answers, for digests."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """One row of the sheet. `run` and `step` place it on a curve and are no part of what it is.

    With an `endpoint`, others serve it: `model` is then its name there, and no file of it is here.
    """

    name: str
    model: str
    revision: str | None
    run: str | None
    step: float | None
    generation: int
    serving: Serving
    model_profile: str = "default"
    endpoint: ServedElsewhere | None = None


@dataclass(frozen=True)
class Task:
    """One file of config/tasks."""

    name: str
    spec: dict[str, Any]

    @property
    def kind(self) -> str:
        """`nemo` for NeMo Evaluator's tasks, `native` for our own."""
        return "nemo" if self.spec.get("harness") == "nemo" else "native"

    @property
    def title(self) -> str:
        """Name for people."""
        return str(self.spec.get("title", self.name))

    def questions(self) -> dict[str, Any]:
        """The part of the file that decides what is asked."""
        keys = NEMO_QUESTIONS if self.kind == "nemo" else NATIVE_QUESTIONS
        asked = {key: self.spec[key] for key in keys if key in self.spec}
        if self.kind == "nemo":
            for part, inert in NEMO_TUNING.items():
                if part in asked:
                    asked[part] = {key: value for key, value in asked[part].items() if key not in inert}
        return asked

    def tuning(self) -> dict[str, dict[str, Any]]:
        """The settings of a NeMo task that change no answer, `params` and `adapter`."""
        return {
            part: {key: value for key, value in self.spec.get(part, {}).items() if key in inert}
            for part, inert in NEMO_TUNING.items()
        }

    def scoring(self) -> dict[str, Any]:
        """The part of the file that decides scores."""
        return {key: self.spec[key] for key in SCORING if key in self.spec}


@dataclass(frozen=True)
class Campaign:
    """All checkpoints, all tasks: the matrix that `rule all` asks for."""

    config: dict[str, Any]
    checkpoints: dict[str, Checkpoint]
    tasks: dict[str, Task]

    def named(self, kind: str) -> list[str]:
        """Names of the tasks of one kind."""
        return [task.name for task in self.tasks.values() if task.kind == kind]

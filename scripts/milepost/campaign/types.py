"""What a campaign evaluates, as types: checkpoints, how they are served or where they answer, and tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from milepost.client.endpoint import Endpoint

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


# The parts of a task's file, so that a change in one reruns only what depends on it.
NATIVE_QUESTIONS = ("version", "generation", "data", "format", "system", "samples", "sampling", "limit")


NEMO_QUESTIONS = (
    "version", "generation", "eval_type", "endpoint_type", "params", "tokenizer", "adapter", "environment", "container",
    "samples", "limit",
)  # fmt: skip


# Settings of a NeMo task that change no answer: nothing is asked again for them.
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


SCORING = ("scorer", "metric", "better", "range", "k")


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


@dataclass(frozen=True)
class EndpointSpec(ABC):
    """An endpoint that is described and not open yet. Each provider of endpoints makes its own kind of it.

    Attributes:
        name: Its name in config/endpoints.yaml; a checkpoint's own where this job serves it.
        model: Name that the server reports, or the folder or hub name of what is to be served.
        kind: What it is asked: `chat`, `embedding` or `reranker`.
        revision: The user's word for the model's version.
        serving: How many requests at once, and how long they may take; of one that we serve, how it is served.
        provider: The provider's name, which says who runs the server.
        ours: Whether this campaign serves it, by vLLM, in a job that opening it may start.
    """

    provider: ClassVar[str]
    ours: ClassVar[bool]

    name: str
    model: str
    kind: str = "chat"
    revision: str | None = None
    serving: Serving = field(default_factory=lambda: Serving(gpus=0))

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the endpoint's answers, for digests: which model is asked where, as far as it can be seen from here."""

    @abstractmethod
    def open(self, *, verified: bool = True) -> AbstractAsyncContextManager[Endpoint]:
        """An endpoint that answers, as long as the context lasts.

        Args:
            verified: See that whoever answers is the model that was named. A server without OpenAI's interface cannot
                be asked for that.

        Raises:
            EndpointError: Nobody answers, or not as the one that was named.
            ServerError: A server of our own did not start.
        """

    @property
    def key_from(self) -> str | None:
        """Where the user keeps its key, for messages; None where none is needed."""
        return None

    def check_here(self) -> None:
        """See whether all is here that opening it takes, such as its key. Nobody is asked.

        Raises:
            EndpointError: Something is missing.
        """
        return

    def versions(self) -> dict[str, str]:
        """Versions of what is going to answer, as far as they are known before it does."""
        return {"engine": self.provider}


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
    endpoint: EndpointSpec | None = None


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
        """The task's title in tables and figures."""
        return str(self.spec.get("title", self.name))

    def questions(self) -> dict[str, Any]:
        """The part of the task's file that decides what is asked."""
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
        """The part of the task's file that decides scores."""
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

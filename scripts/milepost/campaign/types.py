"""What a campaign evaluates, as types: checkpoints, how they are served or where they answer, and tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from milepost.client.endpoint import Endpoint
from milepost.records import Better
from milepost.schemas import of_schema

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
LONGEST = 150  # of a name: results are filed under it, with more before and behind it, and a file's name has 255 bytes


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


@dataclass(frozen=True)
class Serving:
    """How a checkpoint is served: its model profile with its row's own options on top."""

    gpus: int = of_schema("model_profile", "gpus")
    vllm_args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    concurrency: int = of_schema("model_profile", "concurrency")
    start_timeout_s: float = of_schema("model_profile", "start_timeout_s")
    request_timeout_s: float = of_schema("model_profile", "request_timeout_s")
    retries: int = of_schema("model_profile", "retries")
    stage: bool = of_schema("model_profile", "stage")


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
    kind: str
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
    model_profile: str = of_schema("checkpoint", "model_profile")
    endpoint: EndpointSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One file of config/tasks, checked, with the schema's defaults for what it does not say.

    The fields are the keys of its schema, config/schemas/task_native.yaml or task_nemo.yaml, which describes them.
    """

    kind: ClassVar[Literal["native", "nemo"]]
    asks: ClassVar[tuple[str, ...]]
    """The fields that decide what is asked."""
    scores: ClassVar[tuple[str, ...]]
    """The fields that decide scores."""

    name: str
    title: str
    version: int
    generation: int
    samples: int
    limit: int | None
    metric: str | None
    better: Better | None
    k: tuple[int, ...]
    delta: float | None
    beside: tuple[str, ...]

    def questions(self) -> dict[str, Any]:
        """The part of the task's file that decides what is asked, so that a change elsewhere in it asks nothing again."""
        return self._given(self.asks)

    def scoring(self) -> dict[str, Any]:
        """The part of the task's file that decides scores."""
        return self._given(self.scores)

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value not in (None, ())}


@dataclass(frozen=True, kw_only=True)
class NativeTask(Task):
    """A task that Milepost asks and scores itself.

    Attributes:
        data: Where its items are; None where a package brings those of its `format`.
        sampling: The parameters of its requests, with `from: model` where the model's own hold for those not named.
        scorer: The scorer's `name`, with the options that are given; the scorer itself knows and checks them.
    """

    kind = "native"
    asks = ("version", "generation", "data", "format", "system", "samples", "sampling", "limit")
    scores = ("scorer", "metric", "better", "k")

    data: str | None
    format: str
    system: str | None
    sampling: Mapping[str, Any]
    scorer: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class NemoTask(Task):
    """A task of NeMo Evaluator.

    Attributes:
        params: NeMo Evaluator's own parameters, handed on as they stand.
        adapter: Settings of its adapter, likewise handed on.
        environment: The folder in envs/ that the task names, if any.
        container: The image that the task names, if any.
    """

    kind = "nemo"
    asks = (
        "version", "generation", "eval_type", "endpoint_type", "params", "tokenizer", "adapter", "environment", "container",
        "samples", "limit", "sampling",
    )  # fmt: skip
    scores = ("metric", "better", "range", "k")

    metric: str
    eval_type: str
    endpoint_type: str
    params: Mapping[str, Any]
    sampling: Literal["model"] | None
    tokenizer: str | None
    adapter: Mapping[str, Any]
    environment: str | None
    container: str | None
    range: tuple[float, float] | None

    def questions(self) -> dict[str, Any]:
        """The part of the task's file that decides what is asked, without the settings that change no answer."""
        asked = super().questions()
        for part, inert in NEMO_TUNING.items():
            asked[part] = {key: value for key, value in asked[part].items() if key not in inert}
        return asked

    def tuning(self) -> dict[str, dict[str, Any]]:
        """The settings that change no answer, `params` and `adapter`."""
        return {
            "params": {key: value for key, value in self.params.items() if key in NEMO_TUNING["params"]},
            "adapter": {key: value for key, value in self.adapter.items() if key in NEMO_TUNING["adapter"]},
        }


@dataclass(frozen=True)
class Campaign:
    """All checkpoints, all tasks: the matrix that `rule all` asks for."""

    config: dict[str, Any]
    checkpoints: dict[str, Checkpoint]
    tasks: dict[str, Task]

    @property
    def native(self) -> dict[str, NativeTask]:
        """The tasks of our own, by name."""
        return {name: task for name, task in self.tasks.items() if isinstance(task, NativeTask)}

    @property
    def nemo(self) -> dict[str, NemoTask]:
        """The tasks of NeMo Evaluator, by name."""
        return {name: task for name, task in self.tasks.items() if isinstance(task, NemoTask)}

    def named(self, kind: str) -> list[str]:
        """Names of the tasks of one kind."""
        return [task.name for task in self.tasks.values() if task.kind == kind]

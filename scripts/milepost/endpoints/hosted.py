"""Endpoints that this very job serves by vLLM, in its own allocation: the default for checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from milepost.campaign.identity import identify
from milepost.campaign.models import find_model
from milepost.campaign.types import Checkpoint, EndpointSpec
from milepost.endpoints import Endpoint
from milepost.endpoints.staging import staged
from milepost.endpoints.vllm import VllmServer, engine_version
from milepost.runtime.containers import Containers
from milepost.runtime.environments import environment_python
from milepost.runtime.images import image_digests
from milepost.runtime.processes import Watchdog


@dataclass(frozen=True)
class Hosted(EndpointSpec):
    """The endpoint of a checkpoint that this job serves.

    Attributes:
        ckpt: The checkpoint.
        logs: Folder that gets the server's log.
        watchdog: Ends the server, should this process die.
        containers: Whether it runs in an image.
    """

    provider = "hosted"
    ours = True

    ckpt: Checkpoint = field(kw_only=True)
    logs: Path = field(kw_only=True)
    watchdog: Watchdog = field(kw_only=True)
    containers: Containers = field(default_factory=Containers, kw_only=True)

    @classmethod
    def of(cls, ckpt: Checkpoint, logs: Path, watchdog: Watchdog, containers: Containers) -> Hosted:
        """The endpoint of a checkpoint that has a model of its own."""
        return cls(
            ckpt.name, ckpt.model, "chat", revision=ckpt.revision, serving=ckpt.serving,
            ckpt=ckpt, logs=logs, watchdog=watchdog, containers=containers,
        )  # fmt: skip

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the checkpoint, from its files and options."""
        return dict(identify(self.ckpt)["identity"])

    def versions(self) -> dict[str, str]:
        """The engine's version, or the digest of the image that holds it."""
        # What is inside an image, only the server can say.
        bare = self.containers.vllm is None
        engine = engine_version(environment_python("vllm")) if bare else "unknown"
        return {"engine": engine, **image_digests({"vllm": self.containers.vllm})}

    @asynccontextmanager
    async def open(self, *, verified: bool = True) -> AsyncIterator[Endpoint]:
        """Start the server, and end it with the context; it always has to prove who it is."""
        async with self._model() as folder:
            output = self.logs / f"{self.ckpt.name}.server.log"
            server = VllmServer(self.ckpt, output, self.watchdog, containers=self.containers, model=folder)
            try:
                await server.start()
                version = await server.version() if self.containers.vllm is not None else None
                yield replace(server.endpoint, version=version, watched=True, died=server.died)
            finally:
                await server.stop()

    @asynccontextmanager
    async def _model(self) -> AsyncIterator[Path | None]:
        """The folder to serve from: the model's own, or a copy on this node's disk if the model profile says `stage`."""
        folder = find_model(self.ckpt)
        if folder is None or not self.serving.stage:
            yield folder
            return
        async with staged(folder, self.logs / f"{self.ckpt.name}.staging.log", self.watchdog) as copy:
            yield copy

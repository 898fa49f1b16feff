"""vLLM on loopback, for this job alone: started, proved, watched and ended."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

import aiohttp

from milepost.campaign import WORKFLOW, Checkpoint, find_model
from milepost.endpoints import Endpoint
from milepost.environments import environment_python
from milepost.errors import ServerError
from milepost.processes import ProcessGroup, Watchdog, free_port, last_lines

POLL_S = 0.25
HEALTH_S = 1.0
# Words in the server's last lines that point to a cause, and what can be done about it.
CAUSES = (
    (("no available memory for the cache blocks", "out of memory", "outofmemory", "oom-kill", "larger than the available kv cache memory"),
     "It ran out of memory. Change gpus and tensor-parallel-size, gpu-memory-utilization, max-model-len or (CPU build)"
     " VLLM_CPU_KVCACHE_SPACE in the model profile; nothing was lowered by itself, because it could change numbers."),
    (("unrecognized arguments", "invalid choice", "error: argument"),
     "vLLM does not know one of the options: correct vllm_args of the checkpoint or its model profile."),
    (("address already in use",), "Its port was taken by another program in that very moment: run again."),
)  # fmt: skip


class VllmServer:
    """One vLLM server. `start` returns when it answers as the one that was started."""

    def __init__(self, ckpt: Checkpoint, log: Path, watchdog: Watchdog) -> None:
        """Choose its port, key and name; nothing is started yet."""
        self.ckpt = ckpt
        self.log = log
        self._watchdog = watchdog
        self._group: ProcessGroup | None = None
        port = free_port()
        self._origin = f"http://127.0.0.1:{port}"
        self.endpoint = Endpoint(
            url=f"{self._origin}/v1",
            key=secrets.token_urlsafe(32),
            model=f"{ckpt.name}-{secrets.token_hex(8)}",
            name=ckpt.name,
        )
        folder = find_model(ckpt)
        model = str(folder) if folder is not None else ckpt.model
        self._command = [
            str(environment_python("vllm")), "-m", "vllm.entrypoints.openai.api_server",
            "--model", model,
            "--served-model-name", self.endpoint.model, ckpt.name,
            "--host", "127.0.0.1", "--port", str(port),
            "--middleware", "milepost.endpoints.guard.Guard",
            "--uvicorn-log-level", "warning",
            *(["--revision", ckpt.revision] if folder is None and ckpt.revision else []),
            *command_line(ckpt.serving.vllm_args),
        ]  # fmt: skip
        self._offline = folder is not None

    def _environment(self) -> dict[str, str]:
        env = {**os.environ, **self.ckpt.serving.env}
        env["VLLM_API_KEY"] = self.endpoint.key
        env["PYTHONPATH"] = str(WORKFLOW / "scripts")
        # The engine's own connections stay on loopback, too.
        env.setdefault("VLLM_HOST_IP", "127.0.0.1")
        env.setdefault("VLLM_NO_USAGE_STATS", "1")
        env.setdefault("DO_NOT_TRACK", "1")
        if self._offline:
            env.setdefault("HF_HUB_OFFLINE", "1")
        return env

    async def start(self) -> None:
        """Start the server and wait until it proves who it is.

        Raises:
            ServerError: It ended, took too long, or another program answers; with its last lines.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self._group = await ProcessGroup.start(
            self._command, env=self._environment(), log=self.log, watchdog=self._watchdog
        )
        deadline = time.monotonic() + self.ckpt.serving.start_timeout_s
        async with self._session() as session:
            while not await self._proves_itself(session):
                if self._group.process.returncode is not None:
                    raise self._died("ended before it answered")
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"The server of {self.ckpt.name!r} did not answer within {self.ckpt.serving.start_timeout_s:.0f} s"
                        f" (start_timeout_s of its model profile). The last lines of {self.log}:\n{last_lines(self.log)}"
                    )
                await asyncio.sleep(POLL_S)

    async def _proves_itself(self, session: aiohttp.ClientSession) -> bool:
        """Whether our server answers: our name is served, our key is taken, its absence refused."""
        key = {"Authorization": f"Bearer {self.endpoint.key}"}
        try:
            async with session.get(f"{self.endpoint.url}/models", headers=key) as response:
                if response.status == 401:
                    raise ServerError(f"Another program listens on {self._origin} and refuses our key: run again.")
                if response.status != 200:
                    return False
                names = [model["id"] for model in (await response.json())["data"]]
            if self.endpoint.model not in names:
                raise ServerError(f"Another server listens on {self._origin}, serving {names}: run again.")
            for path in ("/v1/models", "/health", "/metrics"):
                async with session.get(self._origin + path) as response:
                    if response.status != 401:
                        raise ServerError(
                            f"The server of {self.ckpt.name!r} answers {response.status} to {path} without a key:"
                            " the guard does not stand before it. Nothing was asked."
                        )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError):
            return False
        return True

    async def died(self) -> ServerError:
        """Return, with its last lines, when the server has died; within two seconds of its death."""
        assert self._group is not None, "start the server first"
        exited = asyncio.create_task(self._group.process.wait())
        try:
            async with self._session() as session:
                failures = 0
                while not exited.done():
                    await asyncio.wait([exited], timeout=HEALTH_S)
                    failures = 0 if exited.done() or await self._healthy(session) else failures + 1
                    if failures >= 2:
                        return self._died("serves its model no longer, though its process still runs")
        finally:
            exited.cancel()
        return self._died("died")

    async def _healthy(self, session: aiohttp.ClientSession) -> bool:
        """False if the server says that its engine is dead, or nobody listens; a slow answer is none."""
        try:
            key = {"Authorization": f"Bearer {self.endpoint.key}"}
            async with session.get(f"{self._origin}/health", headers=key) as response:
                return response.status < 500
        except TimeoutError:
            return True
        except (aiohttp.ClientError, OSError):
            return False

    async def stop(self) -> None:
        """End the server and everything that it started."""
        if self._group is not None:
            await self._group.stop()

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))

    def _died(self, how: str) -> ServerError:
        assert self._group is not None
        lines = last_lines(self.log)
        code = self._group.process.returncode
        ending = f" (exit code {code})" if code is not None else ""
        advice = "".join(f" {text}" for words, text in CAUSES if any(word in lines.lower() for word in words))
        return ServerError(
            f"The server of {self.ckpt.name!r} {how}{ending}.{advice} The last lines of {self.log}:\n{lines}"
        )


def command_line(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line.

    >>> command_line({"dtype": "float32", "enforce-eager": True, "enable-prefix-caching": False})
    ['--dtype', 'float32', '--enforce-eager', '--no-enable-prefix-caching']
    """
    words: list[str] = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is False:
            words.append(f"--no-{name}")
        elif isinstance(value, dict):
            words += [f"--{name}", json.dumps(value)]
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        else:
            words += [f"--{name}", str(value)]
    return words


def engine_version(python: Path) -> str:
    """Version of vLLM in an environment, read from its packages without importing it; that takes 10 s."""
    for pattern in ("vllm_cpu-*.dist-info", "vllm-*.dist-info"):
        for folder in python.parent.parent.glob(f"lib/python*/site-packages/{pattern}"):
            return folder.name.removesuffix(".dist-info")
    return "unknown"

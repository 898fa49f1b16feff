"""Runs vLLM on this host, on loopback unless others are to reach it directly: starts, proves, watches and ends it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from milepost.campaign.identity import FILE_OPTIONS
from milepost.campaign.models import find_model
from milepost.campaign.types import Checkpoint
from milepost.endpoints import Endpoint
from milepost.errors import ServerError
from milepost.paths import WORKFLOW
from milepost.runtime.containers import Containers, inside, reached_from, require_image
from milepost.runtime.environments import environment_python
from milepost.runtime.processes import ProcessGroup, Watchdog, free_port, last_lines

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

# An exception's last line, alone or behind the logger's words.
ERROR = re.compile(r"^(?:\(.*?\) )?(?:ERROR .*?\] )?(?P<error>(?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)
# Where vLLM and its compilers keep what they made, in a folder that checkpoints share.
CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
}


class VllmServer:
    """One vLLM server. `start` returns when it has proved that it is the server that was started."""

    begins, ended = "starting the server", "the server has ended"

    def __init__(
        self,
        ckpt: Checkpoint,
        log: Path,
        watchdog: Watchdog,
        *,
        containers: Containers | None = None,
        model: Path | None = None,
        known_as: tuple[str, str] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """Choose its port, key and name; nothing is started yet.

        Args:
            ckpt: What to serve.
            log: Where its output goes.
            watchdog: Ends it, should this process die.
            containers: Whether it runs in an image, and what goes in.
            model: A copy of the model's folder to serve from, instead of where it lies.
            known_as: Key and served name, where others know them already; random ones otherwise.
            address: This host's, at which it listens.
        """
        self.ckpt = ckpt
        self.log = log
        self._containers = containers or Containers()
        self._watchdog = watchdog
        self._group: ProcessGroup | None = None
        self.port = port = free_port(address)
        key, served = known_as or (secrets.token_urlsafe(32), f"{ckpt.name}-{secrets.token_hex(8)}")
        self._origin = f"http://{address}:{port}"
        self.endpoint = Endpoint(
            url=f"{self._origin}/v1",
            key=key,
            model=served,
            name=ckpt.name,
        )
        self._folder = folder = model or find_model(ckpt)
        brought = self._containers.vllm is not None and not self._containers.bind_environments
        self._command = [
            "python3" if brought else str(environment_python("vllm")), "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(folder or ckpt.model),
            "--served-model-name", self.endpoint.model, ckpt.name,
            "--host", address, "--port", str(port),
            "--middleware", "milepost.endpoints.guard.Guard",
            "--uvicorn-log-level", "warning",
            *(["--revision", ckpt.revision] if folder is None and ckpt.revision else []),
            *command_line(ckpt.serving.vllm_args),
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """The server's own environment variables, on top of those of this process."""
        # The engine's own connections stay on loopback, too.
        defaults = {"VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if self._folder is not None:
            defaults["HF_HUB_OFFLINE"] = "1"
        if self._containers.vllm is not None:
            caches = self._containers.caches.absolute()
            defaults |= {name: str(caches / folder) for name, folder in CACHES.items()}
            # Said, because an image's own home of the hub is elsewhere.
            defaults["HF_HOME"] = str(hub_home(self.ckpt))
        return {
            **{name: value for name, value in defaults.items() if name not in os.environ},
            **self.ckpt.serving.env,
            "VLLM_API_KEY": self.endpoint.key,
            "PYTHONPATH": str(WORKFLOW / "scripts"),
        }

    def _inside(self) -> tuple[list[str], dict[str, str]]:
        """The server's command and environment, within an image if one is named."""
        containers = self._containers
        env = self._environment()
        if containers.vllm is None:
            return inside(self._command, None, env=env)
        for name in CACHES:
            Path(env.get(name) or os.environ[name]).mkdir(parents=True, exist_ok=True)
        hub_home(self.ckpt).mkdir(parents=True, exist_ok=True)
        image = str(require_image(containers.vllm).absolute())
        return inside(self._command, image, env=env, binds=self._binds(env), nv=containers.nv)

    def _binds(self, env: dict[str, str]) -> Iterator[Path]:
        """The folders and files of this host that the server needs inside an image."""
        yield WORKFLOW / "scripts"
        if self._containers.bind_environments:
            yield WORKFLOW / "envs"
        for name in CACHES:
            yield Path(env.get(name) or os.environ[name])
        yield hub_home(self.ckpt)
        if os.environ.get("TMPDIR"):
            yield Path(os.environ["TMPDIR"])
        options = [Path(str(self.ckpt.serving.vllm_args.get(name, ""))) for name in FILE_OPTIONS]
        for path in (self._folder, *options):
            # A template may stand in the option itself, longer than any name of a file.
            if path is not None and path != Path() and os.path.exists(path):
                yield from reached_from(path)
        yield from self._containers.binds

    async def start(self) -> None:
        """Start the server and wait until it proves who it is.

        Raises:
            ServerError: It ended, took too long, or another program answers; with its last lines.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        command, env = self._inside()
        self._group = await ProcessGroup.start(command, env=env, log=self.log, watchdog=self._watchdog)
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
        """Whether our own server answers: it serves our name, accepts our key, and refuses requests without it."""
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

    async def version(self) -> str:
        """The version that the server reports."""
        key = {"Authorization": f"Bearer {self.endpoint.key}"}
        try:
            async with self._session() as session, session.get(f"{self._origin}/version", headers=key) as response:
                return f"vllm-{(await response.json())['version']}"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError):
            return "unknown"

    async def usage(self) -> dict[str, Any]:
        """How long and how often the server was asked, as its guard counts; empty if it does not answer."""
        key = {"Authorization": f"Bearer {self.endpoint.key}"}
        try:
            async with (
                self._session() as session,
                session.get(f"{self._origin}/milepost/usage", headers=key) as response,
            ):
                return dict(await response.json()) if response.status == 200 else {}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError):
            return {}

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
        """False if the server reports a dead engine, or nobody listens; a slow answer does not count as dead."""
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
        # vLLM ends with the traceback of a process that only says that another one failed; why stands far above.
        first = first_error(last_lines(self.log, 500))
        said = f"{first}\n{lines}".lower()
        advice = "".join(f" {text}" for words, text in CAUSES if any(word in said for word in words))
        cause = f" It said: {first.rstrip('.')}." if first and first not in lines else ""
        return ServerError(
            f"The server of {self.ckpt.name!r} {how}{ending}.{cause}{advice} The last lines of {self.log}:\n{lines}"
        )


def command_line(options: dict[str, Any]) -> list[str]:
    """Turn options into words of a command line.

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


def first_error(text: str) -> str:
    r"""The first exception in a log, without the name of the process before it; empty if there is none.

    >>> first_error("(EngineCore pid=7) ERROR 11-21 [core.py:1] ValueError: No room.\nRuntimeError: See above.")
    'ValueError: No room.'
    """
    match = ERROR.search(text)
    return match["error"] if match else ""


def hub_home(ckpt: Checkpoint) -> Path:
    """The folder of the Hugging Face hub's cache, as the checkpoint's server sees it."""
    named = ckpt.serving.env.get("HF_HOME") or os.environ.get("HF_HOME")
    return Path(named).absolute() if named else Path.home() / ".cache" / "huggingface"


def engine_version(python: Path) -> str:
    """Version of vLLM in an environment, read from its packages without importing it; that takes 10 s."""
    for pattern in ("vllm_cpu-*.dist-info", "vllm-*.dist-info"):
        for folder in python.parent.parent.glob(f"lib/python*/site-packages/{pattern}"):
            return folder.name.removesuffix(".dist-info")
    return "unknown"

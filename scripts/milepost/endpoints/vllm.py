"""vLLM on this host, at a socket that only we can enter: started, proved, ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from milepost.campaign.identity import FILE_OPTIONS
from milepost.campaign.models import find_model, hub_home
from milepost.campaign.sampling import server_options
from milepost.campaign.types import Checkpoint
from milepost.client.proof import Place, StrangerError, get
from milepost.endpoints import Endpoint
from milepost.errors import ServerError
from milepost.paths import WORKFLOW
from milepost.runtime.containers import Containers, inside, reached_from, require_image
from milepost.runtime.environments import environment_python
from milepost.runtime.launch import HELD, hold
from milepost.runtime.processes import ProcessGroup, Watchdog, last_lines, owner_of

log = logging.getLogger("milepost")
LOOPBACK = "127.0.0.1"
POLL_S = 0.25
HEALTH_S = 1.0
ASK_S = 5.0
TAKEN = "address already in use"
TAKEN_PORT = re.compile(r"(?i)(?:port: |:|', )(\d{1,5})\b.*address already in use|address already in use.*:(\d{1,5})\b")
NO_SOCKETS = "unrecognized arguments: --uds"
STARTS = 8  # beyond the first, where another program has a port that vLLM chose
PRIVATE = Path("/tmp")  # noqa: S108 (folders of mode 0700 with names that cannot be guessed: a socket's path has 107 bytes)
# All GPUs of a server are on one host: what its processes say to each other goes over loopback, whatever the site's
# environment says of its networks.
LOOPBACK_ONLY = {
    "VLLM_HOST_IP": LOOPBACK,
    "VLLM_LOOPBACK_IP": LOOPBACK,
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "TP_SOCKET_IFNAME": "lo",
}
# Words in the server's last lines that point to a cause, and what can be done about it.
CAUSES = (
    (("no available memory for the cache blocks", "out of memory", "outofmemory", "oom-kill", "larger than the available kv cache memory"),
     "It ran out of memory. Change gpus and tensor-parallel-size, gpu-memory-utilization, max-model-len or (CPU build)"
     " VLLM_CPU_KVCACHE_SPACE in the model profile; nothing was lowered by itself, because it could change numbers."),
    (("unrecognized arguments", "invalid choice", "error: argument"),
     "vLLM does not know one of the options: correct vllm_args of the checkpoint or its model profile."),
    ((TAKEN,), "Other programs took its ports again and again: run again."),
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
        attempt: str = "",
    ) -> None:
        """Choose its place, key and name; nothing is started yet.

        Args:
            ckpt: What to serve.
            log: Where its output goes.
            watchdog: Ends it, should this process die.
            containers: Whether it runs in an image, and what goes in.
            model: A copy of the model's folder to serve from, instead of where it lies.
            known_as: Key and served name, where others know them already; random ones otherwise.
            attempt: Names this start in the server's proof; a random word otherwise.
        """
        self.ckpt = ckpt
        self.log = log
        self.attempt = attempt or secrets.token_hex(6)
        self._held: list[socket.socket] = []
        self._containers = containers or Containers()
        self._watchdog = watchdog
        self._group: ProcessGroup | None = None
        self._private = PRIVATE / f"milepost-{secrets.token_hex(8)}"
        self._scratch = Path(tempfile.gettempdir()) / self._private.name
        self._model = model or find_model(ckpt)
        self._key, self._served = known_as or (secrets.token_urlsafe(32), f"{ckpt.name}-{secrets.token_hex(8)}")
        self.place = Place.here(path=self._private / "socket")

    @property
    def published(self) -> Path:
        """The file by which whoever publishes the server tells it which place it is to prove."""
        return self._private / "published"

    def take_port(self) -> None:
        """Have it listen at a port of loopback that this process holds, in place of a socket."""
        port, self._held = hold(LOOPBACK)
        self.place = Place.here(address=LOOPBACK, port=port)

    @property
    def endpoint(self) -> Endpoint:
        """The open endpoint of the server."""
        place = self.place
        origin = "localhost" if place.socket else f"{place.address}:{place.port}"
        return Endpoint(
            url=f"http://{origin}/v1", key=self._key, model=self._served, name=self.ckpt.name, socket=place.socket
        )

    def _command(self) -> list[str]:
        """What starts it; its arguments stand in a file, since a command line is everybody's to read."""
        brought = self._containers.vllm is not None and not self._containers.bind_environments
        python = "python3" if brought else str(environment_python("vllm"))
        file = self._private / "arguments"
        file.write_text(json.dumps(self._arguments()), encoding="utf-8")
        return [python, "-m", "milepost.runtime.launch", "vllm.entrypoints.openai.api_server", f"@{file}"]

    def _arguments(self) -> list[str]:
        """The words of vLLM's command line."""
        ckpt, place = self.ckpt, self.place
        where = ["--uds", place.socket] if place.socket else ["--host", place.address, "--port", str(place.port)]
        return [
            "--model", str(self._model or ckpt.model),
            "--served-model-name", self._served, ckpt.name,
            *where,
            "--middleware", "milepost.endpoints.guard.Guard",
            "--uvicorn-log-level", "warning",
            *(["--revision", ckpt.revision] if self._model is None and ckpt.revision else []),
            *command_line({**server_options(ckpt.serving), **ckpt.serving.vllm_args}),
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """The server's own environment variables, on top of those of this process."""
        defaults = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if self._model is not None:
            defaults["HF_HUB_OFFLINE"] = "1"
        if self._containers.vllm is not None:
            caches = self._containers.caches.absolute()
            defaults |= {name: str(caches / folder) for name, folder in CACHES.items()}
            # Said, because an image's own home of the hub is elsewhere.
            defaults["HF_HOME"] = str(hub_home(self.ckpt))
        return {
            **{name: value for name, value in defaults.items() if name not in os.environ},
            **LOOPBACK_ONLY,
            **self.ckpt.serving.env,
            # Sockets and files of its processes, which it leaves behind: the folders go with the server.
            "TMPDIR": str(self._scratch),
            "VLLM_RPC_BASE_PATH": str(self._private),
            "VLLM_API_KEY": self._key,
            "MILEPOST_ATTEMPT": self.attempt,
            "MILEPOST_SOCKET": self.place.socket or "",
            "MILEPOST_PUBLISHED": str(self.published),
            HELD: str(self.place.port or ""),
            "PYTHONPATH": str(WORKFLOW / "scripts"),
        }

    def _inside(self) -> tuple[list[str], dict[str, str]]:
        """The server's command and environment, within an image if one is named."""
        containers = self._containers
        env = self._environment()
        if containers.vllm is None:
            return inside(self._command(), None, env=env)
        for name in CACHES:
            Path(env.get(name) or os.environ[name]).mkdir(parents=True, exist_ok=True)
        hub_home(self.ckpt).mkdir(parents=True, exist_ok=True)
        image = str(require_image(containers.vllm).absolute())
        return inside(self._command(), image, env=env, binds=self._binds(env), nv=containers.nv)

    def _binds(self, env: dict[str, str]) -> Iterator[Path]:
        """The folders and files of this host that the server needs inside an image."""
        yield WORKFLOW / "scripts"
        if self._containers.bind_environments:
            yield WORKFLOW / "envs"
        for name in CACHES:
            yield Path(env.get(name) or os.environ[name])
        yield hub_home(self.ckpt)
        yield self._private
        yield self._scratch
        options = [Path(str(self.ckpt.serving.vllm_args.get(name, ""))) for name in FILE_OPTIONS]
        for path in (self._model, *options):
            # A template may stand in the option itself, longer than any name of a file.
            if path is not None and path != Path() and os.path.exists(path):
                yield from reached_from(path)
        yield from self._containers.binds

    async def start(self) -> None:
        """Start the server and wait until it proves who it is.

        A vLLM that knows no sockets (before 0.10) gets a port of loopback, which we hold before it and after it. Where
        another program has taken a port that vLLM or PyTorch chose for its own processes, it is started again. Neither
        costs an attempt.

        Raises:
            ServerError: It ended, or took too long; with its last lines.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for folder in {self._private, self._scratch}:
            folder.mkdir(mode=0o700)
            self._watchdog.remove(folder)
        taken = 0
        while True:
            self.log.write_bytes(b"")
            command, env = self._inside()
            self._group = await ProcessGroup.start(command, env=env, log=self.log, watchdog=self._watchdog)
            try:
                await self._wait()
                return
            except StrangerError:
                raise ServerError(
                    f"The server of {self.ckpt.name!r} could not be started: whoever answers at {self.place} does not know its"
                    " key. Nothing was asked; run again."
                ) from None
            except ServerError:
                said = last_lines(self.log, 500)
                if self.place.socket and NO_SOCKETS in said:
                    log.info("this vLLM knows no Unix sockets: it gets a port of loopback")
                    self.take_port()
                elif taken < STARTS and TAKEN in f"{first_error(said)}\n{last_lines(self.log)}".lower():
                    taken += 1
                    log.warning("%s: vLLM is started again", whose(said))
                else:
                    raise
            await self._group.stop()

    async def _wait(self) -> None:
        """Wait until the server answers.

        Raises:
            ServerError: It ended, took too long, or its guard is not there.
            StrangerError: Another program answers at its place.
        """
        assert self._group is not None
        deadline = time.monotonic() + self.ckpt.serving.start_timeout_s
        while not await self._answers():
            if self._group.process.returncode is not None:
                raise self._died("ended before it answered")
            if time.monotonic() > deadline:
                raise ServerError(
                    f"The server of {self.ckpt.name!r} did not answer within {self.ckpt.serving.start_timeout_s:.0f} s"
                    f" (start_timeout_s of its model profile). The last lines of {self.log}:\n{last_lines(self.log)}"
                )
            await asyncio.sleep(POLL_S)

    async def _get(self, path: str, *, with_key: bool = True) -> tuple[int, bytes]:
        """Ask the server, which proves who it is on the same connection before."""
        async with asyncio.timeout(ASK_S):
            return await get(self.place, path, self._key, self.attempt, with_key=with_key)

    async def _answers(self) -> bool:
        """Whether our server answers: our name is served, and no path is open without the key."""
        try:
            status, body = await self._get("/v1/models")
            if status != 200:
                return False
            names = [model["id"] for model in json.loads(body)["data"]]
            if self._served not in names:
                return False
            for path in ("/v1/models", "/health", "/metrics"):
                status, _ = await self._get(path, with_key=False)
                if status != 401:
                    raise ServerError(
                        f"The server of {self.ckpt.name!r} answers {status} to {path} without a key: the guard does not"
                        " stand before it. Nothing was asked."
                    )
        except StrangerError:
            raise
        except (OSError, TimeoutError, ValueError, KeyError, TypeError):
            return False
        return True

    async def version(self) -> str:
        """The version that the server reports."""
        try:
            return f"vllm-{json.loads((await self._get('/version'))[1])['version']}"
        except (OSError, TimeoutError, ValueError, KeyError, TypeError):
            return "unknown"

    async def usage(self) -> dict[str, Any]:
        """How long and how often the server was asked, as its guard counts; empty where it does not say."""
        try:
            status, body = await self._get("/milepost/usage")
            return dict(json.loads(body)) if status == 200 else {}
        except (OSError, TimeoutError, ValueError, TypeError):
            return {}

    async def died(self) -> ServerError:
        """Return, with its last lines, when the server has died; within two seconds of its death."""
        assert self._group is not None, "start the server first"
        exited = asyncio.create_task(self._group.process.wait())
        try:
            failures = 0
            while not exited.done():
                await asyncio.wait([exited], timeout=HEALTH_S)
                failures = 0 if exited.done() or await self._healthy() else failures + 1
                if failures >= 2:
                    return self._died("serves its model no longer, though its process still runs")
        finally:
            exited.cancel()
        return self._died("died")

    async def _healthy(self) -> bool:
        """False if the server reports a dead engine, or nobody listens; a slow answer does not count as dead."""
        try:
            return (await self._get("/health"))[0] < 500
        except TimeoutError:
            return True
        except OSError:
            return False

    async def stop(self) -> None:
        """End the server and everything that it started."""
        if self._group is not None:
            await self._group.stop()
        for held in self._held:
            held.close()
        for folder in {self._private, self._scratch}:
            if folder.exists():
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                self._watchdog.keep(folder)

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


def whose(said: str) -> str:
    """Whose the port is that vLLM could not get, by what it said.

    >>> whose("RuntimeError: failed to listen. port: 1, code: -98, message: address already in use")
    'a port that vLLM chose (1) belongs to a program that has ended'
    """
    match = TAKEN_PORT.search(said)
    if match is None:
        return "a port that vLLM chose belongs to another program"
    port = int(match[1] or match[2])
    return f"a port that vLLM chose ({port}) belongs to {owner_of(port)}"


def first_error(text: str) -> str:
    r"""The first exception in a log, without the name of the process before it; empty if there is none.

    >>> first_error("(EngineCore pid=7) ERROR 11-21 [core.py:1] ValueError: No room.\nRuntimeError: See above.")
    'ValueError: No room.'
    """
    match = ERROR.search(text)
    return match["error"] if match else ""


def engine_version(python: Path) -> str:
    """Version of vLLM in an environment, read from its packages without importing it; that takes 10 s."""
    for pattern in ("vllm_cpu-*.dist-info", "vllm-*.dist-info"):
        for folder in python.parent.parent.glob(f"lib/python*/site-packages/{pattern}"):
            return folder.name.removesuffix(".dist-info")
    return "unknown"

"""A way to a port of another host's loopback, by ssh: kept open, and opened again when it drops.

ssh listens on a socket in a folder that nobody else can enter, and this process on a port of loopback, which it holds
until the end. Were ssh to hold the port itself, then each time that it dropped, a stranger on this host could take the
port and be sent the key. And requests that come while ssh is away wait for it.

The same port leads to a server that needs no ssh: on this host, or at an address where `direct` lets us in.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from milepost.endpoints.direct import HANDSHAKE_S, carry, context
from milepost.errors import EndpointError
from milepost.runtime.processes import ProcessGroup, Watchdog, last_lines

log = logging.getLogger("milepost")
LOOPBACK = "127.0.0.1"
START_S = 20.0
POLL_S = 0.05
AGAIN_S = 0.3  # until the next try of a connection that led nowhere
WAIT_S = 20.0  # that a request waits while the tunnel is opened again
BACKOFF_S = (0.2, 1.0, 2.0, 5.0, 10.0)
OPTIONS = {
    "BatchMode": "yes",  # what would ask for a password fails
    "ExitOnForwardFailure": "yes",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "ConnectTimeout": "10",
    "ConnectionAttempts": "1",
    "StreamLocalBindUnlink": "yes",  # the socket of the one that dropped
    "StreamLocalBindMask": "0177",
    # A master that the user's configuration asks for would outlive this one, or be another's.
    "ControlMaster": "no",
    "ControlPath": "none",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "LogLevel": "INFO",
}
DROPPED = ("kex_exchange_identification", "banner exchange")
# What ssh says, what that means, and what to do.
CAUSES = (
    (("could not resolve",), "no host has this name", "Correct 'host' in {file}, or add the host to ~/.ssh/config."),
    (("host key verification failed", "no matching host key", "identification has changed"),
     "its host key is not one that you have accepted", "Run `ssh {host}` once by hand, compare the key with what its owner says, and accept it."),
    (("permission denied", "too many authentication"),
     "it wants a password or a key that ssh does not find here",
     "A job cannot type one: make a key (`ssh-keygen`), append its .pub file to ~/.ssh/authorized_keys on {host}, and see that"
     " `ssh -o BatchMode=yes {host} true` works from where the job runs."),
    (("timed out", "no route to host", "network is unreachable"),
     "it cannot be reached", "See that it is up, and that this host may reach it; correct 'host' in {file} otherwise."),
    (("connection refused",), "no ssh server answers there", "See that it is up; correct 'host' in {file} otherwise."),
    (("administratively prohibited", "forwarding"), "it does not forward ports",
     "Name a host that does; its administrators can say which."),
)  # fmt: skip


class Way(NamedTuple):
    """A way to a server: by ssh to a host (None: without), then to a socket, or to a port of an address as it is seen there."""

    host: str | None
    port: int
    address: str = LOOPBACK
    socket: str | None = None
    certificate: str = ""  # what both ends show, where the wire is the site's network


Check = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


class Tunnel:
    """A port of loopback that leads to another host's. Use it as an asynchronous context manager."""

    def __init__(
        self,
        place: Callable[[], Awaitable[Way]],
        *,
        name: str,
        file: str,
        ssh_config: Path | None = None,
        wait_s: float = WAIT_S,
        failed: Callable[[], object] = lambda: None,
        check: Check | None = None,
    ) -> None:
        """Describe the tunnel; nothing is started yet.

        Args:
            place: Asked each time that the tunnel is opened: where it leads. The host is a name, `user@name`, or an
                alias of ~/.ssh/config.
            name: The endpoint's, for messages.
            file: Where the user can correct the host.
            ssh_config: Instead of the user's own.
            wait_s: Seconds that a connection waits for a tunnel that is being opened again.
            failed: Called when it could not be opened again, before the place is asked for anew.
            check: Whether a new connection leads to whom it should, asked before anything is carried on it. The port
                that a server has left may be anybody's.
        """
        self.host: str | None = None
        self.starts = 0
        self._place, self._name, self._file, self._ssh_config = place, name, file, ssh_config
        self._wait_s, self._failure = wait_s, failed
        self._check = check
        self._direct: Way | None = None  # without ssh
        self._tls: ssl.SSLContext | None = None
        self._is_open, self._unfit = asyncio.Event(), asyncio.Event()
        self._group: ProcessGroup | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._carried: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        """Open the tunnel; returns its port on this host.

        Raises:
            EndpointError: ssh cannot get there.
        """
        # The name of a socket has at most 107 bytes, and a job's TMPDIR may be longer.
        self._folder = Path(tempfile.mkdtemp(prefix="milepost-", dir="/tmp"))
        self._socket, self._log = self._folder / "socket", self._folder / "log"
        self._watchdog = Watchdog()
        self._watchdog.remove(self._folder)
        self._server: asyncio.Server | None = None
        try:
            await self._start()
            self._server = await asyncio.start_server(self._carry, LOOPBACK, 0)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        self._keeper = asyncio.create_task(self._keep())
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the tunnel; no process and no file of it is left."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for task in self._carried:
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)
        await self._stop_ssh()
        self._watchdog.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def said(self) -> str:
        """The last lines that ssh wrote."""
        if not self._log.exists():
            return ""
        return " ".join(last_lines(self._log, 1).split())

    def reopen(self) -> None:
        """Open the tunnel anew, because it leads to a wrong or dead server; connections wait meanwhile."""
        self._is_open.clear()
        self._unfit.set()

    async def holds(self, within_s: float) -> bool:
        """Whether the other end can be reached and passes the check."""
        streams = None
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._is_open.wait()
                streams = await self._dial()
        if streams is not None:
            streams[1].close()
        return streams is not None

    async def _start(self) -> None:
        """Start ssh, if the way needs it, and wait until it is connected."""
        way = await self._place()
        self.host = way.host
        self._direct = way if way.host is None else None
        self._tls = context(way.certificate, self._folder, server=False) if way.certificate else None
        if way.host is not None:
            await self._start_ssh(way.host, way)
        self.starts += 1
        self._unfit.clear()
        self._is_open.set()

    async def _start_ssh(self, host: str, way: Way) -> None:
        self._socket.unlink(missing_ok=True)
        config = ["-F", str(self._ssh_config)] if self._ssh_config else []
        options = [word for option, value in OPTIONS.items() for word in ("-o", f"{option}={value}")]
        forward = ["-L", f"{self._socket}:{way.socket or f'{way.address}:{way.port}'}"]
        command = ["ssh", *config, *options, "-N", "-T", *forward, "--", host]
        # No key of ours is for ssh, nor for the other host, should it be asked for variables.
        kept = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "SSH_AUTH_SOCK", "KRB5CCNAME", "TMPDIR")
        env = {name: value for name, value in os.environ.items() if name in kept}
        try:
            async with asyncio.timeout(START_S):
                while not await self._run(command, env):
                    # A host takes only so many new connections at once, and drops the rest: forty jobs begin together.
                    await asyncio.sleep(random.uniform(0.2, 2.0))  # noqa: S311 (jitter)
        except TimeoutError:
            raise self._failed() from None
        except FileNotFoundError:
            raise EndpointError(
                f"Endpoint {self._name!r}: there is no ssh on this host, and {host} is reached by a tunnel. Install it"
                " (openssh-client), or load its module."
            ) from None

    async def _run(self, command: list[str], env: dict[str, str]) -> bool:
        """Start ssh; True once it is connected, False if the other host dropped the connection early."""
        self._log.write_bytes(b"")
        self._group = await ProcessGroup.start(command, env=env, log=self._log, watchdog=self._watchdog)
        # Its socket shows that it is through; to connect to it would open a connection on the other host as well.
        while not self._socket.exists():
            if self._group.process.returncode is not None:
                output = last_lines(self._log, 5).lower()
                await self._stop_ssh()
                if not any(words in output for words in DROPPED):
                    raise self._failed()
                return False
            await asyncio.sleep(POLL_S)
        return True

    def _failed(self) -> EndpointError:
        output = last_lines(self._log, 5)
        known = (
            cause_and_advice for words, *cause_and_advice in CAUSES if any(word in output.lower() for word in words)
        )
        unknown = [f"there was no way within {START_S:.0f} s", "Try `ssh {host} true` by hand."]
        cause, advice = next(known, unknown)
        shown = " ".join(output.split())[-300:].rstrip(".")
        return EndpointError(
            f"Endpoint {self._name!r}: the tunnel to {self.host} could not be opened: {cause}."
            f" {advice.format(host=self.host, file=self._file)} ssh said: {shown or 'nothing'}."
        )

    async def _keep(self) -> None:
        """Open the tunnel again whenever it drops, with growing pauses while that fails."""
        failures = 0
        while True:
            ends = [asyncio.create_task(self._unfit.wait())]
            if self._group is not None:
                ends.append(asyncio.create_task(self._group.process.wait()))  # type: ignore[arg-type]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
            self._is_open.clear()
            try:
                await self._stop_ssh()
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                await self._start()
                failures = 0
            except Exception as error:
                # Whatever it is (the other host, a quota, a stale file handle, no process more), it may be over in a
                # minute; whoever asks meanwhile is told. Without this keeper, the tunnel would never open again.
                if failures == 0 or not isinstance(error, EndpointError):
                    log.warning(
                        "the tunnel of endpoint %r is closed, and is tried again: %s", self._name, error or repr(error)
                    )
                failures += 1
                self._unfit.set()
                with suppress(Exception):
                    await asyncio.to_thread(self._failure)
                with suppress(OSError):
                    await self._stop_ssh()

    async def _stop_ssh(self) -> None:
        if self._group is not None:
            await self._group.stop()
            self._group = None

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._carried.add(task)
        try:
            await carry((reader, writer), await self._connect())
        except (OSError, TimeoutError, asyncio.CancelledError):
            # The client notices that its connection ends, and asks again.
            writer.close()
        finally:
            self._carried.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(self._wait_s):
            while True:
                await self._is_open.wait()
                if streams := await self._dial():
                    return streams
                await asyncio.sleep(AGAIN_S)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Connect to the other end; None if that is not possible at the moment, or another server answers."""
        try:
            if self._direct is not None and self._direct.socket is not None:
                reader, writer = await asyncio.open_unix_connection(self._direct.socket)
            elif self._direct is not None:
                reader, writer = await asyncio.open_connection(
                    self._direct.address,
                    self._direct.port,
                    ssl=self._tls,
                    # Who has the port of a server that is gone may be silent.
                    ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
                )
            else:
                reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return None
        try:
            if self._check is None or await self._check(reader, writer):
                return reader, writer
        except BaseException:
            writer.close()
            raise
        writer.close()
        return None


def read_port(path: Path, name: str) -> int:
    """Read the port that a file holds.

    Args:
        path: The file.
        name: The endpoint's, for messages.

    Raises:
        EndpointError: It is missing, or holds something else.
    """
    try:
        text = path.read_bytes()[:200].decode(errors="replace").strip()
    except OSError as error:
        raise EndpointError(
            f"Endpoint {name!r}: its port file {path} cannot be read: {error.strerror} (from {Path.cwd()}). The server does"
            " not run yet or has ended, or 'port_file' is wrong: ask whoever runs it."
        ) from None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16):
        held = "".join(letter if letter.isprintable() else "?" for letter in text)[:60]
        raise EndpointError(
            f"Endpoint {name!r}: its port file {path} holds no port but {held!r}. It must hold one number from 1 to 65535, as"
            " the server writes it: ask whoever runs it, or correct 'port_file'."
        )
    return int(text)

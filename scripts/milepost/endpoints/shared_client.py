"""A job's side of a shared server: finds it by its record, has it started if there is none, and again if it dies.

Whether a record holds is found out by asking the server, which has to show that it knows the key: a process id or a
job's state would say less.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from milepost.client.proof import PROOF_S, Place, proves
from milepost.endpoints import ENDPOINTS, Endpoint
from milepost.endpoints.shared_jobs import submit, submitting
from milepost.endpoints.shared_place import SharedEndpointFolder, place_of, read_json, write_private
from milepost.endpoints.shared_spec import SharedSpec
from milepost.endpoints.tunnel import Tunnel, Way
from milepost.errors import EndpointError
from milepost.runtime.processes import last_lines
from milepost.store.lease import STALE_S, file_age, has_ended, read_lease, started
from milepost.store.slurm_jobs import job_is_awaited

log = logging.getLogger("milepost")
POLL_S = 1.0
WATCH_S = 2.0
LOOK_S = 5.0
STARTS = 3  # in a row that end before they answer; then the jobs that wait give up


@asynccontextmanager
async def open_shared(spec: SharedSpec) -> AsyncIterator[Endpoint]:
    """Open a shared endpoint, and have its server started if none runs, or if it dies while the context lasts.

    Raises:
        EndpointError: Its server cannot be started or reached.
    """
    client = SharedServerClient(spec, place_of(spec.name))
    patience_s = spec.serving.start_timeout_s + STALE_S
    tunnel = Tunnel(
        client.find, name=spec.name, file=str(ENDPOINTS), ssh_config=spec.ssh_config, wait_s=patience_s,
        failed=client.reject, check=client.prove,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        near = await client.enter(tunnel, stack)
        watcher = asyncio.create_task(client.watch(tunnel))
        try:
            await client.first_proof(watcher)
            url = f"http://127.0.0.1:{near}/v1"
            # By the name that every start of it goes by, with the key of the one that runs.
            yield Endpoint(url=url, key=client.key(), model=spec.name, name=spec.name, key_now=client.key)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


class SharedServerClient:
    """Finds a shared server for one job, and has it started where needed."""

    def __init__(self, spec: SharedSpec, place: SharedEndpointFolder) -> None:
        """Prepare the search; nothing is looked at yet."""
        self.spec, self.place = spec, place
        self._digest = spec.digest
        self._rejected: str | None = None  # a record that did not hold
        self._current: str | None = None
        self._where: Place | None = None
        self._proved = asyncio.Event()
        self._seen: set[str] = set()  # servers that were submitted since the last one that answered
        self._begun, self._submitted = time.monotonic(), -LOOK_S
        self._asked, self._gone = -LOOK_S, False  # when it was asked whether the lease's holder is gone, and the answer

    async def enter(self, tunnel: Tunnel, stack: AsyncExitStack) -> int:
        """Open the tunnel; a record of a server that is gone may lead to a host that is gone as well."""
        while True:
            try:
                return await stack.enter_async_context(tunnel)
            except EndpointError:
                if self._current is None or not await asyncio.to_thread(self.reject):
                    raise

    def reject(self) -> bool:
        """Called when the current record led nowhere; True if its server is gone, so that the record is not used again."""
        gone = not self._lives()
        self._rejected = self._current if gone else None
        return gone

    async def find(self) -> Way:
        """Wait until a server runs, and return the way to it."""
        logged_at = 0.0
        while True:
            way = await asyncio.to_thread(self._look)
            if way is not None:
                return way
            if time.monotonic() - logged_at > 60:
                logged_at = time.monotonic()
                log.info("waiting for the server of endpoint %r to start", self.spec.name)
            await asyncio.sleep(POLL_S)

    def _look(self) -> Way | None:
        """The place of the server if its record may be valid; otherwise None, after making sure that one will start."""
        # Read again each time: a run that ended meanwhile took the key with it, and the next server has another.
        place = self.place = place_of(self.spec.name)
        record = read_json(place.record)
        if record.get("identity") not in (None, self._digest):
            raise EndpointError(
                f"Endpoint {self.spec.name!r}: the server that runs was started with another model or other options than"
                f" {ENDPOINTS} has now. Run `snakemake stop_servers`, and again."
            )
        attempt, where = record.get("attempt"), place_in(record)
        if isinstance(attempt, str) and where is not None and attempt != self._rejected:
            self._current, self._where = attempt, where
            return way_to(where, record.get("direct"))
        if self._lives():
            # It is starting, or it is busy, or this host cannot reach it just now.
            self._rejected = None
            return None
        # SLURM is asked about the job only now and then: many jobs may wait.
        if time.monotonic() - self._submitted > LOOK_S:
            self._submit_once()
            self._submitted = time.monotonic()
        return None

    def _lives(self) -> bool:
        """Whether a living server holds the lease."""
        age = file_age(self.place.lease)
        if age is None or age >= STALE_S:
            return False
        if time.monotonic() - self._asked > LOOK_S:
            self._asked, self._gone = time.monotonic(), has_ended(read_lease(self.place.lease), age)
        return not self._gone

    def _submit_once(self) -> None:
        """Submit the server's job, unless one was submitted; of several jobs that try at once, only one does."""
        submitted = read_json(self.place.submitted)
        if submitted and not self._is_over(submitted):
            return
        with submitting(self.place):
            submitted = read_json(self.place.submitted)
            if submitted and not self._is_over(submitted):
                return
            failed, age = read_json(self.place.failed), file_age(self.place.failed)
            # One that failed before this job began says nothing: what was wrong may have been put right.
            if failed and age is not None and age <= time.monotonic() - self._begun:
                raise EndpointError(
                    f"Endpoint {self.spec.name!r}: its server could not be started. {failed.get('error')}"
                )
            if len(self._seen) >= STARTS:
                raise EndpointError(
                    f"Endpoint {self.spec.name!r}: {STARTS} servers in a row ended before they answered. What they said is in"
                    f" {self.place.log.parent}/{self.spec.name}*.log, at last: {' '.join(last_lines(self.place.job_log, 3).split())}"
                )
            attempt = secrets.token_hex(6)
            self._seen.add(attempt)
            self.place.stop.unlink(missing_ok=True)
            write_private(self.place.submitted, {"attempt": attempt, "at": time.time(), **submit(self.spec, attempt)})

    def _is_over(self, submitted: Mapping[str, Any]) -> bool:
        """Whether a submitted job has ended or failed, so that it will not become a server. A living server holds the lease."""
        self._seen.add(str(submitted.get("attempt")))
        if read_json(self.place.failed).get("attempt") == submitted.get("attempt"):
            return True
        if submitted.get("job"):
            age = file_age(self.place.submitted)
            return not job_is_awaited(submitted) and (age or 0.0) > LOOK_S
        if submitted.get("host") == socket.gethostname():
            return started(int(submitted.get("pid", 0))) != submitted.get("started")
        age = file_age(self.place.submitted)
        return age is None or age > STALE_S

    async def prove(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the server behind a connection knows the key, for the place and the start that its record names."""
        assert self._where is not None, "there is no connection before a record was found"
        return await proves((reader, writer), self.key(), self._where, str(self._current))

    def key(self) -> str:
        """The key of the server that was found last."""
        return self.place.key_of(str(self._current))

    async def watch(self, tunnel: Tunnel) -> None:
        """Ask the server again and again whether it is the one; where it is not, have the tunnel look for another."""
        refused = 0
        while True:
            if await tunnel.holds(PROOF_S):
                refused, self._rejected = 0, None
                self._seen.clear()
                self._proved.set()
                await asyncio.sleep(WATCH_S)
                continue
            refused += 1
            self._proved.clear()
            if refused >= 2:
                self._rejected, refused = self._current, 0
                tunnel.reopen()
            await asyncio.sleep(POLL_S)

    async def first_proof(self, watcher: asyncio.Task[None]) -> None:
        """Wait until the server has shown that it knows the key."""
        proved = asyncio.create_task(self._proved.wait())
        await asyncio.wait([proved, watcher], return_when=asyncio.FIRST_COMPLETED)
        proved.cancel()
        if watcher.done():
            watcher.result()


def place_in(record: Mapping[str, Any]) -> Place | None:
    """Where the server is that a record tells of; None if it tells of none."""
    host, port, address, path = (record.get(key) for key in ("host", "port", "address", "socket"))
    if isinstance(host, str) and isinstance(path, str):
        return Place(host, path)
    if isinstance(host, str) and isinstance(port, int) and isinstance(address, str):
        return Place(host, None, address, port)
    return None


def way_to(place: Place, direct: Any = None) -> Way:
    """The way to a server from here: by ssh, unless it is on this host, or has a door at an address that others reach.

    >>> way_to(Place("gpu01", "/tmp/milepost-1/socket"), {"address": "10.77.0.11", "port": 8000, "certificate": "PEM"})
    Way(host=None, port=8000, address='10.77.0.11', socket=None, certificate='PEM')
    >>> way_to(Place("gpu01", "/tmp/milepost-1/socket")).host
    'gpu01'
    """
    near = place.host == socket.gethostname()
    if isinstance(direct, dict) and not near:
        return Way(None, direct["port"], direct["address"], certificate=direct["certificate"])
    return Way(None if near else place.host, place.port, place.address, place.socket)

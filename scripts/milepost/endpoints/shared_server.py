"""The server of a shared endpoint: serves until nobody asks, until it is told to end, or until its walltime is nearly over."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from milepost.endpoints import ENDPOINTS
from milepost.endpoints.direct import Door, new_certificate
from milepost.endpoints.gpus import check_visible
from milepost.endpoints.publish import publish
from milepost.endpoints.shared_place import SharedEndpointFolder, read_json, write_private
from milepost.endpoints.shared_spec import SharedSpec
from milepost.endpoints.vllm import VllmServer
from milepost.errors import ServerError
from milepost.records import LedgerLine
from milepost.runtime.containers import Containers
from milepost.runtime.processes import Watchdog
from milepost.runtime.walltime import near_the_end
from milepost.schemas import of_schema
from milepost.store.lease import BEAT_S, Lease, acquire
from milepost.store.ledger import append_line

log = logging.getLogger("milepost")
POLL_S = 1.0
WARNING_S = 900.0  # a warning so many seconds before the end of the walltime, so that a class can be told


class DiedError(ServerError):
    """A server died after it had answered, so another one may work."""


@dataclass(frozen=True)
class Service:
    """The settings of a shared endpoint's server.

    Attributes:
        spec: The endpoint.
        place: Its folder, key and name.
        attempt: Names this server in the record.
        kept: Whether it stays when nobody asks and when the campaign ends.
        containers: Whether vLLM runs in an image.
        margin_s: Seconds before the end of its walltime at which it ends itself.
    """

    spec: SharedSpec
    place: SharedEndpointFolder
    attempt: str
    kept: bool = False
    containers: Containers = field(default_factory=Containers)
    margin_s: float = of_schema("config", "walltime_margin_s")


def serve(service: Service) -> str:
    """Serve until something ends the server; returns the reason.

    Raises:
        DiedError: The server died after it had answered.
        MilepostError: It did not start.
    """
    place = service.place
    lease, dead = acquire(place.lease, log.info)
    try:
        if read_json(place.stop).get("nonce") != lease.owner["nonce"]:
            place.stop.unlink(missing_ok=True)  # it told a server before this one
        if dead:
            append_line(place.folder, {**dead, "end": "killed"})  # type: ignore[typeddict-item]
        return asyncio.run(_serve(service, lease))
    finally:
        with suppress(OSError):
            if lease.held():
                for path in (place.record, place.stop):
                    path.unlink(missing_ok=True)
        lease.release()


async def _serve(service: Service, lease: Lease) -> str:
    place = service.place
    loop = asyncio.get_running_loop()
    told: asyncio.Future[str] = loop.create_future()

    def stop(why: str) -> None:
        if not told.done():
            told.set_result(why)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    account = _account(service)
    address, key = address_of(service.spec), place.key_of(service.attempt)
    watchdog = Watchdog()
    server = VllmServer(
        service.spec.as_checkpoint(), place.log, watchdog, containers=service.containers,
        known_as=(key, place.model), attempt=service.attempt,
    )  # fmt: skip
    begun = time.monotonic()
    keeper = asyncio.create_task(_keep(lease, account))
    clock: asyncio.Future[Any] = asyncio.gather(
        _watch_walltime(service.margin_s, stop), _watch_stop(place, lease, stop)
    )
    death: asyncio.Task[Any] | None = None
    beside: list[asyncio.Future[Any]] = []
    try:
        check_visible(service.spec.as_checkpoint())
        start = asyncio.create_task(server.start())
        ends: list[asyncio.Future[Any]] = [start, told, keeper]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            return _ending(told, keeper)
        start.result()
        account["start_s"] = round(time.monotonic() - begun, 3)
        log.info("the server of endpoint %r answers after %.0f s", service.spec.name, account["start_s"])
        death = asyncio.create_task(server.died())
        if service.kept and service.spec.publish is not None:
            output = place.log.with_suffix(".ssh.log")
            published = publish(service.spec.publish, server.place, key, server.published, watchdog, output)
            beside.append(asyncio.create_task(published))
        async with _found(server, address) as where:
            await _attend(service, server, where, [told, death, keeper, *beside], account, stop)
        for task in beside:
            if task.done():
                task.result()  # raises what it met: a file that cannot be written
        if death.done():
            raise DiedError(str(death.result()))
        return _ending(told, keeper)
    finally:
        # Whoever comes now must not be sent here.
        place.record.unlink(missing_ok=True)
        beside += [keeper, clock, *([death] if death else [])]
        for task in beside:
            task.cancel()
        await asyncio.gather(server.stop(), *beside, return_exceptions=True)
        watchdog.close()
        account["end"] = told.result() if told.done() else "failed"
        _write_account(service, account)


@asynccontextmanager
async def _found(server: VllmServer, address: str | None) -> AsyncIterator[dict[str, Any]]:
    """Where jobs find the server: at its socket, and where they come without ssh, at a door that is open meanwhile."""
    where = asdict(server.place)
    if address is None:
        yield where
        return
    certificate = new_certificate()
    async with Door(address, server.place, certificate, server.published.parent) as port:
        yield {**where, "direct": {"address": address, "port": port, "certificate": certificate}}


def address_of(spec: SharedSpec) -> str | None:
    """The address at which jobs reach its server directly, that of this host's name; None where they come by ssh.

    Raises:
        ServerError: This host's name leads to no address that other hosts could reach.
    """
    if spec.reach == "tunnel":
        return None
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
    except OSError:
        address = "no address"
    if address == "no address" or address.startswith("127."):
        raise ServerError(
            f"Endpoint {spec.name!r} has `reach: direct`, but the name of its node, {host}, leads to {address} there, which no"
            f" other host can reach. Take `reach` out of {ENDPOINTS}, or ask the site for a name that leads to the node."
        )
    return address


async def _attend(
    service: Service,
    server: VllmServer,
    where: dict[str, Any],
    ends: list[asyncio.Future[Any]],
    account: dict[str, Any],
    stop: Callable[[str], None],
) -> None:
    """Keep the record and the account of the server, until something ends it or nobody asks any more."""
    place, ready = service.place, time.monotonic()
    record = {
        **where,
        "attempt": service.attempt,
        "kept": service.kept,
        "identity": service.spec.digest,
    }
    while not any(end.done() for end in ends):
        # Again where something has happened to it: nobody would find the server otherwise.
        if read_json(place.record) != record:
            write_private(place.record, record)
        if read_json(place.folder / "key").get("key", place.key) != place.key:
            # Taken away, and jobs have made another: they would wait for ever for a server that knows it.
            stop("its key is no more")
        await asyncio.wait(ends, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        usage = await server.usage()
        account |= {"up_s": round(time.monotonic() - ready, 3)}
        account |= {name: usage[name] for name in ("requests", "busy_s") if name in usage}
        if not service.kept and usage.get("idle_s", 0.0) > service.spec.idle_s:
            stop("idle")


def _ending(told: asyncio.Future[str], keeper: asyncio.Task[None]) -> str:
    if keeper.done():
        keeper.result()  # raises what it met: the lease was lost
    return told.result()


async def _keep(lease: Lease, account: dict[str, Any]) -> None:
    """Renew the lease, with the account so far, from before the server's start to its end."""
    while True:
        lease.beat(account)
        await asyncio.sleep(BEAT_S)


async def _watch_stop(place: SharedEndpointFolder, lease: Lease, stop: Callable[[str], None]) -> None:
    """Wait until this server is told to end: by a file that names it, or nobody."""
    while not place.stop.exists() or read_json(place.stop).get("nonce") not in (None, lease.owner["nonce"]):
        await asyncio.sleep(POLL_S)
    stop("stopped")


async def _watch_walltime(margin_s: float, stop: Callable[[str], None]) -> None:
    left = await near_the_end(margin_s + WARNING_S)
    log.warning("%.0f s of this job's walltime are left: the server ends in %.0f s", left, max(left - margin_s, 0))
    left = await near_the_end(margin_s)
    log.warning(
        "%.0f s of this job's walltime are left: the server ends. Whoever needs it starts another.", max(left, 0)
    )
    stop("walltime")


def _account(service: Service) -> dict[str, Any]:
    return {
        "attempt": service.attempt,
        "host": socket.gethostname(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "gpus": service.spec.serving.gpus,
        "start_s": 0.0,
        "up_s": 0.0,
        "idle_s": 0.0,
        "busy_s": 0.0,
        "requests": 0,
    }


def _write_account(service: Service, account: dict[str, Any]) -> None:
    """Write what this server took to the ledger; its idle time is the time that it was up and not busy."""
    idle_s = max(0.0, account["up_s"] - account["busy_s"])
    line = {**account, "busy_s": round(account["busy_s"], 3), "idle_s": round(idle_s, 3)}
    append_line(service.place.folder, cast(LedgerLine, line))

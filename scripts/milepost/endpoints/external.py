"""Endpoints that somebody else serves: at a URL, or at a port of another host that a tunnel leads to."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from milepost.campaign.types import EndpointSpec, Serving
from milepost.client.money import Price
from milepost.client.shape import Shape
from milepost.endpoints import ENDPOINTS, Endpoint
from milepost.endpoints.keys import OURS, read_key
from milepost.endpoints.presets import preset
from milepost.endpoints.specs import path_in
from milepost.errors import ConfigError, EndpointError
from milepost.schemas import defaults, of_schema

log = logging.getLogger("milepost")
ATTEMPT_S = 4.0  # patience with a server behind a tunnel: opening the tunnel has taken some time already
PAUSE_S = 0.3
SHAPED = ("parameters", "extra_body", "headers", "key_header")
LIMITS = ("requests_per_minute", "tokens_per_minute", "max_calls", "max_tokens", "fingerprint", "budget")
SERVED = ("concurrency", "request_timeout_s", "retries")


@dataclass(frozen=True)
class External(EndpointSpec):
    """An endpoint on a server that somebody else runs.

    Attributes:
        url: Base address with `/v1`; None for one that a tunnel leads to.
        host: Where the tunnel leads.
        port_file: File with the server's port on that host.
        ssh_config: Configuration of the tunnel's ssh.
        key_env: Environment variable with the key.
        key_file: File with the key.
        shape: How it takes requests.
        accepts: Names of models that may answer, beside the one that answers first.
        adapt: Whether a job learns by a question which parameters it refuses.
        requests_per_minute: As many of all processes of the user; None for no limit.
        tokens_per_minute: Of prompts and replies, likewise.
        max_calls: As many replies as a campaign may pay for.
        max_tokens: As many tokens, likewise.
        price: What a million of its tokens costs.
        budget: What it may cost a campaign.
        fingerprint: What has to stay as it is in a campaign: the `whole` of what replies say of their model, or its `name`.
    """

    provider = "external"
    ours = False

    kind: str = of_schema("endpoint_external", "kind")
    url: str | None = None
    host: str | None = None
    port_file: Path | None = None
    ssh_config: Path | None = None
    key_env: str | None = None
    key_file: Path | None = None
    shape: Shape = field(default_factory=Shape)
    accepts: tuple[str, ...] = ()
    adapt: bool = of_schema("endpoint_external", "adapt")
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    price: Price | None = None
    budget: float | None = None
    fingerprint: Literal["whole", "name"] = of_schema("endpoint_external", "fingerprint")

    @property
    def identity(self) -> dict[str, Any]:
        """The endpoint's address, and the model's name and revision there."""
        # The port behind a tunnel is another one after each start of the same server.
        address = {"url": self.url} if self.url else {"host": self.host}
        return {**address, "model": self.model, "revision": self.revision, **self.shape.identity}

    @property
    def key_from(self) -> str | None:
        """The name of the variable, or the file, that holds the key."""
        return self.key_env or (str(self.key_file) if self.key_file else None)

    def check_here(self) -> None:
        """Check that the key can be read."""
        self.read_key()

    def read_key(self) -> str:
        """Read the key.

        Raises:
            EndpointError: The variable is not set; the file is missing, empty, or others may read it.
        """
        return read_key(self.name, self.key_env, self.key_file)

    @asynccontextmanager
    async def open(self, *, verified: bool = True) -> AsyncIterator[Endpoint]:
        """Open the endpoint; within 30 s its server has to show that it serves the named model."""
        from milepost.endpoints.open import verify

        key = self.read_key()
        if self.url is not None:
            endpoint = self._endpoint(self.url, key)
            if verified:
                await verify(endpoint, self)
            yield await self._adapted(endpoint)
            return
        async with self.tunnelled(key) as (endpoint, tunnel):
            try:
                if verified:
                    await verify(endpoint, self, ATTEMPT_S)
            except EndpointError as error:
                if "open failed" in tunnel.said():
                    raise self._nobody() from None
                raise EndpointError(f"{error} (Reached through the tunnel to {self.host}.)") from None
            yield endpoint

    @asynccontextmanager
    async def tunnelled(self, key: str) -> AsyncIterator[tuple[Endpoint, Any]]:
        """Open a tunnel to the endpoint's host; returns the endpoint at its near end, and the tunnel."""
        from milepost.client.proof import proves, published
        from milepost.endpoints.tunnel import Tunnel, Way, read_port

        host, port_file = self.host, self.port_file
        assert host is not None
        assert port_file is not None

        port = 0

        async def place() -> Way:
            nonlocal port
            port = read_port(port_file, self.name)
            return Way(host, port)

        async def is_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
            """Whether the server that was published is behind the port: somebody else may have taken it since."""
            if await proves((reader, writer), key, published(port), ""):
                return True
            with suppress(EndpointError):
                if read_port(port_file, self.name) != port:
                    tunnel.reopen()
            return False

        check = is_it if key.startswith(OURS) else None
        tunnel = Tunnel(place, name=self.name, file=str(ENDPOINTS), ssh_config=self.ssh_config, check=check)
        async with tunnel as near:
            if check is not None:
                await self._first_proof(tunnel)
            yield self._endpoint(f"http://127.0.0.1:{near}/v1", key), tunnel

    async def _adapted(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint as it takes requests, found by a question if the entry asks for that."""
        if not self.adapt or self.kind != "chat":
            return endpoint
        from milepost.endpoints.adapting import adapted, line_of

        found, refused = await adapted(endpoint)
        if found.shape.identity != endpoint.shape.identity:
            raise EndpointError(
                f"Endpoint {self.name!r}: {endpoint.url} refuses parameters without which its answers may be others:"
                f" {refused[-1]}. Nothing was asked. Write `{line_of(found.shape)}` into its entry in {ENDPOINTS}."
            )
        if found.shape != endpoint.shape:
            log.info("endpoint %s takes other parameters, and is asked so: %s", self.name, line_of(found.shape))
        return found

    async def _first_proof(self, tunnel: Any) -> None:
        """Wait a little until a server that knows the key is behind the tunnel.

        Raises:
            EndpointError: There is none.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ATTEMPT_S
        while not await tunnel.holds(ATTEMPT_S):
            if loop.time() < deadline:
                await asyncio.sleep(PAUSE_S)
            elif "open failed" in tunnel.said():
                raise self._nobody()
            else:
                raise EndpointError(
                    f"Endpoint {self.name!r}: whoever answers at the port that {self.port_file} names, on {self.host}, does not"
                    f" know the key in {self.key_from}, and was not sent it. It is the key of another start of the server, or"
                    " somebody else has the port: ask whoever runs the server for today's key."
                )

    def _nobody(self) -> EndpointError:
        return EndpointError(
            f"Endpoint {self.name!r}: nobody listens on the port that {self.port_file} names, on {self.host}. The server has"
            " ended or not begun: ask whoever runs it."
        )

    def _endpoint(self, url: str, key: str) -> Endpoint:
        return Endpoint(url, key, model=self.model, name=self.model, shape=self.shape, accepts=self.accepts)


def parse(name: str, entry: Mapping[str, Any], where: str) -> External:
    """Make the endpoint of an entry of config/endpoints.yaml that fits its schema.

    Raises:
        ConfigError: Keys that exclude or need each other.
    """
    if "preset" in entry:
        known = preset(entry["preset"], where)
        if "host" in entry or ("{" in known["url"] and "url" not in entry):
            raise ConfigError(
                f"{where} takes preset {entry['preset']!r}, whose address is {known['url']}. Write it as `url`, with your own in"
                " place of the braces."
            )
        if "key_file" in entry:
            known.pop("key_env", None)
        entry = {**known, **{key: value for key, value in entry.items() if key != "preset"}}
    if "key_env" in entry and "key_file" in entry:
        raise ConfigError(f"{where} names both key_env and key_file. Take one of them out.")
    if ("url" in entry) == ("host" in entry) or ("host" in entry) != ("port_file" in entry):
        raise ConfigError(f"{where} needs either a url, or a host and a port_file to tunnel to.")
    if "ssh_config" in entry and "host" not in entry:
        raise ConfigError(
            f"{where} has an ssh_config, but no host to tunnel to. Take it out, or add host and port_file."
        )
    if "budget" in entry and "price" not in entry:
        raise ConfigError(
            f"{where} has a budget, but no price, so that nobody can tell what it costs. Add `price: {{input: …, output: …}}`,"
            " for a million tokens; what is free costs 0."
        )
    entry = {**defaults("endpoint_external"), **entry}
    return External(
        name=name,
        model=entry["model"],
        kind=entry["kind"],
        revision=entry.get("revision"),
        serving=Serving(gpus=0, **{key: entry[key] for key in SERVED if key in entry}),
        url=re.sub(r"/(?=$|[?])", "", entry["url"]) if "url" in entry else None,
        host=entry.get("host"),
        port_file=path_in(entry, "port_file"),
        ssh_config=path_in(entry, "ssh_config"),
        key_env=entry.get("key_env"),
        key_file=path_in(entry, "key_file"),
        shape=Shape(**{key: entry[key] for key in SHAPED if key in entry}),
        accepts=tuple(entry.get("accepts", ())),
        adapt=entry["adapt"],
        price=Price(**entry["price"]) if "price" in entry else None,
        **{key: entry[key] for key in LIMITS if key in entry},
    )

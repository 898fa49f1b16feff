"""A relay between a harness and the model's server: a seed of its own for every request, and every reply kept.

Harnesses send one seed with all requests of a run, or none. With one, all items share their random numbers: they err
together, and no error bar over items sees it (measured on the demo's model at temperature 1: the score of a run varied
seven times as much as with a seed for each request). With none, no run can be told to differ from another.

A run that was cut asks again what it has asked; most harnesses keep nothing, and lm-eval nothing that is drawn at a
temperature. The relay gives it the reply that it had. And the server's key is kept from the harness: each relay has one
of its own.

How each request is to be sampled is written down as well: the harness's own defaults stand in no configuration. A task
that takes the model's own settings gets these in place of the harness's.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from milepost.campaign.sampling import NEUTRAL
from milepost.endpoints import Endpoint
from milepost.store.answers import mend, read_records_if_any

# Of one connection, not of the message.
HOP = frozenset("connection keep-alive transfer-encoding te trailer upgrade host content-length authorization".split())
# A request may carry images, and answers have no bound.
LARGEST = 1 << 30
OK = 200
SEEDED = ("/chat/completions", "/completions")
SAMPLING = (*NEUTRAL, "max_tokens", "max_completion_tokens", "stop")
SHOWN = 8  # ways of sampling within one run


class Relay:
    """Passes requests on to an endpoint, with a seed for each; used as `async with Relay(...) as endpoint`."""

    def __init__(
        self,
        endpoint: Endpoint,
        seed: int,
        record: Path,
        told: Callable[[dict[str, Any]], None],
        models_own: Mapping[str, Any] | None = None,
        attempt: str = "",
    ) -> None:
        """Nothing is opened yet.

        Args:
            endpoint: The server.
            seed: Of the run; a request's own follows from it, from what is asked, and from how often it was asked.
            record: The run's replies, a line each. What it holds already is not asked again.
            told: Is given a line for each reply of the server, without what it says.
            attempt: Stands with each reply, so that it can be told later who gave it.
            models_own: How to sample, in place of what the harness asks for; None leaves that.
        """
        self.endpoint = endpoint
        self.seed = seed
        self.record = record
        self.told = told
        self.models_own = models_own
        self._attempt = attempt
        self._key = secrets.token_urlsafe(32)
        self._asked: Counter[str] = Counter()
        mend(record)
        lines = read_records_if_any(record)
        self._kept = {line["key"]: line["reply"] for line in lines if line["status"] == OK and "reply" in line}
        self._session: aiohttp.ClientSession
        self._runner: web.AppRunner

    async def __aenter__(self) -> Endpoint:
        """Listen on a port of loopback that the system chooses; the harness's endpoint."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self.endpoint.socket, limit=0)
            if self.endpoint.socket
            else aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            auto_decompress=False,
        )
        application = web.Application(client_max_size=LARGEST)
        application.router.add_route("*", "/{path:.*}", self.handle)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=0.5, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port = self._runner.addresses[0][1]
        return Endpoint(
            url=f"http://127.0.0.1:{port}/v1", key=self._key, model=self.endpoint.model, name=self.endpoint.name
        )

    async def __aexit__(self, *error: object) -> None:
        """Stop listening."""
        await self._runner.cleanup()
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass on one request and its reply."""
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._key}".encode()):
            return web.json_response({"error": {"message": "Unauthorized", "code": 401}}, status=401)
        body, asked = await request.read(), None
        if request.method == "POST" and request.path.endswith(SEEDED):
            body, asked = self.seeded(body)
        if asked is not None and asked["key"] in self._kept:
            return web.json_response(self._kept.pop(asked["key"]))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        headers["Authorization"] = f"Bearer {self.endpoint.key}"
        url = self.endpoint.url.removesuffix("/v1") + request.path_qs
        begun = time.monotonic()
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as reply:
                kept = {name: value for name, value in reply.headers.items() if name.lower() not in HOP}
                if reply.content_type == "text/event-stream":
                    return await self.stream(request, reply, kept, asked)
                content = await reply.read()
                if asked is not None:
                    self.note(asked, reply.status, time.monotonic() - begun, content)
                return web.Response(status=reply.status, headers=kept, body=content)
        except aiohttp.ClientError as error:
            # The harness tries again, as it would with the server itself.
            message = f"The model's server is not to be reached: {type(error).__name__}"
            return web.json_response({"error": {"message": message, "code": 502}}, status=502)

    async def stream(
        self, request: web.Request, reply: aiohttp.ClientResponse, headers: dict[str, str], asked: dict[str, Any] | None
    ) -> web.StreamResponse:
        """Pass on a reply as it comes; it is counted, but not kept."""
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(request)
        async for chunk in reply.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        if asked is not None:
            self.note(asked, reply.status, 0.0, b"")
        return response

    def seeded(self, body: bytes) -> tuple[bytes, dict[str, Any] | None]:
        """A request with its own seed in place of any other; what was asked as `{"key", "seed", "sampling"}`.

        The same request gets another seed each time that it is asked, so that what a harness repeats is drawn anew.
        """
        try:
            request = orjson.loads(body)
        except ValueError:
            return body, None
        if not isinstance(request, dict):
            return body, None
        question = {name: value for name, value in request.items() if name not in ("seed", "model")}
        digest = hashlib.sha256(orjson.dumps(question, option=orjson.OPT_SORT_KEYS)).hexdigest()
        key = f"{digest[:32]}/{self._asked[digest]}"
        self._asked[digest] += 1
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{key}".encode()).digest()[:4], "big") >> 1
        if self.models_own is not None:
            request = {name: value for name, value in request.items() if name not in NEUTRAL}
            request |= self.models_own
        sampling = {name: request[name] for name in SAMPLING if request.get(name) is not None}
        return orjson.dumps({**request, "seed": seed}), {
            "key": key,
            "seed": seed,
            "sampling": sampling,
            "attempt": self._attempt,
        }

    def note(self, asked: dict[str, Any], status: int, seconds: float, content: bytes) -> None:
        """Keep a reply, and tell of it."""
        line: dict[str, Any] = {**asked, "status": status, "latency_s": round(seconds, 4)}
        reply: Any = None
        try:
            reply = orjson.loads(content)
            usage = reply.get("usage") or {}
            line["usage"] = {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if name in usage}
        except (ValueError, AttributeError):
            pass
        with self.record.open("ab") as file:
            file.write(orjson.dumps({**line, "reply": reply} if reply is not None else line) + b"\n")
        self.told(line)


def answered(record: Path) -> int:
    """How many requests of a run the server has answered, by the lines of its relay."""
    return sum(line["status"] == OK for line in read_records_if_any(record))


def sampled(record: Path) -> list[dict[str, Any]]:
    """The ways in which a run's requests asked to be sampled, the first few if there are many."""
    found = (line["sampling"] for line in read_records_if_any(record) if "sampling" in line)
    distinct = {orjson.dumps(each, option=orjson.OPT_SORT_KEYS): each for each in found}
    return list(distinct.values())[:SHOWN]

"""A relay between a harness and the model's server that gives every request a seed of its own.

Harnesses send one seed with all requests of a run, or none. With one, all items share their random numbers: they err
together, and no error bar over items sees it (measured on the demo's model at temperature 1: the score of a run varied
seven times as much as with a seed for each request). With none, no run can be told to differ from another. The relay also
counts what was asked, and keeps the server's key from the harness: each relay has one of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from milepost.endpoints import Endpoint

# Of one connection, not of the message.
HOP = frozenset("connection keep-alive transfer-encoding te trailer upgrade host content-length authorization".split())
# A request may carry images, and answers have no bound.
LARGEST = 1 << 30
SEEDED = ("/chat/completions", "/completions")


class Relay:
    """Passes requests on to an endpoint, with a seed for each; used as `async with Relay(...) as endpoint`."""

    def __init__(self, endpoint: Endpoint, seed: int, record: Path, told: Callable[[dict[str, Any]], None]) -> None:
        """Nothing is opened yet.

        Args:
            endpoint: The server.
            seed: Of the run; a request's own follows from it, from what is asked, and from how often it was asked.
            record: A line for each reply is added to this file: time, seed, status, tokens.
            told: Is given the same lines.
        """
        self.endpoint = endpoint
        self.seed = seed
        self.record = record
        self.told = told
        self._key = secrets.token_urlsafe(32)
        self._asked: Counter[str] = Counter()
        self._session: aiohttp.ClientSession
        self._runner: web.AppRunner

    async def __aenter__(self) -> Endpoint:
        """Listen on a port of loopback that the system chooses; the harness's endpoint."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
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
        body = await request.read()
        seed = None
        if request.method == "POST" and request.path.endswith(SEEDED):
            body, seed = self.seeded(body)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        headers["Authorization"] = f"Bearer {self.endpoint.key}"
        url = self.endpoint.url.removesuffix("/v1") + request.path_qs
        begun = time.monotonic()
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as reply:
                kept = {name: value for name, value in reply.headers.items() if name.lower() not in HOP}
                if reply.content_type == "text/event-stream":
                    return await self.stream(request, reply, kept, seed)
                content = await reply.read()
                if seed is not None:
                    self.note(seed, reply.status, time.monotonic() - begun, content)
                return web.Response(status=reply.status, headers=kept, body=content)
        except aiohttp.ClientError as error:
            # The harness tries again, as it would with the server itself.
            message = f"The model's server is not to be reached: {type(error).__name__}"
            return web.json_response({"error": {"message": message, "code": 502}}, status=502)

    async def stream(
        self, request: web.Request, reply: aiohttp.ClientResponse, headers: dict[str, str], seed: int | None
    ) -> web.StreamResponse:
        """Pass on a reply as it comes."""
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(request)
        async for chunk in reply.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        if seed is not None:
            self.note(seed, reply.status, 0.0, b"")
        return response

    def seeded(self, body: bytes) -> tuple[bytes, int | None]:
        """A request with its own seed in place of any other.

        The same request gets another one each time that it is asked, so that what a harness repeats is drawn anew.
        """
        try:
            asked = orjson.loads(body)
        except ValueError:
            return body, None
        if not isinstance(asked, dict):
            return body, None
        question = {name: value for name, value in asked.items() if name not in ("seed", "model")}
        digest = hashlib.sha256(orjson.dumps(question, option=orjson.OPT_SORT_KEYS)).hexdigest()
        number = self._asked[digest]
        self._asked[digest] += 1
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{digest}/{number}".encode()).digest()[:4], "big") >> 1
        return orjson.dumps({**asked, "seed": seed}), seed

    def note(self, seed: int, status: int, seconds: float, content: bytes) -> None:
        """Add a line for a reply."""
        line: dict[str, Any] = {"seed": seed, "status": status, "latency_s": round(seconds, 4)}
        try:
            usage = orjson.loads(content).get("usage") or {}
            line["usage"] = {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if name in usage}
        except (ValueError, AttributeError):
            pass
        with self.record.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.told(line)


def answered(record: Path) -> int:
    """How many requests the server has answered, by the lines of a relay."""
    try:
        lines = record.read_text().splitlines()
    except OSError:
        return 0
    return sum('"status": 200' in line for line in lines)

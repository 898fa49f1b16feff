"""ASGI middleware for vLLM that answers no path without the key.

vLLM's own check of VLLM_API_KEY leaves paths open (`/invocations` gives full answers, `/metrics` and `/tokenize` answer).
This one stands before all of them, websockets included. It runs in the server's environment and imports nothing of Milepost.

It answers two questions itself. `/milepost/proof?NONCE` shows that this server knows the key, at the place where it took
this very connection, so that nobody has to send the key to find that out (`milepost.client.proof` says why so).
`/milepost/usage`, with the key, says for how long and how often it was asked.

And it closes connections on which nothing is asked. Anybody can open them where a server is published, and a thousand were
seen to make vLLM less than half as fast.
"""

import asyncio
import hmac
import json
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Connections on which nothing was asked yet: how many at once, and for how long. Ours ask at once.
UNASKED, UNASKED_S = 64, 20.0
PROTOCOLS = {
    "uvicorn.protocols.http.httptools_impl": "HttpToolsProtocol",
    "uvicorn.protocols.http.h11_impl": "H11Protocol",
}


class Guard:
    """Answers 401 to every request that does not carry the key."""

    def __init__(self, app: App) -> None:
        """Wrap the server's application; without a key nothing is served."""
        for module, name in PROTOCOLS.items():
            if module in sys.modules:
                limit_unasked(getattr(sys.modules[module], name))
        self.app = app
        self.key = os.environ["VLLM_API_KEY"].encode()
        self.expected = b"Bearer " + self.key
        self.attempt = os.environ.get("MILEPOST_ATTEMPT", "")
        self.socket = os.environ.get("MILEPOST_SOCKET", "")
        self.published = os.environ.get("MILEPOST_PUBLISHED", "")  # a file that says where else it is to be found
        self.requests = self.under_way = 0
        self.busy_s = 0.0
        self.changed = time.monotonic()  # when a request last came or was answered

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on requests that carry the key, and refuse all others."""
        path = scope.get("path") if scope["type"] == "http" else None
        nonce = scope.get("query_string", b"")
        if (
            path == "/milepost/proof"
            and re.fullmatch(b"[0-9a-f]{32}&published", nonce)
            and os.path.exists(self.published)
        ):
            with open(self.published) as file:
                await answer(send, 200, prove(self.key, nonce[:32].decode(), file.read().strip(), ""))
        elif path == "/milepost/proof" and re.fullmatch(b"[0-9a-f]{32}", nonce):
            await answer(send, 200, prove(self.key, nonce.decode(), self.place_of(scope), self.attempt))
        elif path == "/milepost/usage" and self._allowed(scope):
            await answer(send, 200, self.usage())
        elif path and scope.get("method") == "POST" and self._allowed(scope):
            await self._count(scope, receive, send)
        elif scope["type"] == "lifespan" or self._allowed(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(send, 401, {"error": {"message": "Unauthorized", "code": 401}})

    async def _count(self, scope: Message, receive: Receive, send: Send) -> None:
        self._tick()
        self.requests += 1
        self.under_way += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._tick()
            self.under_way -= 1

    def _tick(self) -> None:
        now = time.monotonic()
        if self.under_way:
            self.busy_s += now - self.changed
        self.changed = now

    def usage(self) -> Message:
        """The number of requests so far, the seconds with at least one under way, and the seconds since the last one."""
        now = time.monotonic()
        since = now - self.changed
        busy_s = self.busy_s + (since if self.under_way else 0.0)
        return {"requests": self.requests, "busy_s": busy_s, "idle_s": 0.0 if self.under_way else since}

    def place_of(self, scope: Message) -> str:
        """Where the server took a connection, as it sees that itself: this host, and its socket, or address and port."""
        address, port = scope.get("server") or ("", None)
        return f"{socket.gethostname()} {self.socket if port is None else f'{address}:{port}'}"

    def _allowed(self, scope: Message) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self.expected)


def limit_unasked(protocol: Any) -> None:
    """Have the protocol of uvicorn's connections close those that ask nothing: old ones, and the oldest of too many.

    Nothing above the connections themselves sees them before they ask.
    """
    made = protocol.connection_made
    if getattr(made, "limited", False):
        return
    waiting: dict[Any, None] = {}  # oldest first

    def is_waiting(connection: Any) -> bool:
        # One that has become a websocket's has another protocol.
        transport = connection.transport
        return connection.cycle is None and not transport.is_closing() and transport.get_protocol() is connection

    def close(connection: Any) -> None:
        waiting.pop(connection, None)
        if is_waiting(connection):
            connection.transport.abort()

    def connection_made(self: Any, transport: Any) -> None:
        made(self, transport)
        asyncio.get_running_loop().call_later(UNASKED_S, close, self)
        waiting[self] = None
        if len(waiting) > UNASKED:
            for one in [one for one in waiting if not is_waiting(one)]:
                del waiting[one]
            for one in list(waiting)[: len(waiting) - UNASKED]:
                close(one)

    connection_made.limited = True  # type: ignore[attr-defined]
    protocol.connection_made = connection_made


def prove(key: bytes, asked: str, place: str, attempt: str) -> dict[str, str]:
    """That this server knows the key: `milepost.client.proof.proof_of` in the words of an environment without it."""
    own = secrets.token_hex(16)
    said = "\n".join(["milepost proof 2", asked, own, place, attempt])
    return {"nonce": own, "proof": hmac.new(key, said.encode(), "sha256").hexdigest()}


async def answer(send: Send, status: int, body: Message) -> None:
    """Send a small JSON answer."""
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})

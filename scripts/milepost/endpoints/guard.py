"""ASGI middleware for vLLM that answers no path without the key.

vLLM's own check of VLLM_API_KEY leaves paths open (`/invocations` gives full answers, `/metrics` and `/tokenize` answer).
This one stands before all of them, websockets included. It runs in the server's environment and imports nothing of Milepost.

It answers two questions itself. `/milepost/proof?NONCE` shows that this server knows the key, so that nobody has to send
it to find that out. `/milepost/usage`, with the key, says for how long and how often it was asked.
"""

import hmac
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """Answers 401 to every request that does not carry the key."""

    def __init__(self, app: App) -> None:
        """Wrap the server's application; without a key nothing is served."""
        self.app = app
        self.key = os.environ["VLLM_API_KEY"].encode()
        self.expected = b"Bearer " + self.key
        self.requests = self.under_way = 0
        self.busy_s = 0.0
        self.changed = time.monotonic()  # when a request last came or was answered

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on requests that carry the key, and refuse all others."""
        path = scope.get("path") if scope["type"] == "http" else None
        nonce = scope.get("query_string", b"")
        if path == "/milepost/proof" and re.fullmatch(b"[0-9a-f]{32}", nonce):
            await answer(send, 200, {"proof": hmac.new(self.key, nonce, "sha256").hexdigest()})
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

    def _allowed(self, scope: Message) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self.expected)


async def answer(send: Send, status: int, body: Message) -> None:
    """Send a small JSON answer."""
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})

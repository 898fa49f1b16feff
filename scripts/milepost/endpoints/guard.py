"""ASGI middleware for vLLM: no path without the key.

vLLM's own check of VLLM_API_KEY leaves paths open (`/invocations` gives full answers, `/metrics` and `/tokenize` answer).
This one stands before all of them, websockets included. It runs in the server's environment and imports nothing of ours.
"""

import hmac
import os
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
        self.expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on what carries the key."""
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send(
                {"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": b'{"error": {"message": "Unauthorized", "code": 401}}'})

    def _allowed(self, scope: Message) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self.expected)

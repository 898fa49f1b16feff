"""A stand-in for judges and models under test: what it replies follows from a hash of the request.

A judge that is asked for true or false, a score, a label or a letter replies in that form; any other request gets an
answer of a few words. `verdict_of` says what a chat is replied, so that a test can work out the numbers by itself.

python tests/judge_stub.py [--port 8000] [--latency 0.02]
"""

import argparse
import asyncio
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from aiohttp import web

LABELS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")
Chat = list[dict[str, str]]


def number_of(chat: Chat) -> int:
    """The number that decides what a chat is replied."""
    return zlib.crc32("\n".join(turn["content"] for turn in chat).encode("utf-8", "surrogatepass"))


def verdict_of(chat: Chat) -> Any:
    """What a judge says to a chat, or None where no judge is asked."""
    system, number = chat[0]["content"] if chat[0]["role"] == "system" else "", number_of(chat)
    if "criteria_met" in system:
        return number % 2 == 0
    if '"score"' in system:
        return 1 + number % 10
    if "[[A>>B]]" in system:
        return LABELS[number % 5]
    if "m or M" in system:
        return "mM"[number % 2]
    return None


def reply_to(chat: Chat) -> str:
    """The text of the reply to a chat."""
    verdict = verdict_of(chat)
    if isinstance(verdict, bool):
        return json.dumps({"explanation": "so", "criteria_met": verdict})
    if isinstance(verdict, int):
        return json.dumps({"score": verdict, "reason": "so"})
    if verdict in LABELS:
        return f"Both try. My final verdict is: [[{verdict}]]"
    return verdict or f"Answer {number_of(chat)}."


class Stub:
    """The server.

    Attributes:
        reply: From a chat to the text of its reply, or to a whole choice of it.
        latency_s: Seconds before each reply.
        asked: The body of each request.
        most: How many requests were under way at once.
    """

    def __init__(self, reply: Callable[[Chat], Any] = reply_to, latency_s: float = 0.0, *, quiet: bool = False) -> None:
        self.reply, self.latency_s, self.quiet = reply, latency_s, quiet
        self.asked: list[dict[str, Any]] = []
        self.under_way = self.most = 0

    async def handle(self, request: web.Request) -> web.Response:
        """One reply."""
        body = orjson.loads(await request.read())
        if not self.quiet:
            self.asked.append(body)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        self.under_way -= 1
        said = self.reply(body["messages"])
        choice = said if isinstance(said, dict) else {"message": {"content": said}, "finish_reason": "stop"}
        content = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}, "model": body["model"]}
        return web.Response(body=orjson.dumps(content), content_type="application/json")

    async def models(self, request: web.Request) -> web.Response:
        """The names of its models."""
        return web.json_response({"data": [{"id": name} for name in ("m", "a", "b")]})

    def application(self) -> web.Application:
        """The server's paths."""
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/chat/completions", self.handle)
        app.router.add_get("/v1/models", self.models)
        return app

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve in a thread of its own; gives the address, with `/v1`."""
        loop = asyncio.new_event_loop()
        runner = web.AppRunner(self.application(), shutdown_timeout=0.01)

        async def start() -> int:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            server: Any = site._server
            return int(server.sockets[0].getsockname()[1])

        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        port = asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each reply")
    args = parser.parse_args()
    web.run_app(Stub(latency_s=args.latency, quiet=True).application(), host="127.0.0.1", port=args.port, print=None)

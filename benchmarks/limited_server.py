"""A server with limits, as providers have them, which writes down what it answered and refused.

    python benchmarks/limited_server.py --of requests --most 60 --period 10 [--headers] [--latency 0.5]

It prints its port, and at its end one line of JSON: answers, refusals, and the seconds from the first request to the
last answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import time
from collections import deque

from aiohttp import web


class Limited:
    """So many requests, or tokens, in any so many seconds; or so many requests at once."""

    def __init__(self, of: str, most: float, period: float, headers: bool, latency_s: float) -> None:
        """Set the limit: `of` is what it counts."""
        self.of, self.most, self.period, self.headers, self.latency_s = of, most, period, headers, latency_s
        self.taken: deque[tuple[float, float]] = deque()
        self.under_way = self.answered = self.refused = 0
        self.first = self.last = 0.0

    def used(self, now: float) -> float:
        """What is taken of the limit."""
        if self.of == "at once":
            return self.under_way
        while self.taken and now - self.taken[0][0] >= self.period:
            self.taken.popleft()
        return sum(cost for _, cost in self.taken)

    def told(self, now: float, refused: bool) -> dict[str, str]:
        """The headers of a reply: what remains, and when the oldest request is forgotten."""
        if not self.headers:
            return {}
        if self.of == "at once":
            return {"Retry-After": "1"} if refused else {}
        reset = max(0.0, self.taken[0][0] + self.period - now) if self.taken else 0.0
        said = {
            f"x-ratelimit-limit-{self.of}": f"{self.most:.0f}",
            f"x-ratelimit-remaining-{self.of}": f"{self.most - self.used(now):.0f}",
            f"x-ratelimit-reset-{self.of}": f"{reset:.3f}s",
        }
        return said | ({"Retry-After": str(math.ceil(reset))} if refused else {})

    async def handle(self, request: web.Request) -> web.Response:
        """Answer or refuse one request."""
        body = await request.json()
        now = time.monotonic()
        self.first = self.first or now
        # As it is counted before the answer is there: the prompt, and the longest answer.
        longest = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        cost = sum(len(message["content"]) for message in body["messages"]) / 4 + longest if self.of == "tokens" else 1
        if self.used(now) + cost > self.most:
            self.refused += 1
            said = {"error": {"message": f"Rate limit reached on {self.of}", "type": self.of, "code": "rate_limit"}}
            return web.json_response(said, status=429, headers=self.told(now, True))
        self.taken.append((now, cost))
        self.under_way += 1
        headers = self.told(now, False)
        await asyncio.sleep(self.latency_s)
        self.under_way -= 1
        self.answered += 1
        self.last = time.monotonic()
        message = {"role": "assistant", "content": "yes"}
        reply = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }
        return web.json_response(reply, headers=headers)


async def main() -> None:
    """Serve until TERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=("requests", "tokens", "at once"), default="requests")
    parser.add_argument("--most", type=float, default=60)
    parser.add_argument("--period", type=float, default=10.0)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--headers", action="store_true")
    args = parser.parse_args()
    server = Limited(args.of, args.most, args.period, args.headers, args.latency)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.handle)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await runner.cleanup()
    seconds = server.last - server.first
    print(json.dumps({"answered": server.answered, "refused": server.refused, "seconds": seconds}), flush=True)


async def models(request: web.Request) -> web.Response:
    """The list of models."""
    return web.json_response({"data": [{"id": "m"}]})


if __name__ == "__main__":
    asyncio.run(main())

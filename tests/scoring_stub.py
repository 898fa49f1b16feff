"""A stand-in for the servers of embedders and rerankers: instant or slow, and faulty on demand.

A text's vector is 64 counts of hashed trigrams; a pair's relevance grows with the words that both texts share. Both are
those of the golden files. It answers as OpenAI's and vLLM's interface and as Text Embeddings Inference do:

python tests/scoring_stub.py [--port 8000] [--latency 0.02]
"""

import argparse
import asyncio
import math
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import orjson
from aiohttp import web


@lru_cache(4096)
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall("[a-z0-9]+", text.lower()))


def vector(text: str) -> list[float]:
    """The vector of a text."""
    padded, counts = f"  {text.lower()}  ", [0.0] * 64
    for at in range(len(padded) - 2):
        counts[zlib.crc32(padded[at : at + 3].encode("utf-8", "surrogatepass")) % 64] += 1
    return counts


def relevance(query: str, document: str) -> float:
    """The relevance of a document."""
    one, other = _words(query), _words(document)
    return 1 / (1 + math.exp(2 - 6 * (len(one & other) / len(one | other) if one | other else 0.0)))


class Stub:
    """The server.

    Attributes:
        latency_s: Seconds before each answer.
        faults: What the next requests get instead of an answer: a status, `drop`, or a function of the right reply.
        asked: Path and body of each request.
        max_chars: A longer text is refused as too long for the context.
    """

    def __init__(self, latency_s: float = 0.0, *, quiet: bool = False) -> None:
        self.latency_s = latency_s
        self.faults: list[Any] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.max_chars = math.inf
        self.quiet = quiet

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One answer."""
        body = orjson.loads(await request.read())
        if not self.quiet:
            self.asked.append((request.path, body))
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        reply = self._reply(request.path, body)
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, int):
                reply = web.json_response({"error": {"message": "on purpose"}}, status=fault)
            elif fault == "drop":
                assert request.transport is not None
                request.transport.abort()
            elif fault is not None:
                return web.Response(body=fault(reply), content_type="application/json")
        if isinstance(reply, web.Response):
            return reply
        return web.Response(body=orjson.dumps(reply), content_type="application/json")

    def _reply(self, path: str, body: dict[str, Any]) -> Any:
        texts = body.get("input", body.get("inputs", body.get("documents", body.get("texts", body.get("text_2")))))
        texts = [texts] if isinstance(texts, str) else texts
        if max(map(len, [*texts, *body.get("text_1", []), body.get("query", "")])) > self.max_chars:
            message = "This model's maximum context length is exceeded"
            return web.json_response({"error": {"message": message}}, status=400)
        if path == "/v1/score":
            pairs = zip(body["text_1"], texts, strict=True)
            return {"data": [{"index": at, "score": relevance(*pair)} for at, pair in enumerate(pairs)]}
        if path == "/v1/embeddings":
            return {"data": [{"index": at, "embedding": vector(text)} for at, text in enumerate(texts)]}
        if path == "/embed":
            return [vector(text) for text in texts]
        scores = sorted(((relevance(body["query"], text), at) for at, text in enumerate(texts)), reverse=True)
        if path == "/v1/rerank":
            rows = [{"index": at, "relevance_score": score, "document": {"text": texts[at]}} for score, at in scores]
            return {"results": rows}
        return [{"index": at, "score": score} for score, at in scores]

    def application(self) -> web.Application:
        """The server's paths."""
        app = web.Application(client_max_size=2**28)
        for path in ("/v1/embeddings", "/embed", "/v1/rerank", "/rerank", "/v1/score"):
            app.router.add_post(path, self.handle)
        app.router.add_get("/v1/models", self.models)
        return app

    async def models(self, request: web.Request) -> web.Response:
        """The names of its models."""
        return web.json_response({"data": [{"id": "m"}]})

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve in a thread of its own; gives the address, without `/v1`."""
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
            yield f"http://127.0.0.1:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    args = parser.parse_args()
    web.run_app(Stub(args.latency, quiet=True).application(), host="127.0.0.1", port=args.port, print=None)

"""A relay between a harness and the model's server: it gives every request a seed of its own, and keeps every reply.

Harnesses send one seed with all requests of a run, or none. With one, all items share their random numbers: they err
together, and no error bar over items sees it (measured on the demo's model at temperature 1: the score of a run varied
seven times as much as with a seed for each request). With none, no run can be told to differ from another.

A run that was cut short asks everything again; most harnesses keep no replies, and lm-eval none that are drawn at a
temperature. The relay answers from the replies that it kept. It also keeps the server's key from the harness: each relay
has a key of its own.

How each request is to be sampled is written down as well: the harness's own defaults stand in no configuration. A task
that takes the model's own settings gets these in place of the harness's.
"""

from __future__ import annotations

import asyncio
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
from milepost.client.client import Client, Reply, RequestError, read_reply
from milepost.client.connections import address
from milepost.client.outside import proxy_of
from milepost.client.refusals import Fault
from milepost.client.replies import read_choice, who_answered
from milepost.endpoints import Endpoint
from milepost.endpoints.seen import Seen
from milepost.errors import BudgetError, MilepostError, ServerError
from milepost.statistics.outcomes import kind_of
from milepost.statistics.outcomes import who_answered as answered_by
from milepost.store.answers import mend, read_records_if_any

# Headers that concern one connection, not the message.
HOP = frozenset("connection keep-alive transfer-encoding te trailer upgrade host content-length authorization".split())
# A request may carry images, and answers have no bound.
LARGEST = 1 << 30
OK, BAD_GATEWAY, PAYMENT_REQUIRED = 200, 502, 402
ADVICE = (
    "Correct its address, the model's name, the key or `parameters` in config/endpoints.yaml, or see that its account has"
    " credit."
)
SEEDED = ("/chat/completions", "/completions")
SAMPLING = (*NEUTRAL, "max_tokens", "max_completion_tokens", "stop")
SHOWN = 8  # ways of sampling within one run


class Relay:
    """Passes requests on to an endpoint, each with its own seed; used as `async with Relay(...) as endpoint`."""

    def __init__(
        self,
        endpoint: Endpoint,
        seed: int,
        record: Path,
        told: Callable[[dict[str, Any]], None],
        models_own: Mapping[str, Any] | None = None,
        attempt: str = "",
        others: tuple[Client, Seen] | None = None,
    ) -> None:
        """Prepare the relay; nothing is opened yet.

        Args:
            endpoint: The server.
            seed: Of the run; a request's own follows from it, from what is asked, and from how often it was asked.
            record: The run's replies, a line each. What it holds already is not asked again.
            told: Called with a record of each reply of the server, without the reply's text.
            attempt: Stands with each reply, so that it can be told later who gave it.
            models_own: How to sample, in place of what the harness asks for; None leaves that.
            others: The client that asks an endpoint of others, as the job's own tasks do (its parameters, pace and bill),
                and who has answered there. None passes requests on as they are, to a server of ours.
        """
        self._others = others
        self.ended: asyncio.Future[MilepostError]
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
        """Start to listen on a loopback port that the system chooses; returns the endpoint for the harness."""
        # Why the endpoint may not be asked any more, once it may not.
        self.ended = asyncio.get_running_loop().create_future()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self.endpoint.socket, limit=0)
            if self.endpoint.socket
            else aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            auto_decompress=False,
            # An API is often reached by nothing else.
            proxy=proxy_of(self.endpoint.url),
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
        """Stop the relay's web server."""
        await self._runner.cleanup()
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request of the harness: from the kept replies, or by the model's server."""
        authorization = request.headers.get("Authorization", "")
        if not hmac.compare_digest(authorization.encode(), f"Bearer {self._key}".encode()):
            return web.json_response({"error": {"message": "Unauthorized", "code": 401}}, status=401)
        body, asked = await request.read(), None
        if request.method == "POST" and request.path.endswith(SEEDED):
            body, asked = self.seeded(body)
        if asked is not None and asked["key"] in self._kept:
            return web.json_response(self._kept.pop(asked["key"]))
        if self._others is not None and request.method == "POST" and (question := _question(body)) is not None:
            return await self.ask_others(*self._others, request, question, asked)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        headers |= self.endpoint.shape.sent_with(self.endpoint.key)
        # The harness was told of /v1 here, whatever the endpoint's own address ends with.
        path, base = request.path_qs, self.endpoint.url
        url = address(base, path.removeprefix("/v1")) if path.startswith("/v1/") else base.removesuffix("/v1") + path
        begun = time.monotonic()
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as reply:
                kept = {name: value for name, value in reply.headers.items() if name.lower() not in HOP}
                if reply.content_type == "text/event-stream":
                    return await self.stream(request, reply, kept, asked)
                content = await reply.read()
                if asked is not None:
                    self.note(asked, reply.status, time.monotonic() - begun, _json(content))
                return web.Response(status=reply.status, headers=kept, body=content)
        except aiohttp.ClientError as error:
            # The harness tries again, as it would with the server itself.
            message = f"The model's server is not to be reached: {type(error).__name__}"
            return web.json_response({"error": {"message": message, "code": 502}}, status=502)

    async def ask_others(
        self, client: Client, seen: Seen, request: web.Request, question: dict[str, Any], asked: dict[str, Any] | None
    ) -> web.Response:
        """Ask an endpoint of others what the harness asks, as a task of our own would."""
        path = request.path_qs.removeprefix("/v1")
        streamed = question.pop("stream", False)
        question.pop("stream_options", None)
        begun = time.monotonic()
        try:
            reply = await client.post(path, question, None if asked is None else read_choice)
            seen.check(who_answered(reply.body), self.endpoint, "What was answered before is kept.")
        except RequestError as failure:
            if asked is not None:
                self.note(asked, failure.status or BAD_GATEWAY, time.monotonic() - begun, None)
            said = failure.error["message"]
            if failure.fault is Fault.ENDPOINT:
                self._end(ServerError(f"The server at {self.endpoint.url} answered {said.rstrip('.')}. {ADVICE}"))
            return _refusal(failure.status or BAD_GATEWAY, said)
        except (ServerError, BudgetError) as error:
            self._end(error)
            return _refusal(PAYMENT_REQUIRED, str(error))
        if asked is not None:
            self.note(asked, OK, time.monotonic() - begun, reply.body)
        if streamed:
            # Asked for as a whole, so that it is seen what it costs and whose it is.
            return web.Response(body=_as_stream(reply.body), content_type="text/event-stream")
        return web.json_response(reply.body)

    def _end(self, error: MilepostError) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    async def stream(
        self, request: web.Request, reply: aiohttp.ClientResponse, headers: dict[str, str], asked: dict[str, Any] | None
    ) -> web.StreamResponse:
        """Pass a streamed reply on as it comes; it is counted, but not kept."""
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(request)
        async for chunk in reply.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        if asked is not None:
            self.note(asked, reply.status, 0.0, None)
        return response

    def seeded(self, body: bytes) -> tuple[bytes, dict[str, Any] | None]:
        """Replace a request's seed by one of its own; returns the new body, and `{"key", "seed", ...}` to file the reply under.

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
            **({"logprobs": True} if request.get("echo") or request.get("logprobs") else {}),
        }

    def note(self, asked: dict[str, Any], status: int, seconds: float, reply: Any) -> None:
        """Keep a reply in the run's record, and report it to `told`."""
        line: dict[str, Any] = {**asked, "status": status, "latency_s": round(seconds, 4)}
        if isinstance(reply, dict):
            usage = reply.get("usage") or {}
            line["usage"] = {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if name in usage}
        with self.record.open("ab") as file:
            file.write(orjson.dumps({**line, "reply": reply} if reply is not None else line) + b"\n")
        self.told(line)


def answered(record: Path) -> int:
    """How many requests of a run the server has answered: the lines of its relay's record."""
    return sum(line["status"] == OK for line in read_records_if_any(record))


def sampled(record: Path) -> list[dict[str, Any]]:
    """The ways in which a run's requests asked to be sampled, the first few if there are many."""
    found = (line["sampling"] for line in read_records_if_any(record) if "sampling" in line)
    distinct = {orjson.dumps(each, option=orjson.OPT_SORT_KEYS): each for each in found}
    return list(distinct.values())[:SHOWN]


def outcomes(record: Path) -> dict[str, Any]:
    """How many replies of a run are of which kind, and by whom; those that were asked for log-probabilities aside."""
    kinds, who, refusals = Counter[str](), [], Counter[str]()
    for line in read_records_if_any(record):
        if line["status"] != OK or "reply" not in line or line.get("logprobs"):
            continue
        try:
            answer = read_reply(Reply(line["reply"], 0.0), "", 0, 0)
        except RequestError:
            continue
        kinds[kind_of(answer)] += 1
        who.append(dict(who_answered(line["reply"])))
        refusals[answer.get("refusal", "")] += 1
    del refusals[""]
    said = {"reasons": {"refused": refusals.most_common(1)[0][0]}} if refusals else {}
    return {"kinds": dict(kinds), **said, **answered_by(who)}


def _question(body: bytes) -> dict[str, Any] | None:
    """A request as JSON; None for one that is none."""
    question = _json(body)
    return question if isinstance(question, dict) else None


def _as_stream(reply: dict[str, Any]) -> bytes:
    """A reply as a stream of one piece."""
    choices = [{**choice, "delta": choice.get("message")} for choice in reply.get("choices", [])]
    return b"data: " + orjson.dumps({**reply, "choices": choices}) + b"\n\ndata: [DONE]\n\n"


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except ValueError:
        return None


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)

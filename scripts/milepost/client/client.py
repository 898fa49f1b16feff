"""The asynchronous OpenAI-compatible client: kept connections, bounded concurrency, retries with jittered back-off."""

from __future__ import annotations

import asyncio
import logging
import random
import resource
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from milepost.client.bills import Bill
from milepost.client.connections import ConnectError, HttpResponse, Pool, ServerDisconnectedError
from milepost.client.endpoint import Endpoint
from milepost.client.limits import Slot
from milepost.client.outside import Outside, on_this_host
from milepost.client.pace import RequestPace
from milepost.client.quotas import told_pause_s
from milepost.client.refusals import HARMLESS, Fault, error_inside, form_of, harmless, read_refusal
from milepost.client.replies import MARK, Reply, read_choice
from milepost.client.shape import Shape
from milepost.client.throttle import Throttle, expected_tokens, read_usage
from milepost.records import Answer, AnswerError

__all__ = ["Client", "Reply", "RequestError", "read_reply"]

log = logging.getLogger("milepost")
TOO_MANY = 429
LONGEST_PAUSE_S = 60.0
HASTE = (TOO_MANY, 503, 529)  # what says that a server is asked too fast
OTHER_FILES = 64  # stores, logs, pipes
HARMLESS_S = 60.0  # in which a server that lives answers a harmless question


class RequestError(Exception):
    """A request that failed for good.

    Attributes:
        error: What is stored in place of an answer.
        status: HTTP status of the last try; None if there was none.
        fault: Whose fault it is.
    """

    def __init__(self, error: AnswerError, status: int | None, fault: Fault) -> None:
        """Make the error, with its kind and message as the text."""
        super().__init__(f"{error['type']}: {error['message']}")
        self.error = error
        self.status = status
        self.fault = fault

    @property
    def lasting(self) -> bool:
        """Whether the same request will always fail: an answer of its own, never asked again."""
        return self.fault is Fault.REQUEST


def room_for(concurrency: int) -> int:
    """Limit the requests at once to what this process may have files open: a tunnel takes three for each request.

    The limit is lifted as far as the system lets a process lift it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * concurrency + OTHER_FILES
    if resource.RLIM_INFINITY != soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = concurrency if soft == resource.RLIM_INFINITY else min(concurrency, max(1, (soft - OTHER_FILES) // 4))
    if room < concurrency:
        log.warning(
            "%d requests at once, not %d: this process may open %d files only (ulimit -Hn)", room, concurrency, soft
        )
    return room


class Transport(Protocol):
    """The interface for sending a request and awaiting its answer: `Pool` on this host, `Outside` elsewhere."""

    timeout_s: float

    async def post(self, path: str, body: bytes, timeout_s: float | None = None) -> HttpResponse:
        """Send JSON."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Client:
    """Requests to one endpoint. Use it as an asynchronous context manager."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        concurrency: int = 64,
        timeout_s: float = 600.0,
        retries: int = 5,
        pause_s: float = 0.5,
        socket: str | None = None,
        key_now: Callable[[], str] | None = None,
        shape: Shape | None = None,
        patience_s: float | None = None,
        throttle: Throttle | None = None,
        bill: Bill | None = None,
    ) -> None:
        """Describe the endpoint; nothing is sent yet.

        Args:
            url: Base address, with `/v1`.
            key: Sent as bearer token.
            concurrency: Requests under way at once.
            timeout_s: Seconds that one try may take.
            retries: Further tries after a connection error, a timeout, 408, 409, 429 or 5xx.
            pause_s: First pause between tries; doubled by each, and jittered.
            socket: The server's Unix socket, where it listens at one.
            key_now: The key at this moment, where it may change while this client is open.
            shape: How the endpoint takes requests.
            patience_s: Seconds without any answer for which an endpoint that refuses for haste (429) is asked again,
                whatever `retries` says; how fast it is asked is then found out. None counts such a refusal as any other.
            throttle: The pace that all processes of the user keep together; none for servers of ours.
            bill: What the campaign pays this endpoint, and may pay it.
        """
        self.url = url.rstrip("/")
        self._throttle = throttle
        self._bill = bill
        self.retries = retries
        self.pause_s = pause_s
        self.concurrency = room_for(concurrency)
        self._places = asyncio.Semaphore(self.concurrency)
        # Proxies of the user's environment are for the outside, not for a server on loopback: they know none.
        self._key_now = key_now
        headers = shape.sent_with(key) if shape else None
        self._transport: Transport = (
            Pool(self.url, key, timeout_s, headers, socket)
            if socket is not None or on_this_host(self.url)
            else Outside(self.url, key, timeout_s, headers)
        )
        self._shape = shape
        self.patience_s = patience_s
        self._pace: RequestPace | None = None
        # Of requests of one form: when a harmless question was last asked, and what came of it.
        self._verdicts: dict[bytes, tuple[float, Reply | RequestError]] = {}
        self._judging: dict[bytes, asyncio.Lock] = {}

    @classmethod
    def to(cls, endpoint: Endpoint, **options: Any) -> Self:
        """A client of an endpoint that is open, wherever it listens; options are those of `Client`."""
        given: dict[str, Any] = {"socket": endpoint.socket, "key_now": endpoint.key_now, "shape": endpoint.shape}
        return cls(endpoint.url, endpoint.key, **given, **options)

    async def __aenter__(self) -> Self:
        """Enter the context; connections are opened with the first requests."""
        if self.patience_s is not None:
            self._pace = RequestPace(self.concurrency, self.patience_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections; requests under way end unanswered."""
        await self._transport.aclose()

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        check: Callable[[Any], object] | None = None,
        *,
        judged: bool = True,
    ) -> Reply:
        """Send one request until it is answered, refused, or has failed too often.

        Args:
            path: What follows the base address.
            body: Sent as JSON.
            check: Raises ValueError for a body that is no answer: such a reply is a failed try.
            judged: Ask a harmless question where a refusal does not say whose fault it is. Not needed by who will ask
                in another form.

        Raises:
            RequestError: It was refused, or all tries failed.
        """
        body = self._shape.body(body) if self._shape else body
        failure = await self._post(path, body, check, self.retries)
        if isinstance(failure, Reply):
            return failure
        if failure.fault is Fault.UNKNOWN and not judged:
            failure = RequestError(failure.error, failure.status, Fault.REQUEST)
        elif failure.fault is Fault.UNKNOWN or failure.error["type"] == "timeout":
            failure = await self._judge(path, body, failure)
        raise failure

    async def _post(
        self, path: str, body: Mapping[str, Any], check: Callable[[Any], object] | None, retries: int, **limit: float
    ) -> Reply | RequestError:
        """Try a request until it is answered; returns the reply, or the failure of the last try."""
        data = orjson.dumps(body)
        tries = 0
        while True:
            try:
                # Waiting for a place is no part of a try: its time limit begins with the request.
                async with self._places if self._pace is None else self._pace.place(expected_tokens(body)) as place:
                    if self._throttle is not None:
                        await self._throttle.wait(body)
                    reply, headers = await self._billed(body, self._try(path, data, check, **limit))
                wait_s = told_pause_s(headers)
            except TimeoutError:
                wait_s = headers = None
                message = f"no answer within {limit.get('timeout_s', self._transport.timeout_s):.0f} s"
                reply = RequestError(AnswerError(type="timeout", message=message), None, Fault.PASSING)
            except (ConnectError, ServerDisconnectedError, OSError) as error:
                wait_s = headers = None
                message = f"{type(error).__name__}: {error}"
                reply = RequestError(AnswerError(type="connection", message=message), None, Fault.PASSING)
            if self._throttle is not None:
                if isinstance(reply, Reply):
                    await self._throttle.settle(body, read_usage(reply.body))
                elif reply.status == TOO_MANY and wait_s:
                    await self._throttle.hold(wait_s)
            if self._pace is not None and place is not None and headers is not None:
                ended = self._keep_pace(self._pace, place, reply, headers)
                if ended is None:
                    continue
                reply = ended
            if isinstance(reply, Reply) or reply.fault is not Fault.PASSING or tries == retries:
                return reply
            pause_s = self.pause_s * 2**tries * random.uniform(0.5, 1.5)  # noqa: S311 (jitter)
            # Who says 0 has no opinion: all tries would be over within milliseconds.
            wait_s = pause_s if wait_s is None or wait_s < self.pause_s / 2 else wait_s
            tries += 1
            await asyncio.sleep(min(wait_s, LONGEST_PAUSE_S))

    @property
    def slowed_by(self) -> str:
        """What of the endpoint slows the asking: a limit, or a pause that it asks for; nothing where nothing does."""
        return self._pace.words() if self._pace is not None else ""

    def _keep_pace(
        self, pace: RequestPace, place: Slot, reply: Reply | RequestError, headers: Mapping[str, str]
    ) -> Reply | RequestError | None:
        """Learn from a reply how fast to ask; None if it was refused for haste, and is to be asked for again."""
        if isinstance(reply, Reply) or reply.status not in HASTE or reply.fault is not Fault.PASSING:
            pace.answered(place, headers)
            return reply
        pace.refused(place, told_pause_s(headers), headers, reply.error["message"])
        if reply.status != TOO_MANY:
            return reply
        silence_s = asyncio.get_running_loop().time() - pace.answered_at
        if silence_s < (self.patience_s or 0.0):
            return None
        message = f"{reply.error['message']} (nothing was answered for {silence_s:.0f} s)"
        return RequestError(AnswerError(type="endpoint", message=message), TOO_MANY, Fault.ENDPOINT)

    async def _billed(
        self,
        body: Mapping[str, Any],
        sending: Coroutine[Any, Any, tuple[Reply | RequestError, Mapping[str, str] | None]],
    ) -> tuple[Reply | RequestError, Mapping[str, str] | None]:
        """Await one try, and put what it costs on the bill.

        Raises:
            BudgetError: It could cost more than is left; it was not sent.
        """
        if self._bill is None:
            return await sending
        try:
            held = await self._bill.reserve(body)
        except BaseException:
            sending.close()
            raise
        try:
            reply, headers = await sending
        except ConnectError:
            await self._bill.settle(held, body, None)  # nobody was asked
            raise
        except BaseException:
            await self._bill.settle_unknown(held, body)
            raise
        if isinstance(reply, RequestError) and reply.status == 200:
            await self._bill.settle_unknown(held, body)
        else:
            await self._bill.settle(held, body, reply.body if isinstance(reply, Reply) else None)
        return reply, headers

    async def _try(
        self, path: str, data: bytes, check: Callable[[Any], object] | None, **limit: float
    ) -> tuple[Reply | RequestError, Mapping[str, str] | None]:
        """Try a request once; returns the reply or the failure, and the headers that came with it."""
        begun = time.perf_counter()
        if self._key_now is not None and isinstance(self._transport, Pool):
            self._transport.use_key(self._key_now())
        response = await self._transport.post(path, data, **limit)
        headers = response.headers
        status, content = response.status, response.body.removeprefix(MARK)
        if status == 200:
            try:
                reply = Reply(orjson.loads(content), time.perf_counter() - begun)
                inside = error_inside(reply.body)
                if inside is None:
                    if check is not None:
                        check(reply.body)
                    return reply, headers
                status = inside
            except orjson.JSONDecodeError as error:
                message = f"the answer is not JSON: {error}{'; it holds NaN' if b'NaN' in content else ''}"
                return RequestError(AnswerError(type="server", message=message), 200, Fault.PASSING), headers
            except ValueError as error:
                return RequestError(AnswerError(type="server", message=str(error)), 200, Fault.PASSING), headers
        refusal = read_refusal(status, content, comes_again=told_pause_s(headers) is not None)
        stored = AnswerError(type=refusal.kind, message=refusal.message)
        fault = refusal.fault
        if status == 401 and self._key_now is not None and isinstance(self._transport, Pool):
            # Its server may have been started anew, with another key, while this was on its way.
            fault = Fault.PASSING if self._transport.key != self._key_now() else fault
        return RequestError(stored, status, fault), headers

    async def _judge(self, path: str, body: Mapping[str, Any], failure: RequestError) -> RequestError:
        """Find out whose fault a failure is: ask a harmless question of the same form.

        Those who wait for the same verdict share a question that was asked after their own had failed.
        """
        kind, said = failure.error["type"], failure.error["message"].rstrip(".")
        own = failure.fault if kind == "timeout" else Fault.REQUEST
        if not HARMLESS.keys() & body.keys():
            return RequestError(failure.error, failure.status, own)
        verdict = await self._harmless(path, body, kind)
        if isinstance(verdict, Reply):
            return RequestError(failure.error, failure.status, own)
        fault = verdict.fault if verdict.fault is Fault.PASSING else Fault.ENDPOINT
        if fault is Fault.PASSING:
            kind = "connection" if kind == "timeout" else "server"
        else:
            kind = "endpoint" if verdict.fault is Fault.ENDPOINT or verdict.status == 403 else "form"
        too = verdict.error["message"].rstrip(".")
        message = said if too == said else f"{said} (a harmless question of the same form: {too})"
        return RequestError(AnswerError(type=kind, message=message), failure.status, fault)

    async def _harmless(self, path: str, body: Mapping[str, Any], kind: str) -> Reply | RequestError:
        form = form_of(path, body)
        failed_at = time.monotonic()
        async with self._judging.setdefault(form, asyncio.Lock()):
            known = self._verdicts.get(form)
            if known is not None and known[0] > failed_at:
                return known[1]
            asked_at = time.monotonic()
            retries = 0 if kind == "timeout" else self.retries
            limit_s = min(HARMLESS_S, self._transport.timeout_s)
            verdict = await self._post(path, harmless(body), None, retries, timeout_s=limit_s)
            self._verdicts[form] = asked_at, verdict
            return verdict


def read_reply(reply: Reply, ident: str, sample: int, seed: int) -> Answer:
    """The answer in a reply to a chat or a completion request.

    Raises:
        RequestError: A reply without a whole answer, which an OpenAI-compatible server in good health never sends.
    """
    try:
        read = read_choice(reply.body)
    except ValueError as error:
        raise RequestError(AnswerError(type="server", message=str(error)), 200, Fault.PASSING) from None
    answer = Answer(
        id=ident,
        sample=sample,
        content=read.content,
        finish_reason=read.finish_reason,
        seed=seed,
        latency_s=round(reply.latency_s, 4),
    )
    # A server that counts no tokens has not answered with none.
    if any(read.usage.values()):
        answer["usage"] = read.usage
    if read.reasoning:
        answer["reasoning"] = read.reasoning
    if read.refusal:
        answer["refusal"] = read.refusal
    if read.tool_calls:
        answer["tool_calls"] = read.tool_calls
    return answer

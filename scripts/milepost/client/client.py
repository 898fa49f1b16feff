"""The asynchronous OpenAI-compatible client: kept connections, bounded concurrency, retries with jittered back-off."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import orjson

from milepost.client.connections import ConnectError, Pool, ServerDisconnectedError
from milepost.records import Answer, AnswerError, Usage

RETRIED = frozenset({408, 409, 429})
# Not the server that was meant: another one, another address, or another key.
ELSEWHERE = frozenset({401, 403, 404, *range(300, 400)})
BROKEN_OFF = ("abort", "error")  # vLLM's finish reasons of requests that it gave up
LONGEST_PAUSE_S = 60.0
# How servers say that a text does not fit: vLLM, OpenAI, TGI, llama.cpp, TEI.
CONTEXT = (
    "context length",
    "context_length_exceeded",
    "maximum input length",
    "exceed_context_size",
    "context window",
    "max_model_len",
    "`inputs` must have less than",
)


class RequestError(Exception):
    """A request that failed for good.

    Attributes:
        error: What is stored in place of an answer.
        status: HTTP status of the last try; None if there was none.
        lasting: The same request will always fail: an answer of its own, never asked again.
    """

    def __init__(self, error: AnswerError, status: int | None, lasting: bool) -> None:
        """Make one."""
        super().__init__(f"{error['type']}: {error['message']}")
        self.error = error
        self.status = status
        self.lasting = lasting


@dataclass(frozen=True)
class Reply:
    """A server's answer to one request: its parsed body, and the seconds from sending to the end of the answer."""

    body: Any
    latency_s: float


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
        """
        self.url = url.rstrip("/")
        self.retries = retries
        self.pause_s = pause_s
        self.concurrency = concurrency
        self._places = asyncio.Semaphore(concurrency)
        # Proxies and .netrc of the user's environment are for the outside, not for a server on loopback: it knows none.
        self._key_now = key_now
        self._pool = Pool(self.url, key, timeout_s, socket)

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first request."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections; requests under way end unanswered."""
        self._pool.close()

    async def post(self, path: str, body: Mapping[str, Any], check: Callable[[Any], object] | None = None) -> Reply:
        """Send one request until it is answered, refused, or has failed too often.

        Args:
            path: What follows the base address.
            body: Sent as JSON.
            check: Raises ValueError for a body that is no answer: such a reply is a failed try.

        Raises:
            RequestError: It was refused, or all tries failed.
        """
        data = orjson.dumps(body)
        for tries_left in range(self.retries, -1, -1):
            wait_s: float | None = None
            try:
                # Waiting for a place is no part of a try: its time limit begins with the request.
                async with self._places:
                    if self._key_now is not None:
                        self._pool.use_key(self._key_now())
                    begun = time.perf_counter()
                    response = await self._pool.post(path, data)
                    if response.status == 200:
                        reply = Reply(orjson.loads(response.body), time.perf_counter() - begun)
                        if check is not None:
                            check(reply.body)
                        return reply
                    failure = _refusal(response.status, response.body)
                    if response.status == 401 and self._key_now is not None and self._pool.key != self._key_now():
                        # Its server was started anew while this was on its way.
                        failure.lasting = False
                    wait_s = retry_after_s(response.headers.get("retry-after"))
            except TimeoutError:
                message = f"no answer within {self._pool.timeout_s:.0f} s"
                failure = RequestError(AnswerError(type="timeout", message=message), None, lasting=False)
            except (ConnectError, ServerDisconnectedError, OSError) as error:
                message = f"{type(error).__name__}: {error}"
                failure = RequestError(AnswerError(type="connection", message=message), None, lasting=False)
            except orjson.JSONDecodeError as error:
                message = f"the answer is not JSON: {error}{'; it holds NaN' if b'NaN' in response.body else ''}"
                failure = RequestError(AnswerError(type="server", message=message), 200, lasting=False)
            except ValueError as error:
                failure = RequestError(AnswerError(type="server", message=str(error)), 200, lasting=False)
            if failure.lasting or tries_left == 0:
                raise failure
            if wait_s is None:
                wait_s = self.pause_s * 2 ** (self.retries - tries_left) * random.uniform(0.5, 1.5)  # noqa: S311 (jitter)
            await asyncio.sleep(min(wait_s, LONGEST_PAUSE_S))
        raise AssertionError("unreachable: the last try returns or raises")


def _refusal(status: int, content: bytes) -> RequestError:
    """What a status other than 200 means."""
    kinds: list[Any] = []
    try:
        said = orjson.loads(content)
        inner = said.get("error", said) if isinstance(said, dict) else said
        message = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        # Some servers say it in the error's type or code only.
        kinds = [inner.get("type"), inner.get("code")] if isinstance(inner, dict) else []
    except orjson.JSONDecodeError:
        message = content.decode(errors="replace")
    message = message[:500]
    if 300 <= status < 400:
        message = "it redirects to another address; give that one"
    lasting = 300 <= status < 500 and status not in RETRIED
    sign = " ".join(map(str, [message, *kinds])).lower()
    kind = "refused" if lasting else "server"
    if lasting and any(words in sign for words in CONTEXT):
        kind = "context"
    return RequestError(AnswerError(type=kind, message=f"{status}: {message}"), status, lasting)


def retry_after_s(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait that a Retry-After header asks for: a number of them, or a date.

    >>> retry_after_s("2")
    2.0
    >>> retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", now=50.0)
    10.0
    >>> retry_after_s("soon") is None
    True
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now))
    except ValueError:
        return None


def read_reply(reply: Reply, ident: str, sample: int, seed: int) -> Answer:
    """The answer in a reply to a chat or a completion request.

    Raises:
        RequestError: A reply without a whole answer, which an OpenAI-compatible server in good health never sends.
    """
    try:
        choice = reply.body["choices"][0]
        message = choice.get("message")
        content = (message.get("content") if message is not None else choice["text"]) or ""
        reasoning = (message or {}).get("reasoning_content") or (message or {}).get("reasoning") or ""
        finish_reason = choice.get("finish_reason")
        usage = reply.body.get("usage") or {}
        counted = Usage(
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
        # An answer that the server broke off itself, as it may when it ends, is not what the model says.
        whole = isinstance(content, str) and isinstance(reasoning, str) and finish_reason not in BROKEN_OFF
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        whole = False
    if not whole:
        error = AnswerError(type="server", message=f"a reply without an answer: {str(reply.body)[:200]}")
        raise RequestError(error, 200, lasting=False)
    answer = Answer(
        id=ident,
        sample=sample,
        content=content,
        finish_reason=finish_reason,
        usage=counted,
        seed=seed,
        latency_s=round(reply.latency_s, 4),
    )
    if reasoning:
        answer["reasoning"] = reasoning
    return answer

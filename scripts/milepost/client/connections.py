"""HTTP/1.1 POST requests over kept connections, with as little as possible between the model and the store.

A general HTTP library costs several times what all else about an answer costs (docs/performance.md). The messages are
parsed by httptools, as uvicorn and with it vLLM parse theirs; connections and TLS are asyncio's.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from milepost import __version__

# Servers close connections that are idle (uvicorn after 5 s), and one that is being closed loses the next request.
IDLE_S = 3.0
KEPT = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"retry-after", b"retry-after-ms"})
INFLATED = ("gzip", "x-gzip", "deflate")
IN_A_PATH = "/%:@!$&'()*+,;=~"
READ_AT_ONCE = 65536


class ConnectError(Exception):
    """No connection could be made."""


class ServerDisconnectedError(Exception):
    """The connection ended before the answer did, or what came was no HTTP."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A server's reply: status, body, and the few headers that are used (those in `KEPT`)."""

    status: int
    headers: dict[str, str]
    body: bytes


def address(url: str, path: str) -> str:
    """Join a path to a base address, which may have a query of its own.

    >>> address("https://host/openai?api-version=1", "/models")
    'https://host/openai/models?api-version=1'
    """
    base, query, rest = url.partition("?")
    return base + path + query + rest


class Pool:
    """Connections to one server, opened as they are needed."""

    def __init__(self, url: str, key: str, timeout_s: float) -> None:
        """Describe the server; nothing is opened yet.

        Args:
            url: Base address; what `post` is given is appended to it.
            key: Sent as bearer token.
            timeout_s: Seconds that one request may take, its connection included.

        Raises:
            ValueError: The key holds a character that no header can.
        """
        if any(ord(sign) < 32 or ord(sign) == 127 for sign in key):
            raise ValueError("The key holds a line end or another control character, which no HTTP header can.")
        self.url = url
        self.timeout_s = timeout_s
        self._key = key
        self._heads: dict[str, bytes] = {}
        self._tls: ssl.SSLContext | None = None
        # One buffer for all connections: what came on one is parsed before the next one is read.
        self._buffer = memoryview(bytearray(READ_AT_ONCE))
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._closed = False

    def close(self) -> None:
        """Close all connections; requests under way end unanswered."""
        self._closed = True
        for connection in list(self._open):
            connection.close()

    async def aclose(self) -> None:
        """Close all connections; requests under way end unanswered."""
        self.close()

    async def post(self, path: str, body: bytes, timeout_s: float | None = None) -> HttpResponse:
        """Send JSON; redirections are not followed, so that the key goes nowhere else.

        Args:
            path: What follows the base address.
            body: The JSON.
            timeout_s: Seconds that this request may take, in place of the pool's.

        Raises:
            TimeoutError: It took too long.
            ConnectError: The server cannot be reached.
            ServerDisconnectedError: It did not answer, or not in HTTP.
        """
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = self._head(path)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (timeout_s or self.timeout_s)
        request = b"%b%d\r\n\r\n%b" % (head, len(body), body)
        connection = self._kept(loop.time())
        kept = connection is not None
        if connection is None:
            connection = await self._connect(loop, deadline)
        try:
            response = await connection.ask(request, deadline)
        except ServerDisconnectedError:
            connection.close()
            if not kept or connection.heard:
                raise
            # A server may close a connection that it kept in the very moment at which it is used: that is no failed try.
            connection = await self._connect(loop, deadline)
            response = await self._first(connection, request, deadline)
        except BaseException:
            # Also when this request is given up from outside: its answer must not be taken for the next one's.
            connection.close()
            raise
        if connection.reusable:
            connection.idle_since = loop.time()
            self._idle.append(connection)
        else:
            connection.close()
        return response

    async def _first(self, connection: Connection, request: bytes, deadline: float) -> HttpResponse:
        """Await the answer to the first request on a connection; without an answer, the connection is closed."""
        try:
            return await connection.ask(request, deadline)
        except BaseException:
            connection.close()
            raise

    def _head(self, path: str) -> bytes:
        """The head of a request's bytes, up to the value of Content-Length, which differs from request to request."""
        parts = urlsplit(address(self.url, path))
        query = f"?{quote(parts.query, safe=IN_A_PATH + '?')}" if parts.query else ""
        target = quote(parts.path or "/", safe=IN_A_PATH) + query
        lines = (
            f"POST {target} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            f"Authorization: Bearer {self._key}",
            f"User-Agent: milepost/{__version__}",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "Content-Type: application/json",
            "Content-Length: ",
        )
        return "\r\n".join(lines).encode()

    def _kept(self, now: float) -> Connection | None:
        """An open connection that can be used again, the latest used first; None if there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now - connection.idle_since < IDLE_S:
                return connection
            connection.close()
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop, deadline: float) -> Connection:
        """Open a new connection.

        Raises:
            ConnectError: It cannot be made, or not in time. No question is to be blamed for that.
        """
        where = urlsplit(self.url).netloc.rpartition("@")[2]
        try:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ConnectError(f"{self.url.rpartition('@')[2]!r} is no address of the form http://HOST:PORT/v1")
            secure = parts.scheme == "https"
            port = parts.port or (443 if secure else 80)
            if secure and self._tls is None:
                self._tls = ssl.create_default_context()
            async with asyncio.timeout_at(deadline):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._open, self._buffer), parts.hostname, port, ssl=self._tls
                )
        except (OSError, ValueError) as error:
            # Also a time-out, the kernel's (ETIMEDOUT) or this request's own: a host that has vanished answers no question.
            why = str(error) or "it was not there in time"
            raise ConnectError(f"no connection to {where}: {why}") from None
        if self._closed:
            connection.close()
            raise ConnectError("closed while it was being opened")
        return connection


class Connection(asyncio.BufferedProtocol):
    """One connection to the server; at most one request is under way on it.

    Attributes:
        reusable: It can take another request.
        heard: Something of the answer to the last request has come.
        idle_since: When it last answered, by the loop's clock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: set[Connection], buffer: memoryview) -> None:
        """Not connected yet; it enters `connections` when it is, and leaves them when it is closed."""
        self.reusable = self.heard = False
        self.idle_since = 0.0
        self._loop = loop
        self._all = connections
        self._buffer = buffer
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._parser: Any = HttpResponseParser(self)
        self._answer: asyncio.Future[HttpResponse] | None = None
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._in_body = False

    def ask(self, request: bytes, deadline: float) -> asyncio.Future[HttpResponse]:
        """Send a request; its answer comes later, or a TimeoutError at the deadline, by the loop's clock."""
        self.reusable = self.heard = False
        answer = self._answer = self._loop.create_future()
        self._deadline = deadline
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._time_out)
        if self._transport.is_closing():
            self._fail(ServerDisconnectedError("the server closed the connection"))
        else:
            self._transport.write(request)
        # Not the attribute: of a connection that is closing, it is gone already.
        return answer

    def _time_out(self) -> None:
        """Give up the request under way, if its time is over. A timer for each request would cost as much as its parsing."""
        self._timer = None
        if self._answer is not None and self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._time_out)
        elif self._answer is not None:
            self._fail(TimeoutError())

    def close(self) -> None:
        """Close the connection at once; the request under way fails."""
        self.reusable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio when the connection is open."""
        self._transport = transport
        self._all.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by asyncio for the buffer that incoming bytes are put into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by asyncio when a part of an answer has come into the buffer."""
        if self._answer is None:
            # Nothing was asked: a server that says why it closes the connection.
            self.close()
            return
        self.heard = True
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(ServerDisconnectedError(f"the answer is no HTTP: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio when the connection is closed, which also ends an answer of no stated length."""
        self.reusable = False
        self._all.discard(self)
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if self._answer is not None and self._in_body and not framed and error is None:
            self.on_message_complete()
        self._fail(ServerDisconnectedError(str(error) if error else "the server closed the connection"))

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Called by the parser when an answer begins; the connection is closed if no request is under way."""
        if self._answer is None:
            self.close()
        self._headers = {}
        self._body = []
        self._in_body = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser for each header."""
        name = name.lower()
        if name in KEPT:
            self._headers[name.decode()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser when all headers are read and the body follows."""
        self._in_body = True

    def on_body(self, part: bytes) -> None:
        """Called by the parser for each part of the body."""
        self._body.append(part)

    def on_message_complete(self) -> None:
        """Called by the parser when an answer is whole; one that only announces another (1xx) is passed over."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        answer, self._answer = self._answer, None
        self.reusable = self._parser.should_keep_alive() and not self._transport.is_closing()
        if answer is None or answer.done():
            return
        try:
            body = _inflated(b"".join(self._body), self._headers.get("content-encoding", ""))
        except ValueError as error:
            answer.set_exception(ServerDisconnectedError(str(error)))
            return
        answer.set_result(HttpResponse(status, self._headers, body))


def _inflated(body: bytes, encoding: str) -> bytes:
    """Decompress a body: a proxy may compress it although nobody asked for that.

    Raises:
        ValueError: It cannot be read.
    """
    if not encoding or not body or encoding == "identity":
        return body
    encoding = encoding.strip().lower()
    if encoding not in INFLATED:
        raise ValueError(f"the answer is compressed in a way that was not asked for: {encoding}")
    # Of a deflated body, some servers leave out the head.
    bits = -zlib.MAX_WBITS if encoding == "deflate" and body[:1] != b"\x78" else zlib.MAX_WBITS | 32
    try:
        return zlib.decompress(body, bits)
    except zlib.error as error:
        raise ValueError(f"the answer is no {encoding}: {error}") from None

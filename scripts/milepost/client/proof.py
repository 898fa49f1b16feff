"""Proof before key: a server shows that it knows the key, on the very connection that the key is then sent on.

What is proved speaks of the place where the server itself took the connection, so that a stranger who listens at another
place and passes the question on to the true server gets a proof that is of no use to him. Both sides add a nonce of their
own, and the server the attempt that started it. `endpoints.guard` answers in the same words.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

PROOF_S = 20.0
LARGEST = 1 << 20  # of what `get` reads
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Place:
    """Where a server listens: a socket's path, or a port of an address of a host.

    A Unix socket in a folder that only we can enter is a place that no stranger can take, nor reach.
    """

    host: str
    socket: str | None = None
    address: str = "127.0.0.1"
    port: int = 0

    @classmethod
    def here(cls, *, path: Path | None = None, address: str = "127.0.0.1", port: int = 0) -> Place:
        """A place of this host."""
        return cls(socket.gethostname(), str(path) if path else None, address, port)

    def __str__(self) -> str:
        """The place as both sides of a proof write it.

        >>> str(Place("gpu01", port=8000)), str(Place("gpu01", "/tmp/milepost-1/socket"))
        ('gpu01 127.0.0.1:8000', 'gpu01 /tmp/milepost-1/socket')
        """
        return f"{self.host} {self.socket or f'{self.address}:{self.port}'}"

    async def connect(self) -> Streams:
        """A connection from this host."""
        if self.socket is not None:
            return await asyncio.open_unix_connection(self.socket)
        return await asyncio.open_connection(self.address, self.port)


def proof_of(key: str, asked: str, answered: str, place: str, attempt: str) -> str:
    """What only a server that knows the key can say.

    Args:
        key: The server's.
        asked: The nonce of the one who asks.
        answered: The server's own.
        place: Where the server took the connection, as it sees that itself.
        attempt: Which start of the server this is.
    """
    said = "\n".join(["milepost proof 2", asked, answered, place, attempt])
    return hmac.new(key.encode(), said.encode(), "sha256").hexdigest()


def published(port: int) -> str:
    """The place of a server that is published at a port of another host's loopback, as both sides write it."""
    return f"published {port}"


async def prove(streams: Streams, key: str, place: Place | str, attempt: str) -> None:
    """Have the server behind a connection show that it knows the key, for this place and start of it.

    The connection is as new afterwards.

    Raises:
        StrangerError: It does not know it, or not for this place.
        OSError: It does not answer.
    """
    reader, writer = streams
    nonce = secrets.token_hex(16)
    # Where it is published, it is told by whoever published it; all else it sees by itself.
    query = nonce if isinstance(place, Place) else f"{nonce}&published"
    writer.write(f"GET /milepost/proof?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    try:
        async with asyncio.timeout(PROOF_S):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d{1,4})\r\n", head)
            body = json.loads(await reader.readexactly(int(length[1]))) if length else {}
        expected = proof_of(key, nonce, str(body["nonce"]), str(place), attempt)
        if hmac.compare_digest(str(body["proof"]).encode(), expected.encode()):
            return
    except EOFError:
        raise ConnectionError("the connection ended before the proof") from None
    except (asyncio.LimitOverrunError, ValueError, KeyError, TypeError):
        pass
    raise StrangerError(str(place))


async def proves(streams: Streams, key: str, place: Place | str, attempt: str) -> bool:
    """Whether the server behind a connection knows the key, for this place and start of it."""
    try:
        await prove(streams, key, place, attempt)
    except OSError:
        return False
    return True


async def get(place: Place, path: str, key: str, attempt: str, *, with_key: bool = True) -> tuple[int, bytes]:
    """One GET to a server that proves itself first: its status, and what it says.

    Raises:
        StrangerError: Whoever answers there does not know the key.
        OSError: Nobody answers, or the answer is no HTTP.
    """
    reader, writer = await place.connect()
    try:
        await prove((reader, writer), key, place, attempt)
        bearer = f"Authorization: Bearer {key}\r\n" if with_key else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: close\r\n\r\n".encode())
        content = bytearray()
        while len(content) < LARGEST and (part := await reader.read(1 << 16)):
            content += part
    except EOFError:
        raise ConnectionError("the connection ended") from None
    finally:
        writer.close()
    head, _, body = bytes(content).partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if status is None:
        raise ConnectionError("the answer is no HTTP")
    return int(status[1]), body


class StrangerError(ConnectionError):
    """Whoever answers there does not know the key."""

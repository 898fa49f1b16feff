"""A tunnel that needs no ssh, and what happens to it when its way is lost."""

import asyncio

import pytest

from milepost.endpoints import tunnel as tunnel_module
from milepost.endpoints.tunnel import Tunnel, Way
from milepost.errors import EndpointError


@pytest.mark.parametrize(
    "trouble",
    [
        OSError(116, "Stale file handle"), OSError(122, "Disk quota exceeded"), BlockingIOError(11, "Cannot fork"),
        RuntimeError("can't start new thread"), EndpointError("the host is down"), ValueError("a torn record"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("also_told", [False, True])
def test_a_tunnel_opens_again_whatever_kept_it_from_it(monkeypatch, trouble, also_told):
    monkeypatch.setattr(tunnel_module, "BACKOFF_S", (0.01,))
    troubles = [trouble, trouble]

    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    def told():
        if also_told:
            raise trouble

    async def play():
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]

            async def place():
                if tunnel.starts and troubles:
                    raise troubles.pop()
                return Way(None, port)

            tunnel = Tunnel(place, name="one", file="here", wait_s=5, failed=told)
            async with tunnel as near:
                tunnel.reopen()
                reader, writer = await asyncio.open_connection("127.0.0.1", near)
                writer.write(b"hello\n")
                said = await asyncio.wait_for(reader.read(), 5)
                writer.close()
                return said, tunnel.starts

    assert asyncio.run(play()) == (b"hello\n", 2)
    assert troubles == []

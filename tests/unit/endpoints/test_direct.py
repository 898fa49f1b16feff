"""A server at a node's address: whoever holds its certificate is carried to it, and nobody else gets a connection."""

import asyncio
import json
import ssl

import pytest

from milepost.client.proof import Place, prove
from milepost.endpoints import guard
from milepost.endpoints.direct import Door, context, new_certificate
from milepost.endpoints.tunnel import Tunnel, Way

KEY, ATTEMPT = "the key", "a1"


@pytest.fixture
def private(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder


def serve(place, heard):
    """A server at a socket that proves itself, and answers every other request with its path."""

    async def answer(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                heard.append(path)
                nonce = path.removeprefix("/milepost/proof?")
                told = guard.prove(KEY.encode(), nonce, str(place), ATTEMPT) if nonce != path else {"path": path}
                body = json.dumps(told).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    return asyncio.start_unix_server(answer, place.socket)


def play(private, what):
    """A server with its door on loopback; what is done gets the port, the certificate, and what the server heard."""

    async def run():
        place, heard, pem = Place.here(path=private / "socket"), [], new_certificate()
        async with await serve(place, heard), Door("127.0.0.1", place, pem, private) as port:
            await asyncio.wait_for(what(place, port, pem), 20)
        return heard

    heard = asyncio.run(run())
    assert [path.name for path in private.iterdir()] in ([], ["socket"]), "no key of a certificate is left"
    return heard


def test_a_tunnel_without_ssh_is_encrypted_both_ways_and_proved(private):
    async def what(place, port, pem):
        async def way():
            return Way(None, port, "127.0.0.1", certificate=pem)

        async def check(reader, writer):
            await prove((reader, writer), KEY, place, ATTEMPT)
            return True

        async with Tunnel(way, name="one", file="here", check=check) as near:
            reader, writer = await asyncio.open_connection("127.0.0.1", near)
            for path in (b"/v1/a", b"/v1/b"):
                writer.write(b"GET %b HTTP/1.1\r\n\r\n" % path)
                assert path in await reader.readuntil(b"}")
            writer.close()

    assert [path.partition("?")[0] for path in play(private, what)] == ["/milepost/proof", "/v1/a", "/v1/b"]


def plain(pem, folder):
    return None


def without_certificate(pem, folder):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def another_certificate(pem, folder):
    made = context(new_certificate(), folder, server=False)
    made.verify_mode = ssl.CERT_NONE
    return made


@pytest.mark.parametrize("comes_with", [plain, without_certificate, another_certificate])
def test_who_does_not_hold_the_certificate_is_not_carried_to_the_server(private, tmp_path, comes_with):
    async def what(place, port, pem):
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=comes_with(pem, tmp_path))
            writer.write(b"GET /milepost/proof?" + b"0" * 32 + b" HTTP/1.1\r\n\r\n")
            await reader.readuntil(b"}")

    assert play(private, what) == []


@pytest.mark.parametrize("listens_with", [plain, another_certificate])
def test_who_listens_in_its_place_is_sent_nothing(private, tmp_path, listens_with):
    """Nor is who passes on what comes to the true server: it is encrypted for that one."""
    heard, pem = [], new_certificate()

    async def stranger(reader, writer):
        heard.append(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def run():
        tls = None
        if listens_with is another_certificate:
            tls = context(new_certificate(), tmp_path, server=True)
            tls.verify_mode = ssl.CERT_NONE
        async with await asyncio.start_server(stranger, "127.0.0.1", 0, ssl=tls) as server:
            port = server.sockets[0].getsockname()[1]

            async def way():
                return Way(None, port, "127.0.0.1", certificate=pem)

            async def check(reader, writer):
                raise AssertionError("nobody is asked for a proof there")

            tunnel = Tunnel(way, name="one", file="here", check=check)
            async with tunnel:
                assert not await tunnel.holds(5)

    asyncio.run(run())
    assert not any(b"milepost/proof" in said for said in heard), heard


def test_what_passes_cannot_be_read_on_the_way(private):
    """Whoever carries the bytes (a switch, a stranger at another port) sees neither the question nor the proof."""
    seen = bytearray()

    async def what(place, port, pem):
        async def between(reader, writer):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

            async def pump(source, target):
                while data := await source.read(1 << 16):
                    seen.extend(data)
                    target.write(data)

            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

        async with await asyncio.start_server(between, "127.0.0.1", 0) as relay:
            relayed = relay.sockets[0].getsockname()[1]

            async def way():
                return Way(None, relayed, "127.0.0.1", certificate=pem)

            async with Tunnel(way, name="one", file="here") as near:
                reader, writer = await asyncio.open_connection("127.0.0.1", near)
                writer.write(b"GET /v1/secret HTTP/1.1\r\n\r\n")
                assert b"/v1/secret" in await reader.readuntil(b"}")
                writer.close()

    assert play(private, what) == ["/v1/secret"]
    assert seen
    assert b"secret" not in seen


def test_every_certificate_is_new_and_its_key_is_in_it(private):
    made = {new_certificate() for _ in range(3)}
    assert len(made) == 3
    assert all("BEGIN PRIVATE KEY" in pem and "BEGIN CERTIFICATE" in pem for pem in made)

import asyncio
import gzip
import ssl
import subprocess
import zlib

import pytest

from milepost.client import connections
from milepost.client.client import Client, RequestError
from milepost.client.connections import ConnectError, HttpResponse, Pool, ServerDisconnectedError
from milepost.client.refusals import Fault

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 429 Slow down\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\nbusy"


class Server:
    """Says what its script says, byte for byte: one entry a request, the last one for all further ones.

    An entry is bytes, or a list of them with pauses in seconds between; "close" at the end of a list closes.
    """

    def __init__(self, *script):
        self.script = [entry if isinstance(entry, list) else [entry] for entry in script]
        self.requests, self.connections = [], 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append((head, await reader.readexactly(length)))
                for part in self.script.pop(0) if len(self.script) > 1 else self.script[0]:
                    if part == "close":
                        return
                    if isinstance(part, bytes):
                        writer.write(part)
                        await writer.drain()
                    else:
                        await asyncio.sleep(part)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def play(server, use, timeout_s=5.0, key="secret", tls=None, host="127.0.0.1", path="/v1"):
    """What `use(pool)` returns, with the server running."""

    async def run():
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
        port = listening.sockets[0].getsockname()[1]
        pool = Pool(f"http{'s' if tls else ''}://{host}:{port}{path}", key, timeout_s)
        try:
            return await use(pool)
        finally:
            pool.close()
            await asyncio.sleep(0.02)
            assert not pool._open, "a connection was left open"
            listening.close()

    return asyncio.run(run())


def times(n):
    async def use(pool):
        return [await pool.post("/x", b'{"n": %d}' % number) for number in range(n)]

    return use


async def arrival(server):
    """Called when a request has come: sends the next entry of the script."""
    while not server.requests:
        await asyncio.sleep(0.01)


async def once(pool):
    return await pool.post("/x", b"{}")


def test_a_connection_is_kept_and_requests_are_whole():
    server = Server(OK)
    assert play(server, times(3)) == [HttpResponse(200, {"content-length": "2"}, b"{}")] * 3
    assert server.connections == 1
    assert [body for _, body in server.requests] == [b'{"n": 0}', b'{"n": 1}', b'{"n": 2}']
    head = server.requests[0][0].decode()
    assert head.startswith("POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "\r\nAuthorization: Bearer secret\r\n" in head
    assert "\r\nContent-Type: application/json\r\n" in head


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n1\r\n \r\n0\r\n\r\n", b"{} "),
        ([b"HTTP/1.1 20", 0.01, b"0 OK\r\nContent-Len", 0.01, b"gth: 2\r\n\r\n{", 0.01, b"}"], b"{}"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK, b"{}"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000, b"x" * 300_000),
    ],
)
def test_an_answer_in_any_pieces_is_whole_and_the_connection_is_kept(said, body):
    server = Server(said, OK)
    assert [reply.body for reply in play(server, times(2))] == [body, b"{}"]
    assert server.connections == 1


@pytest.mark.parametrize(
    "said",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n{", 0.01, b"}", "close"],
        [b"HTTP/1.0 200 OK\r\n\r\n{}", "close"],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"],
        [OK, "close"],
        [OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnever"],
        [OK, 0.02, b"HTTP/1.1 408 Too slow\r\nContent-Length: 0\r\n\r\n"],
    ],
)
def test_a_connection_that_ends_or_says_too_much_is_not_used_again(said):
    async def use(pool):
        first = await pool.post("/x", b"{}")
        await asyncio.sleep(0.05)
        return [first, await pool.post("/x", b"{}")]

    server = Server(said, OK)
    assert [reply.body for reply in play(server, use)] == [b"{}", b"{}"]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["close"], "the server closed the connection"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf", "close"], "the server closed the connection"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "close"], "the server closed"),
        ([b"HTTP/1.1 200", "close"], "the server closed the connection"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "the answer is no HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"], "the answer is no HTTP"),
        ([b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"], "the answer is no HTTP"),
    ],
)
def test_a_part_of_an_answer_is_never_taken_for_a_whole_one(said, words):
    with pytest.raises(ServerDisconnectedError, match=words):
        play(Server(said), once)


def test_an_idle_connection_is_not_trusted_for_long(monkeypatch):
    monkeypatch.setattr(connections, "IDLE_S", 0.0)
    server = Server(OK)
    play(server, times(2))
    assert server.connections == 2


def test_a_late_answer_is_never_taken_for_that_of_the_next_request():
    async def use(pool):
        with pytest.raises(TimeoutError):
            await pool.post("/x", b"{}")
        return await pool.post("/x", b"{}")

    server = Server([0.3, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"], OK)
    assert play(server, use, timeout_s=0.15).body == b"{}"
    assert server.connections == 2


def test_each_request_on_a_kept_connection_has_its_own_time():
    async def use(pool):
        first = await pool.post("/x", b"{}")
        await asyncio.sleep(0.2)
        # The first request's time ends meanwhile.
        second = await pool.post("/x", b"{}")
        begun = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await pool.post("/x", b"{}")
        return [first.body, second.body, asyncio.get_running_loop().time() - begun]

    server = Server(OK, [0.2, OK], [5])
    first, second, took = play(server, use, timeout_s=0.3)
    assert (first, second, server.connections) == (b"{}", b"{}", 1)
    assert 0.29 < took < 1


def test_answers_that_come_at_the_same_time_are_not_mixed():
    async def use(pool):
        return await asyncio.gather(*(once(pool) for _ in bodies))

    bodies = [bytes([65 + number]) * (60_000 + number) for number in range(20)]
    said = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    # In pieces, so that those of several answers come in turn.
    server = Server(*([whole[:30_000], 0.01, whole[30_000:50_000], 0.01, whole[50_000:]] for whole in said))
    assert sorted(reply.body for reply in play(server, use)) == bodies
    assert server.connections == 20


def test_a_request_that_is_cancelled_takes_its_connection_with_it():
    async def use(pool):
        asked = asyncio.create_task(once(pool))
        await arrival(server)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        return await once(pool)

    server = Server([0.3, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"], OK)
    assert play(server, use).body == b"{}"
    assert server.connections == 2


def test_closing_ends_what_is_under_way():
    async def use(pool):
        asked = asyncio.create_task(once(pool))
        await arrival(server)
        pool.close()
        return await asyncio.gather(asked, return_exceptions=True)

    server = Server([5])
    (error,) = play(server, use)
    assert isinstance(error, ServerDisconnectedError)


def test_closing_ends_a_connection_that_is_being_opened():
    async def use(pool):
        asked = asyncio.create_task(once(pool))
        await asyncio.sleep(0)
        pool.close()
        return await asyncio.gather(asked, return_exceptions=True)

    server = Server(OK)
    (error,) = play(server, use)
    assert isinstance(error, ConnectError)
    assert server.requests == []


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http:///v1", "http://127.0.0.1:99999/v1", ""])
def test_an_address_that_is_none_is_an_error(url):
    with pytest.raises(ConnectError):
        asyncio.run(once(Pool(url, "k", 1.0)))


@pytest.mark.parametrize("key", ["two\nlines", "a\r\nHost: b", "nul\0"])
def test_a_key_that_would_be_another_header_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match="line end") as caught:
        Pool("http://localhost/v1", key, 1.0)
    assert key not in str(caught.value)


def test_paths_are_quoted_and_a_query_is_kept():
    server = Server(OK)
    play(server, once, path="/a b/ü")
    assert server.requests[0][0].startswith(b"POST /a%20b/%C3%BC/x HTTP/1.1\r\n")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_key_does_not_follow_a_redirection(status):
    elsewhere = Server(OK)

    async def run():
        there = await asyncio.start_server(elsewhere.serve, "127.0.0.1", 0)
        port = there.sockets[0].getsockname()[1]
        moved = (
            f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{port}/v1/x\r\nContent-Length: 0\r\n\r\n".encode()
        )
        here = await asyncio.start_server(Server(moved).serve, "127.0.0.1", 0)
        async with Client(f"http://127.0.0.1:{here.sockets[0].getsockname()[1]}/v1", "k", pause_s=0.01) as client:
            with pytest.raises(RequestError, match=f"{status}: it redirects to another address") as caught:
                await client.post("/x", {})
        return caught.value

    error = asyncio.run(run())
    assert (error.status, error.fault, elsewhere.requests) == (status, Fault.ENDPOINT, [])


def test_headers_of_a_refusal():
    reply = play(Server(BUSY), once)
    assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "7", b"busy")


def test_a_server_with_a_certificate_is_asked_and_one_with_another_is_not(tmp_path, monkeypatch):
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    for name in ("ours", "other"):
        files = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run([*make, *files, *subject], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ours.pem"))
    for name in ("ours", "other"):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        server = Server(OK)
        if name == "ours":
            assert [reply.body for reply in play(server, times(2), tls=tls, host="localhost")] == [b"{}"] * 2
            assert server.connections == 1
        else:
            with pytest.raises(ConnectError, match="certificate"):
                play(server, once, tls=tls, host="localhost")
            assert server.requests == []


def test_a_connection_that_is_closing_takes_no_request():
    async def use(pool):
        await once(pool)
        (connection,) = pool._idle
        connection._transport.close()
        with pytest.raises(ServerDisconnectedError):
            await connection.ask(b"", asyncio.get_running_loop().time() + 1)
        return await once(pool)

    assert play(Server(OK), use).body == b"{}"


def test_a_server_that_closes_what_it_kept_costs_no_try():
    async def use(pool):
        replies = []
        for number in range(200):
            replies.append((await once(pool)).status)
            await asyncio.sleep((0.015, 0.0, 0.014, 0.016)[number % 4])
        return replies

    # It keeps connections for 15 ms.
    assert play(Server([OK, 0.015, "close"]), use) == [200] * 200


def test_half_an_answer_on_a_kept_connection_is_not_asked_for_again_in_silence():
    async def use(pool):
        await once(pool)
        return await once(pool)

    server = Server(OK, [b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf", "close"], OK)
    with pytest.raises(ServerDisconnectedError):
        play(server, use)
    assert len(server.requests) == 2


@pytest.mark.parametrize("trouble", [TimeoutError(110, "Connection timed out"), OSError(113, "No route to host"), None])
def test_a_host_that_has_vanished_is_no_questions_fault(monkeypatch, trouble):
    async def connect(*args, **options):
        if trouble:
            raise trouble
        await asyncio.sleep(60)

    async def use():
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
        await once(Pool("http://127.0.0.1:1/v1", "k", 0.1))

    with pytest.raises(
        ConnectError, match="no connection to 127.0.0.1:1: (.*timed out|.*No route|it was not there in time)"
    ):
        asyncio.run(use())


COMPRESSED = {
    "gzip": gzip.compress(b'{"a": 1}'),
    "deflate": zlib.compress(b'{"a": 1}'),
    "DEFLATE": zlib.compress(b'{"a": 1}')[2:-4],
}


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_what_a_proxy_compressed_is_read(encoding):
    body = COMPRESSED[encoding]
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert play(Server(head.encode() + body), once).body == b'{"a": 1}'


@pytest.mark.parametrize(("encoding", "words"), [("br", "not asked for: br"), ("gzip", "the answer is no gzip")])
def test_what_cannot_be_read_is_said(encoding, words):
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 4\r\n\r\nabcd"
    with pytest.raises(ServerDisconnectedError, match=words):
        play(Server(head.encode()), once)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h/openai/deployments/d?api-version=1", "/openai/deployments/d/x?api-version=1"),
        ("http://h/v1beta/openai", "/v1beta/openai/x"),
    ],
)
def test_base_addresses_of_all_kinds(url, path):
    assert Pool(url, "k", 1.0)._head("/x").startswith(f"POST {path} HTTP/1.1".encode())

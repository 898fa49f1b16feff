import asyncio
import json
import socket
from contextlib import suppress

import pytest

from milepost.client.proof import proof_of, published
from milepost.endpoints import guard as guard_module
from milepost.endpoints.guard import Guard

KEY = "k" * 43
RIGHT = (b"authorization", f"Bearer {KEY}".encode())
METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]
# What a vLLM server answers to; its own check of the key leaves most of them open.
PATHS = [
    "/", "/health", "/ping", "/version", "/load", "/metrics", "/metrics/", "/tokenize", "/detokenize", "/invocations",
    "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/load_lora_adapter", "/v1/realtime",
    "/score", "/rerank", "/pooling", "/classify", "/docs", "/openapi.json", "/reset_prefix_cache", "/collective_rpc",
    "/sleep", "/is_sleeping", "/server_info", "//v1/models", "/V1/models", "/v1/../health", "/inference/v1/generate",
]  # fmt: skip


class Connection(asyncio.Protocol):
    """What uvicorn's protocols are to the guard: they know their transport, and what was asked last."""

    def __init__(self):
        self.transport, self.cycle = None, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.cycle = data
        self.transport.write(b"answer")


@pytest.mark.parametrize("why", ["too many", "too long"])
def test_connections_that_ask_nothing_are_closed_and_others_served(monkeypatch, tmp_path, why):
    monkeypatch.setattr(guard_module, "UNASKED", 3 if why == "too many" else 64)
    monkeypatch.setattr(guard_module, "UNASKED_S", 0.3 if why == "too long" else 60)
    path = str(tmp_path / "socket")

    class Limited(Connection):
        pass

    guard_module.limit_unasked(Limited)
    guard_module.limit_unasked(Limited)  # each of a server's applications has a guard

    async def play():
        server = await asyncio.get_running_loop().create_unix_server(Limited, path)
        asking = []
        for _ in range(4):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"question")
            assert await reader.read(6) == b"answer"
            asking.append((reader, writer))
        silent = [await asyncio.open_unix_connection(path) for _ in range(8)]
        closed = silent[:5] if why == "too many" else silent
        for reader, _ in closed:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        for reader, writer in asking + (silent[5:] if why == "too many" else []):
            writer.write(b"question")
            assert await reader.read(6) == b"answer"
        for _, writer in asking + silent:
            writer.close()
        server.close()

    asyncio.run(play())


@pytest.fixture
def guard(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("MILEPOST_SOCKET", "/s/socket")
    monkeypatch.setenv("MILEPOST_ATTEMPT", "a7")

    async def app(scope, receive, send):
        await send({"type": "passed"})

    return Guard(app)


def call(guard, **scope):
    """What the client gets, and whether the server behind the guard saw anything."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        raise AssertionError("the guard reads nothing")

    asyncio.run(guard({"headers": [], **scope}, receive, send))
    return sent


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", METHODS)
def test_no_path_answers_without_the_key(guard, path, method):
    for headers in ([], [(b"authorization", b"Bearer wrong")]):
        start, body = call(guard, type="http", method=method, path=path, headers=headers)
        assert (start["type"], start["status"]) == ("http.response.start", 401)
        assert body["type"] == "http.response.body"
        # A tunnel reads the proof from the connection itself, and has to know where it ends.
        assert (b"content-length", str(len(body["body"])).encode()) in start["headers"]
        assert KEY.encode() not in body["body"]


@pytest.mark.parametrize("path", PATHS)
def test_no_websocket_opens_without_the_key(guard, path):
    assert call(guard, type="websocket", path=path) == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_key_opens_everything(guard, path, kind):
    headers = [(b"host", b"x"), RIGHT, (b"accept", b"*/*")]
    assert call(guard, type=kind, method="POST", path=path, headers=headers) == [{"type": "passed"}]


def test_the_server_may_start_and_stop(guard):
    assert call(guard, type="lifespan") == [{"type": "passed"}]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", KEY.encode())],
        [(b"authorization", f"Basic {KEY}".encode())],
        [(b"authorization", f"Bearer {KEY}x".encode())],
        [(b"authorization", f"Bearer {KEY[:-1]}".encode())],
        [(b"authorization", f"Bearer  {KEY}".encode())],
        [(b"authorization", f"bearer {KEY}".encode())],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", "Bearer ü".encode())],
        [(b"x-api-key", KEY.encode())],
        [(b"cookie", f"authorization=Bearer {KEY}".encode())],
        # Two of them: which one counts behind the guard is not known.
        [RIGHT, (b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer wrong"), RIGHT],
        [RIGHT, RIGHT],
    ],
)
def test_what_is_not_exactly_the_key_is_refused(guard, headers):
    assert call(guard, type="http", path="/v1/models", headers=headers)[0]["status"] == 401
    assert call(guard, type="websocket", path="/v1/models", headers=headers)[0]["type"] == "websocket.close"


def test_without_a_key_nothing_is_served(monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(KeyError):
        Guard(None)


def test_it_shows_that_it_knows_the_key_and_gives_nothing_else_away(guard):
    nonce = b"0123456789abcdef" * 2
    start, body = call(guard, type="http", method="GET", path="/milepost/proof", query_string=nonce)
    assert start["status"] == 200
    said = json.loads(body["body"])
    assert set(said) == {"nonce", "proof"}
    assert said["proof"] == proof_of(KEY, nonce.decode(), said["nonce"], f"{socket.gethostname()} /s/socket", "a7")
    (_, again) = call(guard, type="http", method="GET", path="/milepost/proof", query_string=nonce)
    assert json.loads(again["body"])["nonce"] != said["nonce"], "each proof has a nonce of the server's own"
    for query in (nonce + b"&published", b"", b"x" * 32, nonce.upper(), nonce + b"0", nonce + b"\n"):
        start, _ = call(guard, type="http", method="GET", path="/milepost/proof", query_string=query)
        assert start["status"] == 401
    assert call(guard, type="websocket", path="/milepost/proof", query_string=nonce)[0]["type"] == "websocket.close"


def test_it_counts_what_is_asked_and_for_how_long(guard):
    async def slow(scope, receive, send):
        await asyncio.sleep(0.2)
        await send({"type": "passed"})

    guard.app = slow

    async def play():
        async def ask(method, **scope):
            async def send(message):
                sent.append(message)

            await guard(
                {"type": "http", "method": method, "path": "/v1/embeddings", "headers": [RIGHT], **scope}, None, send
            )

        sent = []
        await asyncio.gather(ask("POST"), ask("POST"), ask("GET"), ask("POST", headers=[]))
        await asyncio.sleep(0.1)
        sent.clear()
        await ask("GET", path="/milepost/usage")
        return json.loads(sent[1]["body"])

    usage = asyncio.run(play())
    assert usage["requests"] == 2
    assert 0.2 <= usage["busy_s"] < 0.3, "two at once are busy once"
    assert 0.1 <= usage["idle_s"] < 0.3
    assert call(guard, type="http", method="GET", path="/milepost/usage")[0]["status"] == 401


def test_it_proves_where_it_is_published_while_it_is(guard, tmp_path):
    guard.published = str(tmp_path / "published")
    asked = {"type": "http", "method": "GET", "path": "/milepost/proof", "query_string": b"0" * 32 + b"&published"}
    assert call(guard, **asked)[0]["status"] == 401
    (tmp_path / "published").write_text(published(41000))
    said = json.loads(call(guard, **asked)[1]["body"])
    assert said["proof"] == proof_of(KEY, "0" * 32, said["nonce"], "published 41000", "")
    (tmp_path / "published").unlink()
    assert call(guard, **asked)[0]["status"] == 401

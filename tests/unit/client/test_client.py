import asyncio
import json
import random
import resource
import socket
import time
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from aiohttp import web

from milepost.client import client as client_module
from milepost.client.client import Client, Reply, RequestError, read_reply
from milepost.client.refusals import Fault

GOOD = {"choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}}
NOISE = "no answer came"


class Server:
    """Answers with a script: one entry a request, the last one for all further ones.

    An entry is a status, or a mapping of status, body, headers and wait_s; "drop" closes the connection.
    """

    def __init__(self, *script):
        self.script = list(script)
        self.times, self.bodies, self.headers, self.paths = [], [], [], []
        self.under_way = self.most_under_way = 0

    async def handle(self, request):
        self.times.append(time.monotonic())
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        self.paths.append(request.path)
        entry = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if entry == "drop":
            request.transport.abort()
            return web.Response()
        entry = entry if isinstance(entry, dict) else {"status": entry}
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(entry.get("wait_s", 0))
        finally:
            self.under_way -= 1
        body = entry.get("body", GOOD if entry.get("status", 200) == 200 else {"error": {"message": NOISE}})
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=entry.get("status", 200), body=data, headers=entry.get("headers", {}))

    @asynccontextmanager
    async def running(self, port=0):
        app = web.Application()
        app.router.add_post("/v1/{rest:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        try:
            yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
        finally:
            await runner.cleanup()


def ask(server, path="/chat/completions", times=1, **options):
    """What the client makes of the server: a reply or the error; a list of them for several requests at once."""

    async def play():
        options.setdefault("pause_s", 0.01)
        async with server.running() as url, Client(url, "secret", **options) as client:
            calls = [client.post(path, {"model": "m", "n": number}) for number in range(times)]
            return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(play())
    return results if times > 1 else results[0]


@pytest.mark.parametrize(
    "failure", [408, 409, 429, 500, 502, 503, 504, 529, "drop", {"body": b"<html>"}, {"body": b""}]
)
def test_errors_that_may_go_away_are_tried_again(failure):
    server = Server(failure, failure, 200)
    assert ask(server).body == GOOD
    assert len(server.times) == 3
    assert server.bodies == [{"model": "m", "n": 0}] * 3


@pytest.mark.parametrize(
    ("status", "kind", "fault"),
    [
        *((status, "refused", Fault.REQUEST) for status in (400, 403, 413, 422)),
        *((status, "endpoint", Fault.ENDPOINT) for status in (401, 402, 404, 405, 410)),
    ],
)
def test_errors_that_will_not_change_are_not_tried_again(status, kind, fault):
    server = Server(status, 200)
    error = ask(server)
    assert isinstance(error, RequestError)
    assert (error.status, error.fault) == (status, fault)
    assert error.error == {"type": kind, "message": f"{status}: {NOISE}"}
    assert len(server.times) == 1, "there is no text in it that a harmless one could stand for"


@pytest.mark.parametrize(
    ("failure", "kind", "status", "said"),
    [
        (429, "server", 429, f"429: {NOISE}"),
        (503, "server", 503, f"503: {NOISE}"),
        ("drop", "connection", None, "ServerDisconnected"),
        ({"body": b"<html>"}, "server", 200, "the answer is not JSON"),
        ({"wait_s": 5}, "timeout", None, "no answer within 0 s"),
    ],
)
def test_after_all_tries_the_last_error_is_given(failure, kind, status, said):
    server = Server(failure)
    error = ask(server, retries=1, timeout_s=0.2)
    assert isinstance(error, RequestError)
    assert (error.error["type"], error.status, error.lasting) == (kind, status, False)
    assert said in error.error["message"]
    assert len(server.times) == 2


def test_a_slow_try_is_given_up_and_tried_again():
    server = Server({"wait_s": 5}, 200)
    assert ask(server, timeout_s=0.2).body == GOOD
    assert 0.15 < server.times[1] - server.times[0] < 2


def test_waiting_for_a_place_is_no_part_of_the_time_limit_nor_of_the_latency():
    server = Server({"wait_s": 0.15})
    replies = ask(server, times=8, concurrency=2, timeout_s=0.45, retries=0)
    assert [type(reply) for reply in replies] == [Reply] * 8
    assert all(0.1 < reply.latency_s < 0.4 for reply in replies)


@pytest.mark.parametrize("bound", [1, 3, 16])
def test_concurrency_is_never_above_the_bound_and_reaches_it(bound):
    server = Server({"wait_s": 0.02})
    ask(server, times=40, concurrency=bound)
    assert server.most_under_way == bound


def test_a_pausing_request_leaves_its_place_to_others():
    server = Server({"status": 503, "headers": {"Retry-After": "1"}}, 200)

    async def play():
        async with server.running() as url, Client(url, "k", concurrency=1, pause_s=0.01) as client:
            paused = asyncio.create_task(client.post("/chat/completions", {}))
            while not server.times:
                await asyncio.sleep(0.01)
            await asyncio.wait_for(client.post("/chat/completions", {}), 0.8)
            paused.cancel()

    asyncio.run(play())


@pytest.mark.parametrize(("status", "form"), [(429, "seconds"), (429, "date"), (503, "seconds")])
def test_retry_after_is_honoured(form, status):
    # A date has whole seconds only: the second after the next is more than one second away.
    value = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server = Server({"status": status, "headers": {"Retry-After": value}}, 200)
    assert ask(server).body == GOOD
    assert 0.9 < server.times[1] - server.times[0] < 2.6


@pytest.mark.parametrize("value", ["soon", "", "-3", "Thu, 01 Jan 1970 00:00:00 GMT", "nan"])
def test_retry_after_that_says_nothing_does_not_stop_the_client(value):
    server = Server({"status": 429, "headers": {"Retry-After": value}}, 200)
    assert ask(server).body == GOOD


def test_pauses_double_are_jittered_and_are_bounded(monkeypatch):
    pauses, sleep = [], asyncio.sleep

    async def note(seconds, *rest):
        pauses.append(seconds)
        await sleep(0)

    random.seed(0)
    server = Server(503)

    async def play():
        async with server.running() as url, Client(url, "k", retries=10, pause_s=0.5) as client:
            monkeypatch.setattr(client_module.asyncio, "sleep", note)
            with pytest.raises(RequestError):
                await client.post("/chat/completions", {})
            monkeypatch.setattr(client_module.asyncio, "sleep", sleep)

    asyncio.run(play())
    pauses = [pause for pause in pauses if pause]
    assert len(pauses) == 10
    for number, pause in enumerate(pauses):
        assert min(60.0, 0.25 * 2**number) <= pause <= min(60.0, 0.75 * 2**number)
    assert len({pause / 2**number for number, pause in enumerate(pauses[:6])}) == 6


def test_a_server_that_is_not_up_yet_is_waited_for():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(200)

    async def play():
        async with Client(f"http://127.0.0.1:{port}/v1/", "k", pause_s=0.1) as client:
            call = asyncio.create_task(client.post("/chat/completions", {}))
            await asyncio.sleep(0.2)
            async with server.running(port):
                return await call

    assert asyncio.run(play()).body == GOOD


def test_a_server_that_is_not_there_is_an_error_after_all_tries():
    async def play():
        async with Client("http://127.0.0.1:1/v1", "k", retries=1, pause_s=0.01) as client:
            await client.post("/chat/completions", {})

    with pytest.raises(RequestError, match="connection: ConnectError"):
        asyncio.run(play())


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "This model's maximum context length is 512 tokens. However, you requested 600 tokens"}},
        {"error": {"message": "You passed 513 input tokens... resulting in a maximum input length of 488 tokens."}},
        {"error": {"message": "The decoder prompt is longer than ... Make sure that `max_model_len` is no smaller"}},
        {"object": "error", "message": "This model's maximum context length is 16 tokens", "type": "BadRequestError"},
        {"error": {"message": "Please shorten.", "code": "context_length_exceeded", "type": "invalid_request_error"}},
        {
            "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 534",
            "error_type": "Validation",
        },
        {"error": {"message": "the request is too large, try increasing it", "type": "exceed_context_size_error"}},
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_too_long_for_the_context_is_an_answer(status, body):
    server = Server({"status": status, "body": body})
    error = ask(server)
    assert (error.error["type"], error.lasting) == ("context", True)
    assert error.error["message"].startswith(f"{status}: ")
    assert len(server.times) == 1


@pytest.mark.parametrize("status", [429, 500])
def test_an_error_that_may_go_away_is_never_taken_for_a_prompt_too_long(status):
    body = {"error": {"message": "the context length of this batch ..."}}
    assert ask(Server({"status": status, "body": body}), retries=0).error["type"] == "server"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not JSON at all", "not JSON at all"),
        (b"[1, 2]", "[1, 2]"),
        (b"null", "None"),
        (b'{"error": null}', "None"),
        (b'{"error": "plain"}', "plain"),
        (b'{"detail": "field required"}', "field required"),
        (b'{"message": "short"}', "short"),
        (b"\xff\xfe", "\ufffd"),
        (b'{"error": {"message": "' + b"x" * 2000 + b'"}}', "x" * 500),
    ],
)
def test_any_error_body_becomes_a_short_message(body, said):
    error = ask(Server({"status": 400, "body": body}))
    assert said in error.error["message"]
    assert len(error.error["message"]) <= 505


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server = Server(200)
    assert ask(server, path="/completions").body == GOOD
    assert server.paths == ["/v1/completions"]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert server.headers[0]["Content-Type"] == "application/json"


def reply_of(choice, **rest):
    return Reply({"choices": [choice], **rest}, 0.25)


@pytest.mark.parametrize(
    ("choice", "content", "reasoning", "finish_reason"),
    [
        ({"message": {"content": "Paris."}, "finish_reason": "stop"}, "Paris.", None, "stop"),
        ({"text": " Paris.", "finish_reason": "length"}, " Paris.", None, "length"),
        ({"message": {"content": None}, "finish_reason": "length"}, "", None, "length"),
        ({"message": {"content": "P", "reasoning_content": "hm"}}, "P", "hm", None),
        ({"message": {"content": "P", "reasoning": "hm"}}, "P", "hm", None),
        ({"message": {"content": "P", "reasoning_content": None, "reasoning": "hm"}}, "P", "hm", None),
        ({"message": {"content": None, "reasoning_content": "unended"}, "finish_reason": "length"}, "", "unended", "length"),
        ({"message": None, "text": "P"}, "P", None, None),
    ],
)  # fmt: skip
def test_replies_to_chats_and_completions(choice, content, reasoning, finish_reason):
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    answer = read_reply(reply_of(choice, usage=usage), "a", 2, 99)
    expected = {
        "id": "a", "sample": 2, "content": content, "finish_reason": finish_reason, "usage": usage, "seed": 99,
        "latency_s": 0.25,
    }  # fmt: skip
    assert answer == expected | ({"reasoning": reasoning} if reasoning else {})


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}])
def test_a_server_that_counts_no_tokens(usage):
    answer = read_reply(reply_of({"text": "x"}, usage=usage), "a", 0, 0)
    assert "usage" not in answer


@pytest.mark.parametrize(
    "body",
    [
        [], "text", 7, None, {}, {"choices": []}, {"choices": None}, {"choices": ["x"]}, {"choices": [{}]},
        {"choices": [{"message": "x"}]}, {"choices": [{"message": {"content": ["parts"]}}]},
        {"choices": [{"text": "x"}], "usage": "many"}, {"choices": [{"text": "x"}], "usage": {"prompt_tokens": "x"}},
        # A server that ends may break off what is under way; that is no answer of the model.
        {"choices": [{"text": "half an ans", "finish_reason": "abort"}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "error"}]},
        {"error": {"message": "in a 200"}},
    ],
)  # fmt: skip
def test_a_reply_without_an_answer_is_an_error_that_may_go_away(body):
    with pytest.raises(RequestError) as caught:
        read_reply(Reply(body, 0.1), "a", 0, 0)
    assert (caught.value.error["type"], caught.value.lasting) == ("server", False)
    assert "without an answer" in caught.value.error["message"]


@pytest.mark.parametrize(
    ("limits", "room", "lifted"),
    [
        ((1024, 1024), 240, None), ((1024, 4096), 1008, 4096), ((1024, 100_000), 1100, 4464), ((100, 100), 9, None),
        ((1024, resource.RLIM_INFINITY), 1100, 4464), ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 1100, None),
    ],
)  # fmt: skip
def test_as_many_requests_at_once_as_files_may_be_open(monkeypatch, limits, room, lifted):
    set_to = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, given: set_to.append(given[0]))
    assert client_module.room_for(1100) == room
    assert [limit for limit in set_to if limit != limits[0]] == ([lifted] if lifted else [])


def test_a_byte_order_mark_is_no_part_of_the_answer():
    assert ask(Server({"body": b"\xef\xbb\xbf" + json.dumps(GOOD).encode()})).body == GOOD


@pytest.mark.parametrize(
    ("content", "said", "reasoning"),
    [
        ([{"type": "text", "text": "Par"}, {"type": "text", "text": "is."}], "Paris.", None),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "P"}],
            "P",
            "hm",
        ),
        ([{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "P"}], "P", None),
        ([], "", None),
    ],
)
def test_content_as_a_list_of_parts(content, said, reasoning):
    answer = read_reply(reply_of({"message": {"content": content}}), "a", 0, 0)
    assert (answer["content"], answer.get("reasoning")) == (said, reasoning)

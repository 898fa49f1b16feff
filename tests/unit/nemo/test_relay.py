import asyncio
import json
from collections import Counter

import aiohttp
import pytest
from aiohttp import web

from milepost.endpoints import Endpoint
from milepost.nemo.relay import Relay, answered


def play(script, tmp_path, seed=1, status=200):
    """Run `script(session, endpoint)` against a relay before a small server; what the server got, and what was told."""
    got, told = [], []

    async def handle(request):
        body = await request.text()
        got.append((request.method, request.path_qs, request.headers.get("Authorization"), body))
        if "stream" in body:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for part in (b"data: 1\n\n", b"data: 2\n\n"):
                await response.write(part)
            return response
        return web.json_response({"usage": {"prompt_tokens": 3, "completion_tokens": 2, "x": None}}, status=status)

    async def run():
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server = Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "server-key", "m-0123", "m")
        async with (
            Relay(server, seed, tmp_path / "r.jsonl", told.append) as endpoint,
            aiohttp.ClientSession() as session,
        ):
            await script(session, endpoint)
        await runner.cleanup()

    asyncio.run(run())
    return got, told


def post(session, endpoint, body, path="/chat/completions", key=None):
    headers = {"Authorization": f"Bearer {key or endpoint.key}"}
    return session.post(
        endpoint.url + path, data=body if isinstance(body, bytes) else json.dumps(body), headers=headers
    )


def asker(*bodies, path="/chat/completions"):
    async def script(session, endpoint):
        for body in bodies:
            async with post(session, endpoint, body, path) as reply:
                await reply.read()

    return script


def seeds(got):
    return [json.loads(body)["seed"] for *_, body in got]


def test_every_request_gets_a_seed_of_its_own_in_place_of_the_harness_one(tmp_path):
    bodies = [{"model": "m", "messages": [n], "seed": 1234} for n in (1, 2, 2, 2)]
    got, told = play(asker(*bodies), tmp_path)
    found = seeds(got)
    assert len(set(found)) == 4, "what is asked again is drawn anew"
    assert all(0 <= seed < 2**31 and seed != 1234 for seed in found)
    assert [json.loads(body)["messages"] for *_, body in got] == [[1], [2], [2], [2]]
    assert [line["seed"] for line in told] == found
    assert told[0]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}
    assert answered(tmp_path / "r.jsonl") == 4
    (tmp_path / "r.jsonl").unlink()
    again, _ = play(asker(*reversed(bodies)), tmp_path)
    assert Counter(seeds(again)) == Counter(found), "the same ones, in whatever order they come"
    (tmp_path / "r.jsonl").unlink()
    other, _ = play(asker(*bodies), tmp_path, seed=2)
    assert not set(seeds(other)) & set(found)


def test_a_run_that_goes_on_gets_the_replies_that_it_had(tmp_path):
    bodies = [{"messages": [n]} for n in (1, 2, 2)]
    got, _ = play(asker(*bodies[:2]), tmp_path)
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write('{"key": "torn')
    replies = []

    async def script(session, endpoint):
        for body in bodies:
            async with post(session, endpoint, body) as reply:
                replies.append(await reply.json())

    more, told = play(script, tmp_path)
    assert [json.loads(body)["messages"] for *_, body in more] == [[2]], "the second time of the second question"
    assert not set(seeds(more)) & set(seeds(got))
    assert replies == [{"usage": {"prompt_tokens": 3, "completion_tokens": 2, "x": None}}] * 3
    assert len(told) == 1
    assert "reply" not in told[0]
    assert answered(tmp_path / "r.jsonl") == 3
    assert play(asker(*bodies), tmp_path)[0] == []


def test_a_failure_is_asked_again(tmp_path):
    play(asker({"a": 1}), tmp_path, status=500)
    got, _ = play(asker({"a": 1}), tmp_path)
    assert len(got) == 1


@pytest.mark.parametrize("path", ["/embeddings", "/models"])
def test_other_paths_pass_as_they_are(tmp_path, path):
    got, told = play(asker({"input": "a"}, path=path), tmp_path)
    assert got == [("POST", f"/v1{path}", "Bearer server-key", '{"input": "a"}')]
    assert told == []


@pytest.mark.parametrize("body", [b"{", b"[1]", b""])
def test_a_body_that_is_no_json_object_passes_unchanged(tmp_path, body):
    got, _ = play(asker(body), tmp_path)
    assert got[0][3].encode() == body


def test_the_relay_takes_its_own_key_and_hides_that_of_the_server(tmp_path):
    async def script(session, endpoint):
        for key, status in (("server-key", 401), ("", 401), (endpoint.key, 200)):
            async with session.post(
                endpoint.url + "/completions", data="{}", headers={"Authorization": f"Bearer {key}"}
            ) as reply:
                assert reply.status == status
        assert endpoint.key != "server-key"

    got, _ = play(script, tmp_path)
    assert [key for _, _, key, _ in got] == ["Bearer server-key"]


def test_streams_come_through_and_failures_are_not_counted(tmp_path):
    async def script(session, endpoint):
        async with post(session, endpoint, {"stream": True}) as reply:
            assert await reply.text() == "data: 1\n\ndata: 2\n\n"
            assert reply.content_type == "text/event-stream"

    play(script, tmp_path)
    assert answered(tmp_path / "r.jsonl") == 1
    play(asker({"a": 1}), tmp_path, status=500)
    assert answered(tmp_path / "r.jsonl") == 1
    assert answered(tmp_path / "nowhere") == 0


def test_a_server_that_is_gone_is_a_bad_gateway(tmp_path):
    async def run():
        server = Endpoint("http://127.0.0.1:9/v1", "k", "m", "m")
        async with (
            Relay(server, 1, tmp_path / "r.jsonl", lambda line: None) as endpoint,
            aiohttp.ClientSession() as session,
            post(session, endpoint, {"a": 1}) as reply,
        ):
            return reply.status, await reply.text()

    status, said = asyncio.run(run())
    assert status == 502
    assert "ClientConnector" in said

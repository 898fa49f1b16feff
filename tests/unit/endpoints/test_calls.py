import asyncio
import json

import pytest
from test_client import Server

from milepost.endpoints import Endpoint
from milepost.endpoints.calls import Calls
from milepost.errors import CallError

GOOD = {"scores": [0.25]}
ASKED = {"concurrency": 64, "timeout_s": 120.0, "retries": 5}


def endpoint(url, model="m-nonce"):
    return Endpoint(url=url, key="secret", model=model, name="m")


def play(server, path, bodies, read=None, model="m-nonce", route="/rerank", **options):
    """Make calls to a server; returns their replies or errors."""

    async def asked():
        given = {**ASKED, "pause_s": 0.001, **options}
        # One address for all runs: it is part of who answers.
        identity = given.pop("identity", {"model": "m"})
        async with server.running() as url, Calls(endpoint(url, model), path, identity=identity, **given) as calls:
            posts = [calls.post(route, {"model": model, **body}, read) for body in bodies]
            return await asyncio.gather(*posts, return_exceptions=True)

    return asyncio.run(asked())


def test_a_kept_reply_is_never_asked_for_again(tmp_path):
    path = tmp_path / "judged" / "task.jsonl"
    server = Server({"body": GOOD})
    replies = play(server, path, [{"n": 1}, {"n": 2}, {"n": 1}])
    assert replies == [GOOD] * 3
    assert len(server.bodies) == 2
    # Another nonce in the model's name, keys in another order: the same call.
    replies = play(server, path, [{"n": 2}, {"n": 3}, {"n": 1}], model="m-other")
    assert replies == [GOOD] * 3
    assert len(server.bodies) == 3
    assert len(path.read_text().splitlines()) == 3
    assert "secret" not in path.read_text()


def test_another_endpoint_or_route_is_another_call(tmp_path):
    path = tmp_path / "task.jsonl"
    server = Server({"body": GOOD})
    play(server, path, [{"n": 1}])
    play(server, path, [{"n": 1}], identity={"model": "m", "revision": "2"})
    assert len(server.bodies) == 2
    play(server, path, [{"n": 1}], route="/score")
    assert len(server.bodies) == 3


def test_what_fails_for_good_is_not_kept_and_the_rest_is(tmp_path):
    path = tmp_path / "task.jsonl"
    server = Server({"body": GOOD}, 503, 503, 503)
    replies = play(server, path, [{"n": 1}, {"n": 2}], retries=1, concurrency=1)
    assert replies[0] == GOOD
    assert isinstance(replies[1], CallError)
    assert (replies[1].kind, replies[1].lasting) == ("server", False)
    assert "what it answered is kept" in str(replies[1])
    server = Server({"body": GOOD})
    replies = play(server, path, [{"n": 1}, {"n": 2}])
    assert replies == [GOOD] * 2
    assert [body["n"] for body in server.bodies] == [2]


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [(401, "endpoint", "Check its key"), (404, "endpoint", "Check its URL"), (400, "refused", "It will refuse")],
)
def test_a_refusal_says_what_to_do_and_hides_the_key(status, kind, advice):
    server = Server({"status": status, "body": {"error": {"message": "wrong key: secret"}}})
    (error,) = play(server, None, [{}])
    assert (error.kind, error.lasting, len(server.bodies)) == (kind, kind == "refused", 1)
    assert advice in str(error)
    assert "secret" not in str(error)


def test_a_throttled_call_is_repeated_and_a_dead_server_named(tmp_path):
    replies = play(Server(429, 429, {"body": GOOD}), tmp_path / "a", [{}])
    assert replies == [GOOD]
    (error,) = play(Server("drop"), tmp_path / "b", [{}], retries=1)
    assert error.kind == "connection"
    assert "'m'" in str(error)


def test_what_is_no_answer_is_asked_again_and_only_what_is_read_is_kept(tmp_path):
    def read(reply):
        if not reply.get("scores"):
            raise ValueError("a reply without scores")
        return reply["scores"]

    path = tmp_path / "task.jsonl"
    server = Server({"body": {}}, {"body": {"scores": [1.5], "long": "x" * 100}})
    replies = play(server, path, [{}], read)
    assert replies == [[1.5]]
    assert json.loads(path.read_text())["reply"] == [1.5]
    (error,) = play(Server({"body": {}}), tmp_path / "b", [{}], read, retries=2)
    assert "a reply without scores" in str(error)
    assert (tmp_path / "b").read_text() == ""


def test_a_torn_line_is_asked_again(tmp_path):
    path = tmp_path / "task.jsonl"
    play(Server({"body": GOOD}), path, [{"n": 1}, {"n": 2}], concurrency=1)
    path.write_bytes(path.read_bytes()[:-5])
    server = Server({"body": GOOD})
    replies = play(server, path, [{"n": 1}, {"n": 2}, {"n": 3}])
    assert replies == [GOOD] * 3
    assert sorted(body["n"] for body in server.bodies) == [2, 3]
    assert len(path.read_text().splitlines()) == 3


def test_one_who_waits_may_leave_while_another_waits(tmp_path):
    server = Server({"body": GOOD, "wait_s": 0.1})

    async def asked():
        async with server.running() as url, Calls(endpoint(url), tmp_path / "a", **ASKED) as calls:
            first = asyncio.ensure_future(calls.post("/x", {"n": 1}))
            second = asyncio.ensure_future(calls.post("/x", {"n": 1}))
            await asyncio.sleep(0.02)
            first.cancel()
            return await second

    assert asyncio.run(asked()) == GOOD
    assert len(server.bodies) == 1


def test_leaving_early_gives_up_what_is_under_way(tmp_path):
    server = Server({"body": GOOD, "wait_s": 30})

    async def asked():
        async with server.running() as url, Calls(endpoint(url), tmp_path / "a", **ASKED) as calls:
            waiting = asyncio.ensure_future(calls.post("/x", {"n": 1}))
            await asyncio.sleep(0.05)
        return await asyncio.gather(waiting, return_exceptions=True)

    (error,) = asyncio.run(asyncio.wait_for(asked(), 5))
    assert isinstance(error, asyncio.CancelledError)

"""What a harness asks of an endpoint of others is asked as a task of our own: parameters, pace, bill, who answers, marks."""

import asyncio
import json

import aiohttp
import pytest
from test_client import Server
from test_relay import asker, post

from milepost.client.bills import Bill, read_bills
from milepost.client.client import Client
from milepost.client.money import Price
from milepost.client.shape import Shape
from milepost.endpoints import Endpoint
from milepost.endpoints.seen import Seen
from milepost.errors import BudgetError, ServerError
from milepost.nemo.relay import Relay, answered, outcomes

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def reply(content="yes", finish="stop", model="m-2024", **message):
    choice = {"message": {"content": content, **message}, "finish_reason": finish}
    return {"body": {"model": model, "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}}


def play(server, script, tmp_path, shape=None, bill=None, retries=0):
    """Run a script against the relay; why the asking ended, if it did."""

    async def run():
        async with server.running() as url:
            endpoint = Endpoint(url, "key", "m", "m", shape=shape or Shape())
            async with Client.to(endpoint, patience_s=30.0, retries=retries, bill=bill, pause_s=0.01) as client:
                relay = Relay(endpoint, 1, tmp_path / "r.jsonl", lambda line: None, others=(client, Seen()))
                async with relay as near, aiohttp.ClientSession() as session:
                    await script(session, near)
                    return relay.ended.result() if relay.ended.done() else None

    return asyncio.run(run())


def bodies(n):
    return [{**BODY, "messages": [{"role": "user", "content": f"{at}"}]} for at in range(n)]


def test_parameters_headers_and_pace_are_those_of_the_endpoint(tmp_path):
    shape = Shape({"max_tokens": "max_completion_tokens", "seed": None}, {"effort": "low"}, {"X-Who": "me"}, "api-key")
    haste = {"status": 429, "headers": {"Retry-After": "0.05"}}
    server = Server(haste, haste, reply())
    assert play(server, asker(*bodies(2)), tmp_path, shape) is None
    assert server.bodies[-1] == {
        "model": "m", "messages": [{"role": "user", "content": "1"}], "max_completion_tokens": 4, "effort": "low",
    }  # fmt: skip
    assert (server.headers[-1]["X-Who"], server.headers[-1]["api-key"]) == ("me", "key")
    assert "Authorization" not in server.headers[-1]
    assert answered(tmp_path / "r.jsonl") == 2, "the harness was not told of haste"


def test_another_model_ends_the_run_with_both_names_and_its_answer_is_not_kept(tmp_path):
    ended = play(Server(reply(), reply(model="other")), asker(*bodies(2)), tmp_path)
    assert isinstance(ended, ServerError)
    assert "'other' now, and answered as 'm-2024' before" in str(ended)
    assert answered(tmp_path / "r.jsonl") == 1


def test_a_key_that_is_revoked_ends_the_run(tmp_path):
    ended = play(Server(reply(), 401), asker(*bodies(2)), tmp_path)
    assert isinstance(ended, ServerError)
    assert "401" in str(ended)
    assert "the key" in str(ended)


def test_the_budget_holds_for_a_harness(tmp_path):
    bill = Bill("api", price=Price(1e6, 1e6), budget=45, path=tmp_path / "bills.json")
    server = Server(reply())
    ended = play(server, asker(*bodies(9)), tmp_path, bill=bill)
    assert isinstance(ended, BudgetError)
    cost = read_bills(bill.path)["endpoints"]["api"]["cost"]
    assert cost == 5 * len(server.bodies) <= 45


@pytest.mark.parametrize("status", [400, 500])
def test_a_refusal_is_passed_on(tmp_path, status):
    said = []

    async def script(session, endpoint):
        async with post(session, endpoint, BODY) as got:
            said.append((got.status, await got.json()))

    server = Server({"status": status, "body": {"error": {"message": "This model's maximum context length is 4"}}})
    assert play(server, script, tmp_path) is None
    assert said[0][0] == status
    assert "maximum context length" in said[0][1]["error"]["message"]


def test_a_stream_is_asked_for_as_a_whole(tmp_path):
    said = []

    async def script(session, endpoint):
        async with post(session, endpoint, {**BODY, "stream": True}) as got:
            said.append((got.content_type, (await got.text()).splitlines()))

    server = Server(reply())
    play(server, script, tmp_path)
    assert "stream" not in server.bodies[0]
    kind, lines = said[0]
    assert kind == "text/event-stream"
    assert json.loads(lines[0].removeprefix("data: "))["choices"][0]["delta"] == {"content": "yes"}
    assert "data: [DONE]" in lines


def test_replies_are_counted_by_kind_and_by_who_gave_them(tmp_path):
    script = [reply(), reply(None, reasoning="so"), reply(None, refusal="I cannot"), reply("It", "content_filter")]
    script.append(reply(None, "tool_calls", tool_calls=[{"id": "1"}]))
    play(Server(*script), asker(*bodies(5)), tmp_path)
    assert outcomes(tmp_path / "r.jsonl") == {
        "kinds": {"answered": 1, "reasoning_only": 1, "refused": 1, "filtered": 1, "tool_calls": 1},
        "reasons": {"refused": "I cannot"},
        "models": {"m-2024": 5},
    }


def test_log_probabilities_are_no_answers_that_were_cut(tmp_path):
    text = {"choices": [{"text": "hi", "finish_reason": "length"}]}
    body = {"model": "m", "prompt": "hi", "max_tokens": 1, "echo": True, "logprobs": 1}
    play(Server({"body": text}), asker(body, path="/completions"), tmp_path)
    assert (answered(tmp_path / "r.jsonl"), outcomes(tmp_path / "r.jsonl")) == (1, {"kinds": {}})

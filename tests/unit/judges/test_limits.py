import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from test_asking import question, reply
from test_client import Server

from milepost.endpoints import Endpoint
from milepost.endpoints.external import External
from milepost.endpoints.limits import throttle_of
from milepost.errors import JudgeError
from milepost.judges.asking import Judge, kept_calls

API = External(name="a", model="j", url="https://api.example.org/v1")


def ask(server, spec, texts, task="t1", asked_as="j", **options):
    async def asked():
        async with server.running() as url:

            @asynccontextmanager
            async def opens(_):
                yield Endpoint(url, "key", asked_as, "j")

            questions = [question(text) for text in texts]
            return await Judge(spec, **options).ask(questions, kept_calls("a", "c1", task), opens)

    return asyncio.run(asked())


def said(text, **more):
    body = reply(text)
    return {"body": {**body["body"], **more}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVAL_THROTTLE_STATE_PATH", str(tmp_path / "pace"))
    monkeypatch.setenv("MIN_INTERVAL_S", "0")


@pytest.mark.parametrize("change", [{"model": "j-2"}, {"system_fingerprint": "fp_2"}])
def test_a_judge_that_becomes_another_one_is_an_error_in_whatever_job(change):
    first = {"model": "j-1", "system_fingerprint": "fp_1"}
    ask(Server(said("1", **first)), API, ["one"])
    with pytest.raises(JudgeError, match=r"become another one.*Set `revision` in config/endpoints\.yaml"):
        ask(Server(said("2", **first | change)), API, ["two"], task="t2")
    # The reply of the other one is not kept, and the first goes on.
    assert ask(Server(said("3", **first)), API, ["two"], task="t2")[0].verdict.value == 3.0
    # One that says nothing contradicts nobody; another revision is another judge.
    assert ask(Server(said("4")), API, ["three"])[0].verdict.value == 4.0
    assert ask(Server(said("5", **first | change)), replace(API, revision="new"), ["one"])[0].verdict.value == 5.0


def test_only_the_name_counts_where_the_user_says_so_and_a_name_with_a_nonce_is_its_own():
    by_name = replace(API, fingerprint="name")
    ask(Server(said("1", system_fingerprint="fp_1")), by_name, ["one"])
    assert ask(Server(said("2", system_fingerprint="fp_2")), by_name, ["two"])[0].verdict.value == 2.0
    for nonce in ("j-123", "j-456"):
        ask(Server(said("3", model=nonce)), by_name, [nonce], asked_as=nonce)


def test_a_campaign_pays_for_no_more_calls_than_it_may_and_keeps_what_it_paid_for():
    bounded = replace(API, max_calls=3)
    texts = ["one", "two", "three", "four", "five"]
    server = Server(*[said(str(n)) for n in range(9)])
    with pytest.raises(JudgeError, match="max_calls is 3, and 3 are spent"):
        ask(server, bounded, texts)
    assert len(server.bodies) == 3
    assert len(kept_calls("a", "c1", "t1").read_text().splitlines()) == 3
    # Over all tasks; and what is kept costs nothing.
    with pytest.raises(JudgeError):
        ask(Server(said("1")), bounded, ["one"], task="t2")
    assert len(ask(Server(500), bounded, texts[:1])) == 1
    raised = Server(*[said(str(n)) for n in range(9)])
    assert len(ask(raised, replace(API, max_calls=5), texts)) == 5
    assert len(raised.bodies) == 2


def test_a_campaign_pays_for_no_more_tokens_than_it_may():
    # Each reply takes three tokens; before it is there, ten at most.
    bounded = replace(API, max_tokens=16)
    server = Server(*[said(str(n)) for n in range(9)])
    with pytest.raises(JudgeError, match="max_tokens is 16"):
        for n in range(9):
            ask(server, bounded, [f"{n}"], sampling={"max_tokens": 10})
    assert len(server.bodies) == 2 + 0


def test_what_is_not_answered_is_not_paid_for():
    bounded = replace(API, max_calls=1)
    with pytest.raises(Exception, match="failed"):
        ask(Server(*[500] * 9), replace(bounded, serving=replace(bounded.serving, retries=0)), ["one"])
    assert ask(Server(said("1")), bounded, ["one"])[0].verdict.value == 1.0


def test_servers_of_ours_and_of_this_host_keep_no_pace(monkeypatch):
    monkeypatch.delenv("MIN_INTERVAL_S")
    assert throttle_of(API).interval_s == 0.005
    here = replace(API, url="http://127.0.0.1:8000/v1")
    assert throttle_of(here) is None
    assert throttle_of(replace(API, url=None, host="h", port_file=Path("p"))) is None
    assert throttle_of(replace(here, requests_per_minute=60)).interval_s == 0
    monkeypatch.setenv("MIN_INTERVAL_S", "0.1")
    assert throttle_of(here).interval_s == 0.1

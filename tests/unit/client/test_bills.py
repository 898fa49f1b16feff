"""A campaign pays no more than it may, however many processes ask, and its bill is what the replies say."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_client import Server

from milepost.client.bills import Bill, read_bills
from milepost.client.client import Client
from milepost.client.money import Price, Tokens, billed_tokens, most_tokens
from milepost.endpoints.limits import bill_of
from milepost.endpoints.specs import load_endpoints
from milepost.errors import BudgetError, ConfigError

BODY = {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 10}
# A million tokens for a million: a token for one.
PRICE = Price(input=1e6, output=1e6)


def reply(prompt=8, completion=2, **more):
    choice = {"message": {"content": "yes"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"body": {"choices": [choice], "usage": {**usage, **more}}}


def post(server, bill, n=1, **options):
    """Post n requests at once; how many were answered, and what ended the others."""

    async def play():
        async with server.running() as url, Client(url, "key", bill=bill, retries=0, **options) as client:
            return await asyncio.gather(
                *(client.post("/chat/completions", BODY) for _ in range(n)), return_exceptions=True
            )

    replies = asyncio.run(play())
    errors = [one for one in replies if isinstance(one, Exception)]
    return n - len(errors), errors


@pytest.fixture
def bill(tmp_path):
    return lambda **options: Bill("api", path=tmp_path / "bills.json", **options)


def mine(bill):
    return read_bills(bill.path)["endpoints"]["api"]


def test_the_bill_is_what_replies_say(bill):
    one = bill(price=Price(input=2e6, output=4e6, cached=1e6))
    assert post(Server(reply(8, 2, prompt_tokens_details={"cached_tokens": 3}), reply(5, 1)), one, 2) == (2, [])
    found = mine(one)
    counts = {name: found[name] for name in ("calls", "tokens_in", "tokens_out", "tokens_cached", "guessed", "open")}
    assert counts == {"calls": 2, "tokens_in": 13, "tokens_out": 3, "tokens_cached": 3, "guessed": 0, "open": {}}
    assert found["cost"] == 5 * 2 + 3 * 1 + 2 * 4 + 5 * 2 + 1 * 4


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}, (4, 2, 0)),
        # xAI leaves reasoning out of the completion, and has it in the sum.
        ({"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 30}, (4, 26, 0)),
        ({"total_tokens": 7}, (7, 0, 0)),
        ({"prompt_tokens": 7, "prompt_cache_hit_tokens": 9, "completion_tokens": 1}, (7, 1, 7)),
        ({"input_tokens": 3, "output_tokens": 2}, (3, 2, 0)),
        ({"prompt_tokens": -3, "completion_tokens": "2"}, None),
        (None, None),
    ],
)
def test_tokens_of_a_reply(usage, expected):
    found = billed_tokens(BODY, {"choices": [{"message": {"content": "yes!"}}], "usage": usage})
    if expected is None:
        assert (found.guessed, found.completion) == (True, 1.0)
    else:
        assert found == Tokens(*map(float, expected))


def test_a_budget_is_never_exceeded_by_calls_at_once_and_what_was_answered_counts(bill):
    one = bill(price=PRICE, budget=105)
    server = Server(*[reply() for _ in range(30)])
    answered, errors = post(server, one, 30)
    assert {type(error) for error in errors} == {BudgetError}
    assert mine(one)["cost"] == 10 * answered <= 105
    # A call may take 38: beyond 67, none is sent.
    assert answered == 7
    assert "budget is 105, and 70 are spent, and the next call could take more than is left" in str(errors[0])
    assert len(server.bodies) == answered, "who may not be asked is not asked"
    # What is raised goes on.
    assert post(server, bill(price=PRICE, budget=125), 30)[0] == 2


def test_all_endpoints_of_a_campaign_share_its_budget(bill, tmp_path):
    one, other = (Bill(name, price=PRICE, campaign_budget=60, path=tmp_path / "b.json") for name in ("one", "other"))
    server = Server(*[reply() for _ in range(30)])
    assert post(server, one, 2)[0] == 2
    answered, errors = post(server, other, 9)
    assert answered == 1
    assert "the campaign's budget is 60, and 30 are spent" in str(errors[0])


PLAYER = """
import asyncio, sys
from pathlib import Path
from milepost.client.bills import Bill
from milepost.client.money import Price
from milepost.errors import BudgetError
bill = Bill("api", price=Price(1e6, 1e6), budget=1000, path=Path(sys.argv[1]))
body = {"messages": [{"content": "abcd"}], "max_tokens": 16}
async def call():
    try:
        held = await bill.reserve(body)
    except BudgetError:
        return 0
    await asyncio.sleep(0.001)
    await bill.settle(held, body, {"usage": {"prompt_tokens": 4, "completion_tokens": 5}})
    return 1
async def play():
    print(sum(await asyncio.gather(*(call() for _ in range(60)))))
asyncio.run(play())
"""


def test_processes_share_a_budget(tmp_path):
    path = tmp_path / "bills.json"
    command = [sys.executable, "-c", PLAYER, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "scripts")}
    players = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    answered = sum(int(player.communicate(timeout=120)[0]) for player in players)
    found = read_bills(path)["endpoints"]["api"]
    assert found["cost"] == 9 * answered
    # A call holds 36: the last one was sent at 964 or less.
    assert 964 < found["cost"] <= 1000
    assert found["open"] == {}


def test_what_is_refused_costs_nothing_and_what_is_not_known_is_guessed(bill):
    one = bill(price=PRICE, budget=1000)
    assert post(Server(400, 429, 500), one, 3)[0] == 0
    assert mine(one).get("cost", 0) == 0
    # A time limit that is over: the server may have worked, and billed it.
    assert post(Server({"wait_s": 5, **reply()}), one, 1, timeout_s=0.05)[0] == 0
    found = mine(one)
    assert (found["calls"], found["unanswered"], found["guessed"]) == (0, 2, 2), "and the harmless question"
    assert 0 < found["cost"] <= 2 * 38


def test_what_a_killed_process_held_is_free_again(bill, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    held = {"calls": 2, "tokens": 0, "cost": 90, "seen": time.time()}
    (tmp_path / "bills.json").write_text(
        json.dumps({"endpoints": {"api": {"cost": 10, "open": {f"{socket.gethostname()}:{dead.pid}:ab": held}}}})
    )
    assert post(Server(reply()), bill(price=PRICE, budget=100), 1) == (1, [])


def test_a_bill_that_cannot_be_kept_ends_the_asking(tmp_path):
    (tmp_path / "bills.json").mkdir()
    server = Server(reply())
    answered, (error,) = post(server, Bill("api", price=PRICE, path=tmp_path / "bills.json"))
    assert (answered, type(error), server.bodies) == (0, BudgetError, [])
    assert "cannot be kept" in str(error)


def test_a_call_without_a_limit_may_be_long():
    assert most_tokens({"messages": [{"content": "é"}]}) == Tokens(18.0, 16384.0, guessed=True)
    assert most_tokens({"input": ["é"]}).completion == 0


def entry(text):
    Path("config").mkdir(exist_ok=True)
    Path("config/endpoints.yaml").write_text(
        f"api: {{provider: external, model: m, url: 'https://x.org/v1', {text}}}\n"
    )
    return load_endpoints()["api"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("price: {input: -1, output: 2}", "price"),
        ("price: {input: 1}", "output"),
        ("price: {input: 1, output: two}", "output"),
        ("price: {input: 1, output: 2, cashed: 1}", "cashed"),
        ("price: {input: .nan, output: 2}", "no number to compute with"),
        ("price: {input: 1, output: 2}, budget: 0", "budget"),
        ("price: {input: 1, output: 2}, budget: -3", "budget"),
        ("price: {input: 1, output: 2}, budget: .inf", "no number to compute with"),
        ("budget: 3", "no price"),
    ],
)
def test_wrong_prices_and_budgets_are_refused(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        entry(text)


def test_an_entry_makes_a_bill_with_the_budget_of_the_campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bill_of(entry("retries: 1")) is None
    spec = entry("price: {input: 0.15, output: 0.6}, budget: 5")
    assert spec.identity == entry("retries: 1").identity
    Path("config/config.yaml").write_text("tasks: [t]\nbudget: 7\n")
    made = bill_of(spec)
    assert (made.price, made.budget, made.campaign_budget) == (Price(0.15, 0.6), 5, 7)

"""How fast an endpoint with limits is asked: at servers in a time that passes at once (`limits`), and at real ones."""

import asyncio
import math

import pytest
from aiohttp import web
from limits import AtOnce, Bucket, Fixed, Server, Sliding, play

from milepost.client.client import Client, RequestError
from milepost.client.refusals import Fault

TOLD = {"retry-after": "2"}
# From 300 requests on: the limit's own time, a tenth more, and the way and the answer of the last one.
GOALS = {
    "a window": (Sliding, 40.0),
    "a window, a pause is asked for": (lambda: Sliding(headers=TOLD), 40.0),
    "a window, told by headers": (lambda: Sliding(says=True), 40.0),
    "tokens": (lambda: Sliding(most=6000, of="tokens"), 40.0),
    "tokens, told by headers": (lambda: Sliding(most=6000, of="tokens", says=True), 40.0),
    "windows by the clock, told by headers": (lambda: Fixed(says=True), 40.0),
    "a supply, a pause is asked for": (lambda: Bucket(headers=TOLD), 40.0),
    "so many at once": (lambda: AtOnce(latency_s=0.5), 18.75),
}


@pytest.mark.parametrize("name", GOALS)
def test_little_more_time_than_the_limit_takes_and_few_refusals(name):
    make, least_s = GOALS[name]
    server = make()
    took_s, _ = play(server, 300)
    assert server.answered == 300
    assert took_s < 1.1 * least_s + server.latency_s + 3 * server.way_s
    assert server.refused <= 9, "three in a hundred"


@pytest.mark.parametrize("latency_s", [0.02, 2.0])
@pytest.mark.parametrize(
    "make",
    [
        Sliding,
        lambda **options: Sliding(period=7.0, **options),
        Fixed,
        Bucket,
        lambda **options: Bucket(most=6000, rate=600, of="tokens", says=True, **options),
        lambda **options: AtOnce(most=20, **options),
    ],
)
def test_whatever_the_limit_is_of_many_few_are_refused_and_none_is_given_up(make, latency_s):
    server = make(latency_s=latency_s)
    took_s, _ = play(server, 1500)
    assert server.answered == 1500
    assert server.refused <= 45
    allowed = {Bucket: 240.0, AtOnce: 75 * (latency_s + 2 * server.way_s)}
    least_s = allowed.get(type(server), 24 * getattr(server, "period", 10.0))
    assert took_s < 1.25 * least_s + 10


def test_without_limits_nothing_slows_it():
    server = Server(latency_s=0.05)
    took_s, slowed = play(server, 5000)
    assert (server.refused, slowed) == (0, "")
    assert took_s < 20


def test_one_request_a_minute():
    server = Sliding(most=1, period=60.0)
    took_s, slowed = play(server, 12)
    assert slowed == "its limit of 1 requests in 60 s"
    assert took_s < 11 * 62
    assert server.refused < 18


def test_a_limit_that_is_raised_is_found():
    server = Sliding()
    answered = []

    def admits(now, tokens, first=server.admits):
        server.most = 60 if now < 30 else 600
        answered.append(now)
        return first(now, tokens)

    server.admits = admits
    took_s, _ = play(server, 1800)
    assert took_s < 250, "it would take 290 s with the lower one"


def test_uneven_requests_under_a_limit_of_tokens():
    costs = [60.0 + 80 * (n * 7919 % 101) / 100 for n in range(300)]
    server = Sliding(most=6000, of="tokens", says=True)
    took_s, _ = play(server, 300, costs=costs)
    assert took_s < 1.1 * math.ceil(sum(costs) / 6000) * 10
    assert server.refused <= 9


def asked(handle, requests, **options):
    """Ask a real server; the outcomes."""

    async def ask():
        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with Client(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "k", pause_s=0.01, **options) as client:
                calls = [client.post("/chat/completions", {"n": n}) for n in range(requests)]
                return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await runner.cleanup()

    return asyncio.run(ask())


def hasty(first):
    """A server that refuses the first requests, and then answers."""
    count = iter(range(10**9))

    async def handle(request):
        await request.read()
        if next(count) < first:
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After-Ms": "20"})
        return web.json_response({"choices": []})

    return handle


def test_a_refusal_for_haste_uses_up_no_tries():
    outcomes = asked(hasty(3), 12, retries=0, patience_s=60)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Reply"] * 12


def test_a_limit_that_lets_nothing_through_ends_it_and_blames_no_question():
    outcomes = asked(hasty(10**9), 3, retries=0, patience_s=0.5)
    assert all(isinstance(outcome, RequestError) and outcome.fault is Fault.ENDPOINT for outcome in outcomes)
    assert "nothing was answered for" in str(outcomes[0])


def test_without_patience_haste_counts_as_any_other_failure():
    outcomes = asked(hasty(10**9), 1, retries=2)
    assert (outcomes[0].status, outcomes[0].fault) == (429, Fault.PASSING)

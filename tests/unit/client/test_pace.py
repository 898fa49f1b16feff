"""How fast an endpoint with limits is asked."""

import asyncio
import time
from collections import deque

import pytest
from aiohttp import web

from milepost.client.client import Client, RequestError
from milepost.client.refusals import Fault


class Limited:
    """A server that answers so many requests in any so many seconds, and refuses the others."""

    def __init__(self, most, period, headers=(), latency_s=0.01):
        self.most, self.period, self.headers, self.latency_s = most, period, dict(headers), latency_s
        self.sent, self.answered, self.refused = deque(), 0, 0

    async def handle(self, request):
        await request.read()
        now = time.monotonic()
        while self.sent and now - self.sent[0] >= self.period:
            self.sent.popleft()
        if len(self.sent) >= self.most:
            self.refused += 1
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=self.headers)
        self.sent.append(now)
        self.answered += 1
        await asyncio.sleep(self.latency_s)
        return web.json_response({"choices": []})


def play(server, requests, **options):
    """Ask all at once: the outcomes, and the seconds that it took."""

    async def asked():
        app = web.Application()
        app.router.add_post("/{path:.*}", server.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with Client(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "k", pause_s=0.01, **options) as client:
                calls = [client.post("/chat/completions", {"n": n}) for n in range(requests)]
                return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await runner.cleanup()

    begun = time.monotonic()
    return asyncio.run(asked()), time.monotonic() - begun


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}])
def test_all_is_answered_however_often_a_try_was_refused_for_haste(headers):
    server = Limited(20, 3.0, headers)
    outcomes, took_s = play(server, 60, retries=0, patience_s=30)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Reply"] * 60
    assert took_s < 20, "the limit alone takes 6 s"
    assert server.refused < 40


def test_a_limit_that_lets_nothing_through_ends_it_and_blames_no_question():
    server = Limited(0, 1.0)
    outcomes, took_s = play(server, 5, retries=0, patience_s=2.5)
    assert all(isinstance(outcome, RequestError) and outcome.fault is Fault.ENDPOINT for outcome in outcomes)
    assert "nothing was answered for" in str(outcomes[0])
    assert 2 < took_s < 20


def test_without_patience_haste_counts_as_any_other_failure():
    outcomes, _ = play(Limited(0, 1.0), 1, retries=2)
    assert (outcomes[0].status, outcomes[0].fault) == (429, Fault.PASSING)


def test_it_begins_with_few_at_once():
    server = Limited(1000, 1.0, latency_s=0.2)
    under_way, most = 0, []
    handle = server.handle

    async def counted(request):
        nonlocal under_way
        under_way += 1
        most.append(under_way)
        try:
            return await handle(request)
        finally:
            under_way -= 1

    server.handle = counted
    play(server, 40, concurrency=64, patience_s=9)
    assert max(most[:4]) <= 4
    assert max(most) > 6

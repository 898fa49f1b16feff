"""What a running job's server opens to others: nothing but sockets in a folder of its own, and loopback."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROFILE, STEPS

from milepost.campaign.types import Checkpoint, Serving
from milepost.client.client import Client
from milepost.endpoints.vllm import VllmServer
from milepost.runtime.processes import Watchdog

# A host whose name leads to its network address, as nodes of a cluster have it; here, all names lead to loopback.
NODE = """
ip link set lo up
ip link add net0 type veth peer name net1
ip addr add 10.9.9.9/24 dev net0
ip link set net0 up
ip link set net1 up
hostname node-of-a-test
echo "127.0.0.1 localhost
10.9.9.9 node-of-a-test" >{folder}/hosts
mount --bind {folder}/hosts /etc/hosts
exec {python} {script} {model} {workers} {folder}
"""


def processes(session):
    """The processes of a session."""
    return {
        entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and in_session(int(entry.name), session)
    }


def command_lines(session):
    """What everybody on the host can read of a session's processes."""
    return [Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in processes(session)]


def listening(session):
    """All that the processes of a session listen at: TCP and UDP addresses, and Unix sockets."""
    pids = processes(session)
    found = []
    for kind in ("-ltnpH", "-lunpH", "-lxnpH"):
        for line in subprocess.run(["ss", kind], capture_output=True, text=True, check=True).stdout.splitlines():
            if pids & set(re.findall(r"pid=(\d+)", line)):
                found.append((kind, line.split()[4 if kind == "-lxnpH" else 3]))
    return found


def in_session(pid, session):
    try:
        return os.getsid(pid) == session
    except OSError:
        return False


async def serve(model, workers, folder):
    """One server from start to end: what it listened at, what `ps` showed of it, and what it left in /tmp."""
    before = set(os.listdir("/tmp"))
    args = {**PROFILE["vllm_args"], **({"tensor-parallel-size": workers} if workers > 1 else {})}
    watchdog = Watchdog()
    # Here is one NUMA node, which the CPU build would not share out among workers by itself.
    env = {**PROFILE["env"], **({"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if workers > 1 else {})}
    serving = Serving(**{**PROFILE, "vllm_args": args, "env": env, "start_timeout_s": 500})
    server = VllmServer(Checkpoint("c", model, None, None, None, 1, serving), folder / "log", watchdog)
    try:
        await server.start()
        endpoint = server.endpoint
        async with Client.to(endpoint) as client:
            asked = {"model": endpoint.model, "messages": [{"role": "user", "content": "?"}], "max_tokens": 4}
            await client.post("/chat/completions", asked)
        # Nothing in the process list helps whoever wants to pass for this server, or to find it.
        shown = "\n".join(command_lines(server._group.process.pid))
        assert "milepost.runtime.launch" in shown
        assert not [word for word in (endpoint.model, endpoint.key, str(model), "--port", "--uds") if word in shown], (
            shown
        )
        return listening(server._group.process.pid), set(os.listdir("/tmp")) - before, server._private
    finally:
        await server.stop()
        watchdog.close()
        left = [name for name in set(os.listdir("/tmp")) - before if not name.startswith("pytest")]
        (folder / "left").write_text("\n".join(left))


@pytest.mark.skipif(os.geteuid() != 0, reason="a host of its own takes root")
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_listens_on_the_network_and_nothing_is_left(models, tmp_path, workers):
    script = NODE.format(folder=tmp_path, python=sys.executable, script=__file__, model="/mnt", workers=workers)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        "unshare",
        "--net",
        "--uts",
        "--mount",
        "--ipc",
        "bash",
        "-euc",
        # The model may lie in the /tmp that is hidden.
        f"mount --bind {models[STEPS[-1]]} /mnt; mount -t tmpfs none /tmp; mkdir -p {tmp_path}; {script}",
    ]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = [line.split(" ", 1) for line in ran.stdout.splitlines() if line.startswith("-l")]
    private = re.search("^private (.*)$", ran.stdout, re.MULTILINE)[1]
    assert any(kind == "-lxnpH" for kind, _ in found), ran.stdout
    for kind, address in found:
        if kind == "-lxnpH":
            assert address.startswith(f"{private}/"), f"a socket outside the folder, or one without a file: {address}"
        else:
            assert address.startswith("127.0.0.1:"), f"reached from the network: {address}"
    assert "left: []" in ran.stdout, ran.stdout


if __name__ == "__main__":
    seen, _, its_own = asyncio.run(serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
    for each in seen:
        print(*each)
    print("private", its_own)
    print("left:", Path(sys.argv[3], "left").read_text().split())

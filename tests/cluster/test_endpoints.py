"""Shared endpoints on a real SLURM cluster: many jobs and one server, what may happen to it, and what a stranger can do.

The server's job, its hosts, the tunnels and the faults are real. What answers is the stand-in for vLLM, so that a server
is there in seconds. The tests follow each other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import CLUSTER, GPU_HOSTS, HOSTS, USER_ID, Cluster, wait_until
from project import REPOSITORY, copy_environment

STRANGER_ID = 5002
FOLDER = CLUSTER / "shared" / "endpoints"
CODE = ("Snakefile", "rules", "scripts", "profiles", "report", "config/schemas", "tests/stub_server.py", "slurm")
SITE = {"options": ["--account=proj1", "--partition=main", "--mem=2000", "--time=10"], "gpu_model": "A40"}
CLIENT = """
import asyncio, sys, time
from milepost.client import Client
from milepost.endpoints.open import open_endpoint
from milepost.endpoints.specs import load_endpoints
from milepost.errors import run_step

async def play():
    async with open_endpoint(load_endpoints()["judge"]) as endpoint, Client(endpoint.url, endpoint.key) as client:
        print("open", endpoint.url, flush=True)
        # In a thread: the tunnel lives in this loop.
        while line := await asyncio.to_thread(sys.stdin.readline):
            begun = time.perf_counter()
            reply = await client.post("/completions", {"model": endpoint.model, "prompt": line.strip(), "seed": 1})
            print(reply.body["choices"][0]["text"], time.perf_counter() - begun, flush=True)

run_step(lambda: asyncio.run(play()))
"""


class Job:
    """A client as alice runs it on a host."""

    def __init__(self, campaign: Campaign, host: str, time_limit_min: int = 10) -> None:
        site = {**SITE, "options": [*SITE["options"][:-1], f"--time={time_limit_min}"]}
        self._process = subprocess.Popen(
            [CLUSTER / "bin" / "as", host, "env", "-C", campaign.folder, *campaign.variables, f"MILEPOST_SBATCH={json.dumps(site)}",
             campaign.python, "-c", CLIENT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.url = ""

    def opened(self) -> Job:
        """Wait until it has its endpoint."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        word, _, self.url = self._process.stdout.readline().strip().partition(" ")
        assert word == "open", self._process.stderr.read()
        return self

    def ask(self, question: str) -> float:
        """Ask; the seconds until the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.startswith(f"{question}, said"), line or self._process.stderr.read()
        return float(line.split()[-1])

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Nothing more to ask."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0, self._process.stderr.read()


class Campaign:
    """A campaign of alice with one shared endpoint, and a copy of the code with the stand-in as its vLLM."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        shutil.rmtree(FOLDER, ignore_errors=True)
        for name in CODE:
            source, target = REPOSITORY / name, FOLDER / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        (FOLDER / "envs/workflow").mkdir(parents=True)
        copy_environment(REPOSITORY / "envs/workflow/.venv", FOLDER / "envs/workflow/.venv")
        self.python = str(FOLDER / "envs/workflow/.venv/bin/python")
        vllm = FOLDER / "envs/vllm/.venv/bin/python"
        vllm.parent.mkdir(parents=True)
        vllm.write_text(f'#!/bin/sh\nexec "{self.python}" "{FOLDER}/tests/stub_server.py" "$@"\n')
        vllm.chmod(0o755)
        self.folder = FOLDER / "campaign"
        (self.folder / "model").mkdir(parents=True)
        (self.folder / "model/config.json").write_text("{}")
        (self.folder / "model/model.safetensors").write_bytes(b"weights")
        (self.folder / "config").mkdir()
        (self.folder / "config/config.yaml").write_text("tasks: [any]\n")
        self.write(idle_s=600)
        os.chown(self.folder, USER_ID, USER_ID)
        self.variables = [f"STUB_LOG={self.folder}/stub.log", f"PYTHONPATH={FOLDER}/scripts"]

    def write(self, **options: Any) -> None:
        """The endpoint, as the configuration has it."""
        judge = {"provider": "shared", "model": "model", "gpus": 1, "start_timeout_s": 60, "retries": 8, **options}
        (self.folder / "config/endpoints.yaml").write_text(yaml.safe_dump({"judge": judge}))

    @property
    def place(self) -> Path:
        """Where its key and its record are."""
        return self.folder / "results/endpoints/judge"

    def record(self) -> dict[str, Any]:
        """Where the server is."""
        return dict(json.loads((self.place / "server.json").read_text()))

    def key(self) -> str:
        """The server's."""
        return str(json.loads((self.place / "key").read_text())["key"])

    def lines(self, word: str) -> list[str]:
        """The stand-in's log."""
        log = self.folder / "stub.log"
        return [line for line in log.read_text().splitlines() if line.startswith(word)] if log.exists() else []

    def stop(self) -> None:
        """`snakemake stop_servers` calls this."""
        script = FOLDER / "scripts/stop_servers.py"
        self.cluster.call("login", "env", "-C", self.folder, *self.variables, self.python, script)

    def supervisor(self) -> tuple[str, int]:
        """Host and process of the server's supervisor."""
        return next(
            (host, process.pid)
            for host in GPU_HOSTS
            for process in self.cluster.processes(host)
            if process.runs("serve_shared.py")
        )


@pytest.fixture(scope="module")
def campaign(cluster: Cluster) -> Iterator[Campaign]:
    made = Campaign(cluster)
    yield made
    cluster.call("login", "scancel", "--user=alice")
    for host in HOSTS:
        for process in cluster.processes(host):
            if str(FOLDER) in process.command:
                os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def job(campaign: Campaign) -> Iterator[Job]:
    """A client that is there from the first test to the last."""
    made = Job(campaign, "cpu01").opened()
    yield made
    made.kill()


def test_forty_jobs_at_once_share_one_server(campaign: Campaign, measured: Callable[[str], None]) -> None:
    begun = time.monotonic()
    jobs = [Job(campaign, "cpu01" if number % 2 else "login") for number in range(40)]
    for number, one in enumerate(jobs):
        one.opened()
        # The one that submitted it, whichever that was, is not needed any more.
        one.ask(f"forty {number}")
        one.kill() if number % 2 else one.end()
    measured(
        f"40 jobs at once: all answered after {time.monotonic() - begun:.0f} s, by {len(campaign.lines('START'))} server"
    )
    assert len(campaign.lines("START")) == 1
    assert len(campaign.lines("ASK judge forty")) == 40


def test_the_latency_that_the_tunnel_adds(campaign: Campaign, job: Job, measured: Callable[[str], None]) -> None:
    near = Job(campaign, campaign.record()["host"]).opened()
    medians = [statistics.median(one.ask(f"latency {i}") for i in range(100)) for one in (near, job)]
    near.end()
    measured(
        f"a request on the server's host takes {1000 * medians[0]:.1f} ms, through the tunnel {1000 * medians[1]:.1f} ms"
    )
    assert medians[1] - medians[0] < 0.1


def kill_tunnel(campaign: Campaign) -> None:
    """On the client's host."""
    listed = subprocess.run(["ip", "netns", "pids", "cpu01"], capture_output=True, text=True, check=True).stdout.split()
    tunnels = [pid for pid in map(int, listed) if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ssh\0")]
    assert tunnels
    for pid in tunnels:
        os.kill(pid, signal.SIGKILL)


def kill_server(campaign: Campaign) -> None:
    """vLLM itself, under its supervisor."""
    host, _ = campaign.supervisor()
    for process in campaign.cluster.processes(host):
        if process.runs("stub_server.py"):
            os.kill(process.pid, signal.SIGKILL)


def kill_supervisor(campaign: Campaign) -> None:
    os.kill(campaign.supervisor()[1], signal.SIGKILL)


def cancel(campaign: Campaign) -> None:
    campaign.cluster.call("login", "scancel", "--name=milepost-judge")


def set_down(campaign: Campaign) -> None:
    """Its node is set down, as when it breaks."""
    host = campaign.record()["host"]
    campaign.cluster.call_as_root("login", "scontrol", "update", f"nodename={host}", "state=down", "reason=test")


def node_state(cluster: Cluster, host: str) -> str:
    """What SLURM says of a node; one that is down is told to come back."""
    state = cluster.call_as_root("login", "sinfo", "--noheader", f"--nodes={host}", "--format=%T")
    if state.startswith("down"):
        subprocess.run(
            [CLUSTER / "bin" / "on", "login", "scontrol", "update", f"nodename={host}", "state=resume"], check=False
        )
    return state


def truncate(campaign: Campaign) -> None:
    (campaign.place / "server.json").write_text('{"host": "gp')


@pytest.mark.parametrize(
    ("fault", "servers"),
    [(kill_tunnel, 0), (truncate, 0), (kill_server, 1), (kill_supervisor, 1), (cancel, 1), (set_down, 1)],
)
def test_a_job_goes_on_after_a_fault(
    campaign: Campaign, job: Job, cluster: Cluster, fault: Callable[[Campaign], None], servers: int,
    measured: Callable[[str], None],
) -> None:  # fmt: skip
    job.ask(f"before {fault.__name__}")
    started = len(campaign.lines("START"))
    host = campaign.record()["host"]
    fault(campaign)
    if servers:
        wait_until(
            "the end of the server", lambda: not any(p.runs("stub_server.py") for p in cluster.processes(host)), 30
        )
    seconds = job.ask(f"after {fault.__name__}")
    late = Job(campaign, "login").opened()
    late.ask(f"late {fault.__name__}")
    late.end()
    measured(f"{fault.__name__}: the next answer came after {seconds:.1f} s")
    assert len(campaign.lines("START")) == started + servers
    for word in ("before", "after", "late"):
        assert len(campaign.lines(f"ASK judge {word} {fault.__name__}")) == 1
    if fault is set_down:
        # It may have come back by itself, as slurmd still runs there.
        wait_until("the node", lambda: "idle" in node_state(cluster, host) or "mixed" in node_state(cluster, host), 60)


def as_stranger(host: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """What somebody else on the cluster gets."""
    who = ["setpriv", "--reuid", str(STRANGER_ID), "--regid", str(STRANGER_ID), "--clear-groups", "env", "-i"]
    call = [CLUSTER / "bin" / "on", host, *who, "PATH=/usr/bin:/bin", *command]
    return subprocess.run(call, capture_output=True, text=True, check=False)


LOOK = """
import sys, urllib.request, urllib.error
for url in sys.argv[1:]:
    for key in (None, "Bearer EMPTY", "Bearer "):
        request = urllib.request.Request(url, headers={"Authorization": key} if key else {})
        try:
            print(urllib.request.urlopen(request, timeout=5).status)
        except urllib.error.HTTPError as error:
            print(error.code)
        except OSError as error:
            print("none")
"""


def test_a_stranger_gets_nothing(campaign: Campaign, job: Job, cluster: Cluster) -> None:
    job.ask("is it there")
    key, record = campaign.key(), campaign.record()
    for path in (campaign.place / "key", campaign.place / "server.json"):
        read = as_stranger("login", "cat", path)
        assert read.returncode == 1
        assert "Permission denied" in read.stderr
    # On the server's host, at the tunnel's end, and from another host.
    server, near = f"http://127.0.0.1:{record['port']}", job.url.removesuffix("/v1")
    paths = ("/v1/models", "/health", "/metrics", "/invocations", "/tokenize", "/milepost/usage")
    for host, base in ((record["host"], server), ("cpu01", near)):
        said = as_stranger(host, "python3", "-c", LOOK, *(base + path for path in paths)).stdout.split()
        assert said == ["401"] * 3 * len(paths), (host, said)
    addresses = dict(zip(HOSTS, ("10.77.0.1", "10.77.0.11", "10.77.0.12", "10.77.0.21"), strict=True))
    far = [f"http://{addresses[record['host']]}:{record['port']}/health"]
    far.append(f"http://{addresses['cpu01']}:{near.rpartition(':')[2]}/health")
    assert as_stranger("login", "python3", "-c", LOOK, *far).stdout.split() == ["none"] * 6
    # The socket that ssh listens on.
    listed = as_stranger("cpu01", "bash", "-c", "ls -d /tmp/milepost-*/ && ls /tmp/milepost-*/").stdout
    assert "socket" not in listed
    # Process lists, environments, logs, records.
    _, pid = campaign.supervisor()
    assert as_stranger(record["host"], "cat", f"/proc/{pid}/environ").returncode == 1
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            assert key.encode() not in path.read_bytes(), path
    kept = [path for path in campaign.folder.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert kept == [campaign.place / "key"]
    told = cluster.call_as_root("login", "scontrol", "show", "job", "--details") + "".join(
        path.read_text(errors="replace") for path in (CLUSTER / "log").glob("*.log")
    )
    assert key not in told


def test_another_server_on_its_port_is_not_sent_the_key(campaign: Campaign, job: Job) -> None:
    job.ask("before the stranger")
    listen = (
        "import http.server, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        open(sys.argv[1], 'a').write(self.path.partition('?')[0] + ' ' + str(self.headers))\n"
        '        self.send_response(200); self.end_headers(); self.wfile.write(b\'{"proof": "0", "data": []}\')\n'
        "    do_POST = do_GET\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)\n"
        "print(server.server_port, flush=True)\nserver.serve_forever()\n"
    )
    host = campaign.record()["host"]
    heard = Path("/tmp") / f"heard-{os.getpid()}"
    who = ["setpriv", "--reuid", str(STRANGER_ID), "--regid", str(STRANGER_ID), "--clear-groups"]
    fake = subprocess.Popen(
        [CLUSTER / "bin" / "on", host, *who, "python3", "-c", listen, heard], stdout=subprocess.PIPE, text=True
    )
    try:
        assert fake.stdout is not None
        port = int(fake.stdout.readline())
        record = {**campaign.record(), "attempt": "fake", "port": port}
        kill_supervisor(campaign)
        wait_until("its end", lambda: not any(p.runs("stub_server.py") for p in campaign.cluster.processes(host)), 30)
        (campaign.place / "server.json").write_text(json.dumps(record))
        late = Job(campaign, "cpu01").opened()
        late.ask("not the stranger")
        late.end()
        job.ask("nor here")
        said = heard.read_text()
        assert "/milepost/proof" in said
        assert campaign.key() not in said
        assert not re.search("(?i)authorization", said)
    finally:
        fake.kill()
        heard.unlink(missing_ok=True)


def test_it_ends_before_its_walltime_and_the_jobs_get_another(
    campaign: Campaign, measured: Callable[[str], None]
) -> None:
    campaign.stop()
    short = Job(campaign, "cpu01", time_limit_min=2).opened()
    begun = time.monotonic()
    started = len(campaign.lines("START"))
    while len(campaign.lines("START")) == started:
        short.ask(f"again {time.monotonic():.3f}")
        assert time.monotonic() - begun < 150
        time.sleep(1)
    short.ask("after the walltime")
    measured(f"walltime of 2 min: another server after {time.monotonic() - begun:.0f} s")
    short.end()
    assert "of this job's walltime are left" in (campaign.folder / "logs/endpoints/judge.log").read_text()


def test_stop_servers_leaves_nothing_behind(
    campaign: Campaign, job: Job, cluster: Cluster, measured: Callable[[str], None]
) -> None:
    job.kill()
    begun = time.monotonic()
    campaign.stop()
    left = lambda: [p.command for host in HOSTS for p in cluster.processes(host) if str(FOLDER) in p.command]  # noqa: E731
    wait_until("the end of everything", lambda: not left(), 30)
    measured(f"stop_servers: all gone after {time.monotonic() - begun:.0f} s")
    ledger = [json.loads(line) for line in (campaign.place / ".ledger.jsonl").read_text().splitlines()]
    measured(
        f"{len(ledger)} servers in all: up {sum(line['up_s'] for line in ledger):.0f} s, started in"
        f" {sum(line['start_s'] for line in ledger):.0f} s"
    )
    assert {"killed", "walltime", "stopped"} <= {line["end"] for line in ledger}

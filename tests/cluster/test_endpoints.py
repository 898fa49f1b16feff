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
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cluster import (
    ADDRESSES,
    BEGUN,
    CLUSTER,
    GPU_HOSTS,
    HOSTS,
    USER_ID,
    Cluster,
    as_stranger,
    wait_until,
)
from project import REPOSITORY, copy_environment
from strangers import Stranger

from milepost.endpoints.shared_place import SharedEndpointFolder
from milepost.runtime.processes import free_port

PATHS = ("/v1/models", "/health", "/metrics", "/invocations", "/tokenize", "/milepost/usage")
FOLDER = CLUSTER / "shared" / "endpoints"
CODE = ("Snakefile", "rules", "scripts", "profiles", "report", "config/schemas", "tests/stub_server.py", "slurm")
SITE = {"options": ["--account=proj1", "--partition=main", "--mem=2000", "--time=10"], "gpu_model": "A40"}
# As a step that scores: what is answered is kept in a file, and not asked again.
CLIENT = """
import asyncio, logging, sys, time
from pathlib import Path
from milepost.endpoints.calls import Calls
from milepost.endpoints.open import open_endpoint
from milepost.endpoints.specs import load_endpoints
from milepost.errors import run_step

async def play():
    spec = load_endpoints()["judge"]
    asked = {"concurrency": 4, "timeout_s": 120.0, "retries": 5}
    async with (
        open_endpoint(spec) as endpoint,
        Calls(endpoint, Path(sys.argv[1]), identity=spec.identity, **asked) as calls,
    ):
        print("open", endpoint.url, flush=True)
        # In a thread: the tunnel lives in this loop.
        while line := await asyncio.to_thread(sys.stdin.readline):
            begun = time.perf_counter()
            reply = await calls.post("/completions", {"model": endpoint.model, "prompt": line.strip(), "seed": 1})
            print(reply["choices"][0]["text"], time.perf_counter() - begun, flush=True)

logging.basicConfig(level=logging.INFO)
run_step(lambda: asyncio.run(play()))
"""


class Job:
    """A client as alice runs it on a host.

    Args:
        campaign: Whose endpoint it needs.
        host: Where it runs.
        time_limit_min: Walltime of the server, should this client submit it.
        kept: Its file of answers; a new one if None.
    """

    numbers = count()

    def __init__(self, campaign: Campaign, host: str, time_limit_min: int = 10, kept: Path | None = None) -> None:
        BEGUN.append(self.kill)
        site = {**SITE, "options": [*SITE["options"][:-1], f"--time={time_limit_min}"]}
        number = next(self.numbers)
        self.kept = kept or campaign.folder / f"kept/{number}.jsonl"
        self._log = campaign.folder / f"client-{number}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [CLUSTER / "bin" / "as", host, "env", "-C", campaign.folder, *campaign.variables,
                 f"MILEPOST_SBATCH={json.dumps(site)}", campaign.python, "-c", CLIENT, self.kept],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.url = ""

    def said(self) -> str:
        """What the client logged so far."""
        return self._log.read_text()

    def opened(self) -> Job:
        """Wait until it has its endpoint."""
        assert self._process.stdout is not None
        word, _, self.url = self._process.stdout.readline().strip().partition(" ")
        assert word == "open", self.said()
        return self

    def ask(self, question: str) -> float:
        """Have the client ask once; returns the seconds until the answer."""
        self.begin(question)
        return self.answer(question)

    def begin(self, question: str) -> None:
        """Have the client ask once, without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()

    def answer(self, question: str) -> float:
        """Wait for the answer to an earlier question; returns the seconds that it took."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(f"{question}, said"), line or self.said()
        return float(line.split()[-1])

    def kill(self) -> None:
        """Kill the client with signal 9, as a node that fails would."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Have the client end, as a job that has nothing more to ask."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0, self.said()


class Campaign:
    """A campaign of alice with one shared endpoint, and a copy of the code with the stand-in as its vLLM."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.folders_before = folders()
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
        # Servers of tests have walltimes of minutes.
        (self.folder / "config/config.yaml").write_text("tasks: [any]\nwalltime_margin_s: 35\n")
        self.write(idle_s=600)
        os.chown(self.folder, USER_ID, USER_ID)
        self.variables = [f"STUB_LOG={self.folder}/stub.log", f"PYTHONPATH={FOLDER}/scripts"]

    def write(self, **options: Any) -> None:
        """The endpoint, as the configuration has it."""
        judge = {"provider": "shared", "model": "model", "gpus": 1, "start_timeout_s": 60, "retries": 8, **options}
        (self.folder / "config/endpoints.yaml").write_text(yaml.safe_dump({"judge": judge}))

    def slow(self, seconds: float) -> None:
        """How long the server takes for an answer from now on."""
        (self.folder / "model/stub.faults").write_text(f"slow {seconds}\n" if seconds else "")

    @property
    def place(self) -> Path:
        """The endpoint's folder, with its key and its record."""
        return self.folder / "results/endpoints/judge"

    def record(self) -> dict[str, Any]:
        """The server's record: its host, port and process."""
        return dict(json.loads((self.place / "server.json").read_text()))

    def secret(self) -> str:
        """What the key of each start is made of."""
        return str(json.loads((self.place / "key").read_text())["key"])

    def key(self) -> str:
        """The server's."""
        return SharedEndpointFolder(self.place, self.secret(), "judge").key_of(self.record()["attempt"])

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
    wait_until("a server's job", (campaign.place / "submitted.json").exists, 60, every_s=0.1)
    (first,) = (one for one in jobs if "submitted job" in one.said())
    first.kill()
    rest = [one for one in jobs if one is not first]
    for number, one in enumerate(rest):
        one.opened().ask(f"forty {number}")
    measured(
        f"40 jobs at once, the one that submitted the server killed: all others answered after {time.monotonic() - begun:.0f} s,"
        f" by {len(campaign.lines('START'))} server"
    )
    for number, one in enumerate(rest):
        one.kill() if number % 2 else one.end()
    assert len(campaign.lines("START")) == 1
    assert sorted(campaign.lines("ASK judge forty")) == sorted(f"ASK judge forty {i} seed=1" for i in range(39))
    wait_until("the end of their tunnels", lambda: not tunnels("cpu01") and not tunnels("login"), 20)
    wait_until("the end of their tunnels' folders", lambda: not folders() - campaign.folders_before, 20)


def test_the_latency_that_the_tunnel_adds(campaign: Campaign, job: Job, measured: Callable[[str], None]) -> None:
    near = Job(campaign, campaign.record()["host"]).opened()
    medians = [statistics.median(one.ask(f"latency {i}") for i in range(100)) for one in (near, job)]
    near.end()
    measured(
        f"a request on the server's host takes {1000 * medians[0]:.1f} ms, through the tunnel {1000 * medians[1]:.1f} ms"
    )
    assert medians[1] - medians[0] < 0.1


def tunnels(host: str) -> list[int]:
    """Living ssh processes of alice."""
    return [process.pid for process in Cluster().processes(host) if process.command.startswith("ssh ")]


def folders() -> set[str]:
    """Folders of alice's tunnels, which all hosts share here."""
    found = set()
    for path in Path("/tmp").glob("milepost-????????"):
        with suppress(FileNotFoundError):
            if path.stat().st_uid == USER_ID:
                found.add(path.name)
    return found


def kill_tunnel(campaign: Campaign) -> None:
    """Run a command as alice on the client's host."""
    found = tunnels("cpu01")
    assert found
    for pid in found:
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
    """Set the server's node down in SLURM, as when it breaks."""
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
    campaign.slow(4)
    job.begin(f"during {fault.__name__}")
    wait_until("the question", lambda: campaign.lines(f"ASK judge during {fault.__name__}"), 20, every_s=0.1)
    begun = time.monotonic()
    fault(campaign)
    campaign.slow(0)
    job.answer(f"during {fault.__name__}")
    seconds = time.monotonic() - begun
    job.ask(f"after {fault.__name__}")
    late = Job(campaign, "login").opened()
    late.ask(f"late {fault.__name__}")
    late.end()
    measured(f"{fault.__name__}: what was under way was answered after {seconds:.1f} s")
    assert len(campaign.lines("START")) == started + servers
    for word in ("before", "after", "late"):
        assert len(campaign.lines(f"ASK judge {word} {fault.__name__}")) == 1
    # What was under way was not answered, and is asked again; what the fault did not touch is not.
    assert len(campaign.lines(f"ASK judge during {fault.__name__}")) == (1 if fault is truncate else 2)
    if fault is set_down:
        # It may have come back by itself, as slurmd still runs there.
        wait_until("the node", lambda: "idle" in node_state(cluster, host) or "mixed" in node_state(cluster, host), 60)


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
    # On the server's host there is a socket that he cannot reach, and no port; at the tunnel's end he lacks the key.
    reached = as_stranger(record["host"], "python3", "-c", CONNECT, record["socket"])
    assert "Permission denied" in reached.stderr
    near = job.url.removesuffix("/v1")
    said = as_stranger("cpu01", "python3", "-c", LOOK, *(near + path for path in PATHS)).stdout.split()
    assert said == ["401"] * 3 * len(PATHS), said
    far = [f"http://{ADDRESSES['cpu01']}:{near.rpartition(':')[2]}/health"]
    assert as_stranger("login", "python3", "-c", LOOK, *far).stdout.split() == ["none"] * 3
    # The sockets of the server and of ssh.
    listed = as_stranger("cpu01", "bash", "-c", "ls -d /tmp/milepost-*/ && ls /tmp/milepost-*/").stdout
    assert "socket" not in listed
    # Process lists, environments, logs, records.
    _, pid = campaign.supervisor()
    assert as_stranger(record["host"], "cat", f"/proc/{pid}/environ").returncode == 1
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            assert key.encode() not in path.read_bytes(), path
    for secret, files in ((key, []), (campaign.secret(), [campaign.place / "key"])):
        kept = [path for path in campaign.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert kept == files
    told = cluster.call_as_root("login", "scontrol", "show", "job", "--details") + "".join(
        path.read_text(errors="replace") for path in (CLUSTER / "log").glob("*.log")
    )
    assert key not in told


CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"

# A port of loopback that leads to a server's socket, as a forwarding of ssh does.
LEADS = """
import asyncio, sys
async def carry(reader, writer):
    far = await asyncio.open_unix_connection(sys.argv[2])
    async def pump(source, target):
        while data := await source.read(65536):
            target.write(data)
        target.close()
    await asyncio.gather(pump(reader, far[1]), pump(far[0], writer), return_exceptions=True)
async def play():
    async with await asyncio.start_server(carry, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(play())
"""


def test_what_is_wrong_with_an_endpoint_is_one_paragraph_within_30_s(
    campaign: Campaign, job: Job, measured: Callable[[str], None]
) -> None:
    job.ask("before the others")
    record, port = campaign.record(), free_port()
    who = ["setpriv", "--reuid", str(USER_ID), "--regid", str(USER_ID), "--clear-groups"]
    leads = subprocess.Popen(
        [CLUSTER / "bin" / "on", record["host"], *who, "python3", "-c", LEADS, str(port), record["socket"]]
    )
    # As whoever publishes it tells it.
    (Path(record["socket"]).parent / "published").write_text(f"published {port}")
    folder = campaign.folder / "others"
    (folder / "config").mkdir(parents=True)
    for name, text in {
        "port": str(port), "nobody": "9", "rubbish": "\x1b[2J<html>", "key": campaign.key(), "wrong": "sk-not-it",
    }.items():  # fmt: skip
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
        os.chown(folder / name, USER_ID, USER_ID)
    os.chown(folder, USER_ID, USER_ID)
    common = {"provider": "external", "host": record["host"], "port_file": "port", "key_file": "key", "model": "judge"}
    wrong = {name: {key: value for key, value in {**common, **changes}.items() if value} for name, changes, _ in WRONG}
    (folder / "config/endpoints.yaml").write_text(yaml.safe_dump(wrong))
    (folder / "config/config.yaml").write_text("tasks: [any]\n")
    begun = time.monotonic()
    checks = [
        subprocess.Popen(
            [CLUSTER / "bin" / "as", "cpu01", "env", "-C", folder, *campaign.variables, campaign.python,
             FOLDER / "scripts/check_endpoint.py", "--endpoint", name],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name, _, _ in WRONG
    ]  # fmt: skip
    for check, (name, _, expected) in zip(checks, WRONG, strict=True):
        said, error = check.communicate(timeout=40)
        seconds = time.monotonic() - begun
        assert re.search(expected, said + error), (name, said, error)
        assert check.returncode == (0 if name == "right" else 1), (name, said, error)
        assert len((said + error).splitlines()) == 1, (name, said, error)
        assert "\x1b" not in error
        assert campaign.key() not in said + error
        assert "sk-not-it" not in said + error
        assert seconds < 30, name
    measured(
        f"{len(WRONG) - 1} wrong endpoints, each asked by a job: the last said what is wrong after {seconds:.0f} s"
    )
    shutil.rmtree(folder)
    leads.kill()
    leads.wait()


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("right", {}, r"endpoint right: ok\. It is judge"),
    ("wrong_key", {"key_file": "wrong"}, r"refused the key in wrong \(401\)\. Correct the key"),
    ("wrong_model", {"model": "qwen"}, r"reports no model 'qwen'\. It reports: judge, judge-.* Nothing was asked"),
    ("rubbish", {"port_file": "rubbish"}, r"its port file rubbish holds no port but '\?\[2J<html>'"),
    ("missing", {"port_file": "none"}, r"its port file none cannot be read"),
    ("nobody", {"port_file": "nobody"}, r"nobody listens on the port that nobody names, on gpu0"),
    ("unreachable", {"host": "10.77.0.99"}, r"tunnel to 10\.77\.0\.99 could not be opened: .*ssh said: .*(No route to host|timed out)"),
    ("no_name", {"host": "gpu99"}, r"tunnel to gpu99 could not be opened: no host has this name"),
    ("password", {"host": "root@gpu01"}, r"tunnel to root@gpu01 could not be opened: it wants a password or a key that ssh does not"),
    ("no_way", {"url": "http://10.77.0.99:8000/v1", "host": None, "port_file": None}, r"10\.77\.0\.99:8000/v1 could not be reached"),
]  # fmt: skip


def test_nothing_that_was_answered_is_asked_again(campaign: Campaign, job: Job) -> None:
    job.end()
    asked = campaign.lines("ASK")
    again = Job(campaign, "login", kept=job.kept).opened()
    for question in ("before kill_server", "during kill_server", "after kill_server"):
        again.ask(question)
    again.end()
    assert campaign.lines("ASK") == asked


def test_it_ends_before_its_walltime_and_the_jobs_get_another(
    campaign: Campaign, measured: Callable[[str], None]
) -> None:
    campaign.stop()
    started = len(campaign.lines("START"))
    short = Job(campaign, "cpu01", time_limit_min=1).opened()
    begun = time.monotonic()
    questions = 0
    while len(campaign.lines("START")) == started + 1:
        short.ask(f"again {questions}")
        questions += 1
        assert time.monotonic() - begun < 90
        time.sleep(1)
    short.ask("after the walltime")
    measured(f"walltime of 1 min, with 35 s of it kept: another server after {time.monotonic() - begun:.0f} s")
    short.end()
    assert "of this job's walltime are left" in (campaign.folder / "logs/endpoints/judge.log").read_text()
    assert len(campaign.lines("ASK judge again")) == questions


def test_a_site_may_have_it_reached_directly(campaign: Campaign, measured: Callable[[str], None]) -> None:
    campaign.stop()
    campaign.write(reach="direct")
    far = Job(campaign, "cpu01").opened()
    far.ask("directly")
    record = campaign.record()
    direct = record["direct"]
    assert direct["address"] == ADDRESSES[record["host"]]
    assert tunnels("cpu01") == []
    median = statistics.median(far.ask(f"direct {i}") for i in range(100))
    measured(f"a request from another host without a tunnel takes {1000 * median:.1f} ms")
    # Everybody reaches the port now, and nobody gets a connection without the certificate; on loopback nothing listens.
    for scheme in ("http", "https"):
        base = f"{scheme}://{direct['address']}:{direct['port']}"
        for host in ("login", record["host"]):
            said = as_stranger(host, "python3", "-c", LOOK, *(base + path for path in PATHS[:2])).stdout.split()
            assert said == ["none"] * 6, (host, said)
    near = f"http://127.0.0.1:{direct['port']}/health"
    assert as_stranger(record["host"], "python3", "-c", LOOK, near).stdout.split() == ["none"] * 3
    kill_server(campaign)
    far.ask("directly again")
    far.end()


def test_whoever_takes_its_port_is_not_sent_the_key(campaign: Campaign) -> None:
    # As `reach: direct` is still asked for: a server at a socket has no port that could be taken.
    job = Job(campaign, "cpu01").opened()
    job.ask("before the stranger")
    record, port = campaign.record(), campaign.record()["direct"]["port"]
    secrets = [campaign.key(), campaign.secret(), "the stranger's"]
    with Stranger(record["host"]) as stranger:
        # Nothing is left of it but its record, which leads to the port.
        kill_supervisor(campaign)
        taken = ["after its owner", port, record["direct"]["address"]]
        wait_until("the stranger", lambda: taken in stranger.saw("took"), 90, every_s=0.1)
        assert campaign.record() == record
        job.ask("not the stranger's")
        assert campaign.record()["attempt"] != record["attempt"]
        # Also one that finds a record that leads there.
        (campaign.place / "server.json").write_text(json.dumps(record))
        late = Job(campaign, "cpu01").opened()
        late.ask("nor late the stranger's")
        late.end()
        job.end()
        assert port in [there for there, _ in stranger.saw("met")], "we have tried to reach our server there"
        assert [there for there, _ in stranger.saw("heard") if there == port] == []
    stranger.check(secrets)


def test_whoever_takes_a_published_port_is_not_sent_the_key(campaign: Campaign, cluster: Cluster) -> None:
    campaign.stop()
    folder = campaign.folder / "class"
    shared = {name: str(folder / name) for name in ("port_file", "key_file")}
    campaign.write(publish={"host": "login", **shared})
    (folder / "config").mkdir(parents=True)
    (folder / "config/config.yaml").write_text("tasks: [any]\n")
    member = {"provider": "external", "model": "judge", "host": "login", **shared, "key_file": str(folder / "own")}
    (folder / "config/endpoints.yaml").write_text(yaml.safe_dump({"judge": member}))
    os.chown(folder, USER_ID, USER_ID)
    serve = ["srun", *SITE["options"], "--gres=gpu:1", "env", "-C", campaign.folder, *campaign.variables,
             f"PATH={Path(campaign.python).parent}:/usr/bin:/bin", campaign.python, FOLDER / "scripts/serve_shared.py",
             "--endpoint", "judge", "--kept"]  # fmt: skip
    server = subprocess.Popen([CLUSTER / "bin/as", "login", *serve], stderr=subprocess.DEVNULL)
    try:
        wait_until("the published port", (folder / "port_file").exists, 60, every_s=0.1)
        cluster.call("login", "install", "-m", "600", folder / "key_file", folder / "own")
        host, port, key = campaign.record()["host"], int((folder / "port_file").read_text()), campaign.key()
        with Stranger("login") as stranger:
            member_of_it = SimpleNamespace(folder=folder, variables=campaign.variables, python=campaign.python)
            job = Job(member_of_it, "cpu01").opened()  # type: ignore[arg-type]
            job.ask("before the port is taken")
            ways = [one for one in cluster.processes(host) if one.command.startswith("ssh ") and " -R " in one.command]
            os.kill(ways[0].pid, signal.SIGKILL)
            taken = ["after its owner", port, "127.0.0.1"]
            wait_until("the stranger", lambda: taken in stranger.saw("took"), 90, every_s=0.1)
            # Its own ssh still leads to the old port, where the stranger passes on proofs of the server at its new one.
            job.ask("after the port was taken")
            job.end()
            assert port in [there for there, _ in stranger.saw("heard")], "he was asked for a proof"
        stranger.check([key, campaign.secret(), "port is taken", "port was taken"])
    finally:
        campaign.stop()
        server.wait(60)
    assert not (folder / "key_file").exists()
    shutil.rmtree(folder)


def test_stop_servers_leaves_nothing_behind(
    campaign: Campaign, cluster: Cluster, measured: Callable[[str], None]
) -> None:
    begun = time.monotonic()
    campaign.stop()
    left = lambda: [process.command for host in HOSTS for process in cluster.processes(host)]  # noqa: E731
    wait_until("the end of everything", lambda: not left() and not cluster.queue(), 30)
    measured(f"stop_servers: all gone after {time.monotonic() - begun:.0f} s")
    assert folders() <= campaign.folders_before
    here = {path.name for path in campaign.place.iterdir()}
    assert here <= {".ledger.jsonl", "stop", "failed.json"}, (
        "the endpoint's folder was to be empty: no key, no record, no lease"
    )
    ledger = [json.loads(line) for line in (campaign.place / ".ledger.jsonl").read_text().splitlines()]
    measured(
        f"{len(ledger)} servers in all: up {sum(line['up_s'] for line in ledger):.0f} s, started in"
        f" {sum(line['start_s'] for line in ledger):.0f} s"
    )
    assert len(ledger) == len(campaign.lines("START"))
    assert {"killed", "walltime", "stopped"} <= {line["end"] for line in ledger}

"""The workshop from start to end, as docs/workshop/README.md prints it, and what a stranger finds of its server.

The commands are the page's own: alice is the teacher, bob a participant on a host without a GPU. The teacher's server and
those of exercise (c) are real ones, of vLLM's CPU build. The tests follow each other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import (
    ADDRESSES,
    BEGUN,
    CLUSTER,
    GPU_HOSTS,
    HOSTS,
    OTHER_USER_ID,
    STRANGER_ID,
    USER_ID,
    Cluster,
    as_stranger,
    wait_until,
)
from project import REPOSITORY, copy_project

from milepost.endpoints.shared_place import SharedEndpointFolder

PAGE = (REPOSITORY / "docs/workshop/README.md").read_text()
SHARED = CLUSTER / "shared" / "workshop"
MILEPOST = SHARED / "milepost"
ALICE, BOB = CLUSTER / "home/alice", CLUSTER / "home/bob"
TEACHER, WORKSHOP = ALICE / "teacher", BOB / "workshop"
# What the page says of no site in particular, and what it is here.
HERE = {"alvis2": "login", "/shared/workshop": str(SHARED), "/models/Qwen3-8B": f"{MILEPOST}/demo/model/step-400"}
WALLTIME_MIN = 17  # a warning comes 16 minutes before the end, so a minute after the start


def blocks(heading: str) -> list[tuple[str, str]]:
    """Kind and text of the page's blocks below a heading: `bash` is typed, one of no kind is what then appears."""
    _, found, rest = PAGE.partition(f"\n## {heading}")
    assert found, f"the page has no heading {heading!r}"
    section = rest.partition("\n## ")[0]
    for there, here in HERE.items():
        section = section.replace(there, here)
    return re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def commands(heading: str) -> list[str]:
    """The commands of a section of the page, as a participant types them."""
    return [text for kind, text in blocks(heading) if kind == "bash"]


def assert_shown(heading: str, said: str) -> None:
    """What the page says will appear has appeared, line after line.

    Numbers may be others, columns wider, and `...` is anything.
    """
    at = 0
    for line in "".join(text for kind, text in blocks(heading) if not kind).splitlines():
        pattern = re.sub(r"\d+(?:\\\.\d+)?", lambda _: r"\d+(?:\.\d+)?", re.escape(line).replace(r"\.\.\.", ".*"))
        found = re.compile(re.sub(r"(?:\\ )+", " +", pattern)).search(said, at)
        assert found, f"not shown: {line}\n{said[-4000:]}"
        at = found.end()


class Terminal:
    """Commands of a user on a host; what they say goes into a file."""

    started = 0

    def __init__(self, user: str, host: str, *script: str) -> None:
        Terminal.started += 1
        BEGUN.append(self.end)
        self._said = SHARED.parent / f"terminal-{Terminal.started}.log"
        with self._said.open("wb") as log:
            self.process = subprocess.Popen(
                # A program that runs in the background has its Ctrl-C ignored, and a terminal's have not.
                ["env", "--default-signal=INT", CLUSTER / "bin/as", host, "bash", "-euo", "pipefail", "-c",
                 "\n".join(script)],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "CLUSTER_USER": user},
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        """What the commands have printed so far."""
        return self._said.read_text(errors="replace")

    def finish(self, within_s: float = 200) -> str:
        """Wait until the commands end with exit code 0; returns all that they printed."""
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {within_s:.0f} s:\n{self.said[-4000:]}") from None
        assert code == 0, self.said[-4000:]
        return self.said

    def end(self) -> None:
        """End the commands, if they still run."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def write_site() -> None:
    """What the teacher fills in: the profile, and the options of a small model on vLLM's CPU build."""
    path = MILEPOST / "profiles/slurm/config.yaml"
    profile = yaml.safe_load(path.read_text())
    profile["slurm-init-seconds-before-status-checks"] = 2
    profile["default-resources"] |= {"slurm_account": "'proj1'", "slurm_partition": "'main'", "constraint": "'NOGPU'"}
    for rule in ("evaluate_checkpoint", "serve_shared"):
        profile["set-resources"][rule] |= {
            "gpu_model": "'A40' if gpus(wildcards) else ''",
            "constraint": "None if gpus(wildcards) else 'NOGPU'",
            "mem_mb": 16000,
            "cpus_per_task": 4,
        }
    profile["set-resources"]["serve_shared"]["runtime"] = WALLTIME_MIN
    path.write_text(yaml.safe_dump(profile))
    tiny = yaml.safe_load((MILEPOST / "docs/workshop/c-campaign/config/config.yaml").read_text())["model_profiles"][
        "tiny"
    ]
    path = MILEPOST / "docs/workshop/teacher/config/endpoints.yaml"
    endpoints = yaml.safe_load(path.read_text())
    endpoints["judge"] |= {"vllm_args": tiny["vllm_args"], "env": tiny["env"]}
    path.write_text(yaml.safe_dump(endpoints))


class Workshop:
    """Who sits where, and the teacher's server."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.begun = time.monotonic()
        for folder in (SHARED, TEACHER, WORKSHOP):
            shutil.rmtree(folder, ignore_errors=True)
        SHARED.mkdir(parents=True)
        copy_project(MILEPOST)
        for name in ("docs/workshop", "core_evals", "demo/model", "demo/data"):
            shutil.copytree(REPOSITORY / name, MILEPOST / name, symlinks=True)
        write_site()
        shutil.chown(SHARED, USER_ID, 5100)
        SHARED.chmod(0o2750)
        (serve, self.stop) = commands("The teacher")
        self.teacher = Terminal("alice", "login", serve)
        self.terminals = [self.teacher]

    def open(self, *script: str) -> Terminal:
        """A participant's terminal."""
        new, _ = commands("Each participant")
        self.terminals.append(Terminal("bob", "cpu01", new, *script))
        return self.terminals[-1]

    @property
    def log(self) -> str:
        """The log of the teacher's server."""
        path = TEACHER / "logs/serve_shared.log"
        return path.read_text() if path.exists() else ""

    @property
    def record(self) -> dict[str, Any]:
        """Where the server is."""
        return dict(json.loads((TEACHER / "results/endpoints/judge/server.json").read_text()))

    @property
    def key(self) -> str:
        """The server's."""
        place = TEACHER / "results/endpoints/judge"
        secret = str(json.loads((place / "key").read_text())["key"])
        return SharedEndpointFolder(place, secret, "judge").key_of(self.record["attempt"])

    def end(self) -> None:
        """End everything that the class has started."""
        for terminal in self.terminals:
            terminal.end()
        for user in ("alice", "bob"):
            self.cluster.call("login", "scancel", f"--user={user}", env={"CLUSTER_USER": user})


@pytest.fixture(scope="module")
def workshop(cluster: Cluster) -> Iterator[Workshop]:
    made = Workshop(cluster)
    yield made
    made.end()


@pytest.fixture(scope="module")
def key(workshop: Workshop) -> str:
    """The server's key, also when it has gone."""
    return workshop.key


def test_the_teacher_serves_on_a_gpu_node(workshop: Workshop, measured: Callable[[str], None]) -> None:
    def published() -> bool:
        assert workshop.teacher.process.poll() is None, workshop.teacher.said + workshop.log
        return (SHARED / "port").exists()

    wait_until("the port of the teacher's server", published, 200)
    assert_shown("The teacher", workshop.log)
    measured(
        f"the workshop's server can be used {time.monotonic() - workshop.begun:.0f} s after the teacher's first copy"
    )
    ((job, _, host),) = workshop.cluster.queue()
    said = workshop.cluster.call("login", "scontrol", "show", "job", job)
    given = {name: value for name, _, value in (word.partition("=") for word in said.split())}
    assert host == given["NodeList"] == workshop.record["host"]
    assert host in GPU_HOSTS
    assert given["TresPerJob"].endswith("gpu:A40:1"), "as the profile says"
    assert (given["TimeLimit"], given["Account"]) == (f"00:{WALLTIME_MIN}:00", "proj1")
    assert (given["MinMemoryNode"], given["CPUs/Task"]) == ("16000M", "4")
    for name in ("port", "key"):
        path = SHARED / name
        assert (path.stat().st_mode & 0o777, path.stat().st_uid, path.stat().st_gid) == (0o640, USER_ID, 5100)


@pytest.fixture(scope="module")
def campaign(workshop: Workshop) -> Terminal:
    """Exercise (c), in a terminal of its own: its servers' start takes a minute or two."""
    _, once = commands("Each participant")
    assert workshop.open(once).finish(30) == ""
    assert ((BOB / ".workshop-key").stat().st_mode & 0o777, (BOB / ".workshop-key").read_text().strip()) == (
        0o600,
        workshop.key,
    )
    return workshop.open(*commands("(c)"))


def test_a_the_tunnel_by_hand(workshop: Workshop, campaign: Terminal) -> None:
    said = workshop.open(*commands("(a)")).finish(60)
    assert_shown("(a)", said)
    assert f"port {(SHARED / 'port').read_text().strip()} of login leads here" in said
    assert "without the key: 401\nwith the key: judge\n" in said


def test_b_nemo_evaluator(workshop: Workshop, campaign: Terminal) -> None:
    said = workshop.open(*commands("(b)")).finish(120)
    assert_shown("(b)", said)
    ran = yaml.safe_load((WORKSHOP / "b-results/run.yml").read_text())
    url = ran["target"]["api_endpoint"]["url"]
    assert url.endswith("/v1/chat/completions")
    assert url in (WORKSHOP / "b-results/log").read_text(), "the file that was written is the one that ran"
    (task,) = yaml.safe_load((WORKSHOP / "b-results/results.yml").read_text())["results"]["tasks"].values()
    score = task["metrics"]["exact_match"]["scores"]["exact_match"]
    assert score["stats"]["count"] == 10
    assert 0.2 < score["value"] < 0.8, "it has learned to add one digit, and no more"
    assert f"exact_match: {score['value']:.3f}" in said


def answers(path: Path) -> list[str]:
    """Ids of the items that were answered."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert not [line for line in lines if "error" in line]
    return [line["id"] for line in lines]


def test_d_a_task_of_ones_own(workshop: Workshop, campaign: Terminal) -> None:
    ask, add = commands("(d)")
    said = workshop.open(ask).finish()
    assert_shown("(d)", said)
    store = WORKSHOP / "d-task/results/store/judge"
    (file,) = store.glob("arithmetic*.jsonl")
    before = file.read_text()
    assert len(answers(WORKSHOP / "d-task/results/answers/judge/arithmetic.jsonl")) == 40
    said = workshop.open(f"cd {WORKSHOP}/d-task", add).finish()
    assert re.search(r"judge .*\d", said), "the table of scores"
    assert answers(WORKSHOP / "d-task/results/answers/judge/arithmetic.jsonl").count("mine") == 4
    after = file.read_text()
    assert after.startswith(before)
    assert after.count("\n") == before.count("\n") + 4, "what was answered is not asked again"
    assert [json.loads(line)["gpus"] for line in (store / ".ledger.jsonl").read_text().splitlines()] == [0, 0]


# Paths that servers of models have had, beside those that this one lists.
UNLISTED = """/ /docs /docs/oauth2-redirect /redoc /openapi.json /health /ping /load /version /metrics /metrics/ /server_info
/invocations /tokenize /detokenize /pooling /classify /score /rerank /embeddings /generate /v1 /v1/ /v1/models
/v1/models/judge /v1/completions /v1/chat/completions /v1/completions/render /v1/chat/completions/render /v1/messages
/v1/messages/count_tokens /v1/responses /v1/responses/x /v1/embeddings /v1/score /v1/rerank /v2/rerank /v2/embed
/v1/audio/transcriptions /v1/audio/translations /v1/realtime /inference/v1/generate /v1/load_lora_adapter
/v1/unload_lora_adapter /sleep /wake_up /is_sleeping /reset_prefix_cache /reset_mm_cache /collective_rpc /start_profile
/stop_profile /scale_elastic_ep /pause /resume /is_paused /init_weight_transfer_engine /update_weights /get_world_size
/abort_requests /tokenizer_info /hf_overrides //v1/models /V1/models /v1/../v1/models /%76%31/models /milepost/usage
/milepost/proof /milepost/proof?0 /milepost/ /milepost""".split()

# Prints what each request to loopback was answered: a status, or "none" where nobody took it.
LOOK = """
import http.client, json, sys
host, port, requests = json.load(sys.stdin)
connection = http.client.HTTPConnection(host, port, timeout=10)

def ask(method, path, headers):
    body = json.dumps({"model": "judge", "prompt": "a", "messages": [{"role": "user", "content": "a"}]}) if method == "POST" else None
    connection.request(method, path, body, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    return [response.status, response.read().decode(errors="replace")]

told = []
for request in requests:
    for last in (False, True):
        try:
            told.append(ask(*request))
            break
        except (OSError, http.client.HTTPException):
            # The server may have closed the connection after the answer before.
            connection.close()
            if last:
                told.append(["none", ""])
print(json.dumps(told))
"""

Request = tuple[str, str, dict[str, str]]


class Look:
    """What somebody gets who sends requests from a host."""

    def __init__(self, user_id: int, host: str, address: str, port: int, requests: list[Request]) -> None:
        who = ["setpriv", "--reuid", str(user_id), "--regid", str(user_id), "--clear-groups", "env", "-i"]
        self.requests = requests
        self._process = subprocess.Popen(
            [CLUSTER / "bin/on", host, *who, "PATH=/usr/bin:/bin", "python3", "-c", LOOK],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([address, port, requests]))
        self._process.stdin.close()

    def answers(self) -> list[tuple[Any, str]]:
        """Send all requests; returns status and body of each reply."""
        assert self._process.stdout is not None
        return [(status, body) for status, body in json.load(self._process.stdout)]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


WRONG: list[dict[str, str]] = [
    {},
    bearer("EMPTY"),
    bearer("judge"),
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer"},
]
UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


def routes(workshop: Workshop) -> list[str]:
    """All that vLLM's server says it has, and what it does not say."""
    port = int((SHARED / "port").read_text())
    asked: list[Request] = [
        ("GET", "/openapi.json", bearer(workshop.key)), ("GET", "/v1/models", bearer(workshop.key)),
        ("POST", "/v1/chat/completions", bearer(workshop.key)), ("POST", "/invocations", bearer(workshop.key)),
        ("POST", "/v1", bearer(workshop.key)),
    ]  # fmt: skip
    (listed, *rest) = Look(USER_ID, "login", "127.0.0.1", port, asked).answers()
    # The teacher, with the key, is let through on the paths on which a stranger is not.
    assert [status for status, _ in rest] == [200, 200, 200, 404]
    paths = [re.sub(r"\{.*?\}", "x", path) for path in json.loads(listed[1])["paths"]]
    assert len(paths) > 20, "vLLM's own"
    return sorted({*paths, *UNLISTED})


def test_a_stranger_is_refused_on_every_route(
    workshop: Workshop, campaign: Terminal, measured: Callable[[str], None]
) -> None:
    port = int((SHARED / "port").read_text())
    # A participant has a tunnel open meanwhile.
    (command,) = commands("(a)")
    held = workshop.open(f"{command.strip()} cat")
    wait_until("a participant's tunnel", lambda: "answered" in held.said, 60, 0.1)
    found = re.search(r"leads here as port (\d+)", held.said)
    assert found
    near = int(found[1])
    paths = routes(workshop)
    requests: list[Request] = [
        *((method, path, given) for path in paths for method in ("GET", "POST") for given in WRONG),
        *((method, path, {}) for path in paths for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")),
        *(("GET", path, UPGRADE) for path in paths),
        # A key in another place is none.
        ("GET", "/v1/models?api_key=EMPTY", {}),
        ("GET", "/v1/models", {"X-Api-Key": "EMPTY"}),
    ]
    ends = ("login", port), ("cpu01", near)
    looks = [Look(STRANGER_ID, host, "127.0.0.1", at, requests) for host, at in ends]
    for (host, _), look in zip(ends, looks, strict=True):
        for request, (status, body) in zip(requests, look.answers(), strict=True):
            # A refused websocket is closed before it is opened, which is 403.
            assert status == 401 or (request[2] is UPGRADE and status == 403), (host, request, status, body)
    measured(f"a stranger was refused {2 * len(requests)} times, on {len(paths)} paths")
    # The one answer that there is, as docs/security.md says, tells nothing but that the server knows the key.
    for host, at in ends:
        ((status, body),) = Look(
            STRANGER_ID, host, "127.0.0.1", at, [("GET", f"/milepost/proof?{'0' * 32}", {})]
        ).answers()
        assert (status, list(json.loads(body))) == (200, ["nonce", "proof"])
        assert workshop.key not in body
    # From other hosts there is nobody at any of the ends.
    for host, at in ends:
        for other in set(HOSTS) - {host}:
            look = Look(STRANGER_ID, other, ADDRESSES[host], at, [("GET", "/health", {})])
            assert look.answers() == [("none", "")], (other, host, at)
    held.end()


def test_c_a_campaign_over_three_checkpoints(
    workshop: Workshop, campaign: Terminal, measured: Callable[[str], None]
) -> None:
    assert_shown("(c)", campaign.finish(240))
    folder = WORKSHOP / "c-campaign"
    values = []
    for step in (100, 200, 400):
        summary = json.loads((folder / f"results/summaries/step-{step}/sums.json").read_text())
        assert (summary["n_items"], summary["n_samples"], summary["n_errors"]) == (100, 200, 0)
        values.append(summary["value"])
        (line,) = (folder / f"results/store/step-{step}/.ledger.jsonl").read_text().splitlines()
        assert json.loads(line)["end"] == "done"
    assert values[0] < values[2]
    assert (folder / "results/report.html").stat().st_size > 10_000
    measured(f"exercise (c): sums after 100, 200 and 400 steps: {values}")


def test_e_reading_an_interval(workshop: Workshop, campaign: Terminal) -> None:
    said = workshop.open(*commands("(e)")).finish(30)
    assert_shown("(e)", said)
    for path, items in (
        ("d-task/results/summaries/judge/arithmetic.json", 11),
        ("c-campaign/results/summaries/step-400/sums.json", 100),
    ):
        summary = json.loads((WORKSHOP / path).read_text())
        low, high = summary["ci95"]
        assert (
            f"score {summary['value']:.3f}, standard error {summary['stderr']:.3f}, 95 % interval from {low:.3f} to {high:.3f}\n"
            f"{summary['n_samples']} answers to {items} items" in said
        )


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder, environments aside."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "envs"]
        yield from (path for name in names if (path := Path(place, name)).is_file())


def test_the_key_is_where_it_belongs_and_nowhere_else(workshop: Workshop, key: str) -> None:
    for path in (SHARED / "key", BOB / ".workshop-key", TEACHER / "results/endpoints/judge/key"):
        read = as_stranger("login", "cat", path)
        assert (read.returncode, "Permission denied" in read.stderr) == (1, True), path
    servers = [
        process
        for process in workshop.cluster.processes(workshop.record["host"])
        if process.runs("vllm.entrypoints.openai.api_server")
    ]
    assert servers
    for process in servers:
        assert as_stranger(workshop.record["host"], "cat", f"/proc/{process.pid}/environ").returncode == 1
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            assert key.encode() not in path.read_bytes(), path
    kept = {
        path
        for folder in (SHARED, ALICE, BOB, CLUSTER / "log")
        for path in files(folder)
        if key.encode() in path.read_bytes()
    }
    kept |= {path for path in SHARED.parent.glob("terminal-*.log") if key.encode() in path.read_bytes()}
    # The teacher's campaign keeps a secret that each start of the server makes a key of its own from.
    assert kept == {SHARED / "key", BOB / ".workshop-key"}
    told = workshop.cluster.call_as_root("login", "scontrol", "show", "job", "--details")
    assert key not in told + workshop.cluster.call_as_root(
        "login", "sacct", "--allusers", "--format=ALL", "--parsable2"
    )


def test_the_teacher_is_warned_before_the_walltime(workshop: Workshop) -> None:
    warning = r"(\d+) s of this job's walltime are left: the server ends in (\d+) s"
    wait_until("the warning", lambda: re.search(warning, workshop.log), 90)
    found = re.search(warning, workshop.log)
    assert found
    assert 860 <= int(found[2]) <= 900


def test_stop_servers_leaves_nothing_behind(workshop: Workshop, key: str, measured: Callable[[str], None]) -> None:
    begun = time.monotonic()
    stop = Terminal("alice", "login", workshop.stop)
    workshop.terminals.append(stop)
    assert "ended: judge" in stop.finish(60)
    assert not (SHARED / "port").exists()
    assert not (SHARED / "key").exists()
    assert "the server of endpoint 'judge' has ended: stopped" in workshop.log
    # Its Snakemake looks for that only now and then: the teacher closes the terminal.
    workshop.teacher.end()

    def left() -> list[str]:
        jobs = workshop.cluster.call_as_root("login", "squeue", "--noheader").splitlines()
        return jobs + [
            f"{host}: {process.command[:200]}"
            for host in HOSTS
            for user in (USER_ID, OTHER_USER_ID)
            for process in workshop.cluster.processes(host, user)
            if any(str(folder) in process.command for folder in (SHARED, TEACHER, WORKSHOP)) or "ssh" in process.command
        ]

    try:
        wait_until("the end of everything", lambda: not left(), 30)
    except AssertionError:
        pytest.fail("\n".join(left()))
    measured(f"stop_servers of the workshop: all gone after {time.monotonic() - begun:.0f} s")
    measured(f"the workshop took {time.monotonic() - workshop.begun:.0f} s")

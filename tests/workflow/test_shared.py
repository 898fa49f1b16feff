"""One server for many jobs, without SLURM: found, started once, started again when it dies, ended when idle or told."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from campaigns import Campaign, copy_code

from milepost.endpoints.shared_place import place_of, read_json

# A job that asks as many questions as there are lines on its standard input, and says what came of each.
CLIENT = """
import asyncio, sys, logging
from milepost.client.client import Client
from milepost.endpoints.open import open_endpoint
from milepost.endpoints.specs import load_endpoints
from milepost.errors import run_step

async def play():
    async with open_endpoint(load_endpoints()["judge"]) as endpoint, Client.to(endpoint) as client:
        print("open", flush=True)
        # In a thread: the tunnel lives in this loop.
        while line := await asyncio.to_thread(sys.stdin.readline):
            reply = await client.post("/completions", {"model": endpoint.model, "prompt": line.strip(), "seed": 1})
            print(reply.body["choices"][0]["text"], flush=True)

run_step(lambda: asyncio.run(play()))
"""


@pytest.fixture(scope="session")
def code(tmp_path_factory):
    return copy_code(tmp_path_factory.mktemp("code"))


@pytest.fixture
def campaign(tmp_path, code, monkeypatch):
    made = Campaign(tmp_path / "campaign", code, checkpoints="c1 m1")
    monkeypatch.chdir(made.folder)
    endpoint(made)
    yield made
    made.end_all()


def endpoint(campaign, **options):
    given = {"provider": "shared", "model": "m1", "gpus": 0, "idle_s": 600, "start_timeout_s": 60, **options}
    campaign.write("config/endpoints.yaml", yaml.safe_dump({"judge": given}))


def client(campaign):
    """A job, as a process of its own."""
    environment = {**campaign.environment, "PYTHONPATH": str(campaign.code / "scripts")}
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT], cwd=campaign.folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ask(job, question):
    job.stdin.write(f"{question}\n")
    job.stdin.flush()
    return job.stdout.readline()


def opened(job):
    """Wait until a job has its endpoint."""
    line = job.stdout.readline()
    assert line == "open\n", job.stderr.read()
    return job


def end(*jobs):
    for job in jobs:
        job.stdin.close()
        assert job.wait(20) == 0, job.stderr.read()


def starts(campaign):
    return sum(line.startswith("START judge") for line in campaign.stub_lines())


def pids(campaign, word):
    # What runs it has its command line behind its own.
    return [pid for pid, command in campaign._processes() if word in command and "watchdog.py --run" not in command]


def wait(what, holds, within_s=20):
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def stop(campaign):
    step = campaign.step("stop_servers")
    said = step.communicate(timeout=40)[0]
    assert step.returncode == 0, said
    return said


def test_four_jobs_at_once_share_one_server_and_it_is_ended_on_demand(campaign):
    jobs = [client(campaign) for _ in range(4)]
    for job in jobs:
        opened(job)
    assert starts(campaign) == 1
    assert ask(jobs[0], "one") == "one, said with seed 1\n"
    os.kill(jobs[0].pid, signal.SIGKILL)  # whoever started it is not needed for it to live
    jobs[0].wait()
    assert ask(jobs[1], "two") == "two, said with seed 1\n"
    end(*jobs[1:])
    folder = campaign.folder / "results/endpoints/judge"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    key = place_of("judge").key
    assert stop(campaign) == "ended: judge\n"
    assert campaign.processes() == []
    (line,) = [json.loads(line) for line in (folder / ".ledger.jsonl").read_text().splitlines()]
    assert (line["end"], line["gpus"]) == ("stopped", 0)
    assert line["up_s"] > 0
    assert not (folder / "key").exists(), "the next server has a key of its own"
    kept = [path for path in campaign.folder.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert kept == []
    assert "no server of this campaign runs" in stop(campaign)


def test_runs_that_look_or_that_others_work_beside_end_no_server(campaign):
    job = opened(client(campaign))
    # As another run, on other files, leaves it while it works.
    others = campaign.folder / ".snakemake/locks/0.output.lock"
    others.parent.mkdir(parents=True)
    others.write_text("results/evaluated/others.json\n")
    for target in ("plan", "results/prompts/t1.jsonl"):
        run = campaign.start(target)
        assert run.wait(120) == 0, run.stdout.read()
        assert ask(job, "one") == "one, said with seed 1\n"
        assert others.exists(), "nor does it take away another's lock"
    assert (starts(campaign), len(pids(campaign, "api_server"))) == (1, 1)
    others.unlink()
    end(job)
    run = campaign.run("--force", "results/prompts/t1.jsonl")
    assert (run.rc, starts(campaign)) == (0, 1), "and the last one ends it"


def test_a_job_that_waits_reads_the_key_of_the_next_server(campaign):
    job = opened(client(campaign))
    assert ask(job, "one").startswith("one")
    assert stop(campaign) == "ended: judge\n"
    assert ask(job, "two") == "two, said with seed 1\n"
    # Whoever takes the key alone away has the server end, and the job wait for the next one.
    (campaign.folder / "results/endpoints/judge/key").unlink()
    place_of("judge")
    wait("the third server", lambda: starts(campaign) == 3, within_s=60)
    assert ask(job, "three") == "three, said with seed 1\n"
    end(job)
    stop(campaign)
    assert campaign.processes() == []


@pytest.mark.parametrize(("victim", "told"), [("serve_shared.py", "killed"), ("api_server", "failed")])
def test_a_server_that_is_killed_is_started_again_and_its_jobs_go_on(campaign, victim, told):
    job = opened(client(campaign))
    assert ask(job, "one").startswith("one")
    (pid,) = pids(campaign, victim)
    os.kill(pid, signal.SIGKILL)
    wait("the end of its server", lambda: not pids(campaign, "api_server"))
    assert ask(job, "two") == "two, said with seed 1\n"
    assert starts(campaign) == 2
    end(job)
    ledger = (campaign.folder / "results/endpoints/judge/.ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["end"] for line in ledger] == [told]
    stop(campaign)
    assert campaign.processes() == []


def test_it_ends_when_nobody_asks(campaign):
    endpoint(campaign, idle_s=10)
    text = Path("config/endpoints.yaml").read_text().replace("idle_s: 10", "idle_s: 10.0")
    Path("config/endpoints.yaml").write_text(text)
    end(opened(client(campaign)))
    assert starts(campaign) == 1
    wait("its end", lambda: campaign.processes(0.1) == [], 25)
    assert not place_of("judge").record.exists()


@pytest.mark.parametrize("record", ["", '{"host', "[]", '{"attempt": 1}', "stranger"])
def test_a_record_that_does_not_hold_is_found_out_by_asking(campaign, record):
    place = place_of("judge")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        if record == "stranger":  # it answers to nothing, and must not be sent the key
            where = {"address": "127.0.0.1", "port": stranger.getsockname()[1]}
            record = json.dumps({"attempt": "x", "host": socket.gethostname(), **where})
            stranger.settimeout(0.1)
        place.record.write_text(record)
        if "attempt" in record and "port" in record:
            stranger.close()
        job = opened(client(campaign))
        assert ask(job, "one").startswith("one")
        assert starts(campaign) == 1
        end(job)
    stop(campaign)


def test_why_a_server_could_not_be_started(campaign):
    endpoint(campaign, env={"STUB_LOG": "/nowhere/log"})
    jobs = [client(campaign) for _ in range(2)]
    for job in jobs:
        said = job.communicate(timeout=60)[1]
        assert job.returncode == 1
        assert "its server could not be started. " in said
        assert "ended before it answered (exit code 1)." in said
        assert "No such file or directory: '/nowhere/log'" in said
    assert campaign.processes() == []


def test_other_options_than_the_running_server_has_are_an_error(campaign):
    end(opened(client(campaign)))
    endpoint(campaign, vllm_args={"dtype": "float32"})
    job = client(campaign)
    said = job.communicate(timeout=60)[1]
    assert "was started with another model or other options" in said
    assert "snakemake stop_servers" in said
    stop(campaign)


def test_check_endpoint_says_that_all_is_well(campaign):
    step = campaign.step("check_endpoint", "--endpoint", "judge")
    said = step.communicate(timeout=60)[0]
    assert step.returncode == 0, said
    assert "endpoint judge: ok. It is m1, of kind chat; opened within" in said
    assert read_json(place_of("judge").record)["socket"].startswith("/tmp/milepost-")
    stop(campaign)


@pytest.mark.parametrize("left", ["", '{"nonce": "of a server before"}'])
def test_what_told_one_server_to_end_tells_the_next_one_nothing(campaign, left):
    place = place_of("judge")
    place.stop.write_text(left)
    server = campaign.step("serve_shared", "--endpoint", "judge", "--kept")
    wait("it serves", lambda: read_json(place.record), within_s=60)
    time.sleep(2.5)
    assert server.poll() is None
    assert stop(campaign) == "ended: judge\n"
    assert "has ended: stopped" in server.communicate(timeout=20)[0]
    assert (server.returncode, place.stop.exists()) == (0, False)

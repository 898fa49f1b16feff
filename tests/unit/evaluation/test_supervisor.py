import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from campaigns import STUB, Campaign, copy_code

import prepare_prompts
from milepost.campaign.identity import identify
from milepost.errors import ModelError, ServerError, StoreError
from milepost.evaluation import asking
from milepost.evaluation import supervisor as evaluate_module
from milepost.evaluation.supervisor import EvaluationJob, Stopped, Supervisor, evaluate
from milepost.preflight.campaign import load_campaign
from milepost.records import read_prompts, read_record, write_record
from milepost.runtime import environments
from milepost.runtime.processes import free_port
from milepost.store import lease as lease_module
from milepost.store.answers import TaskStore
from milepost.store.lease import started

NEMO = {"version": 1, "harness": "nemo", "eval_type": "h.t", "metric": "m", "samples": 2}


@pytest.fixture(scope="session")
def code(tmp_path_factory):
    return copy_code(tmp_path_factory.mktemp("code"))


@pytest.fixture
def campaign(tmp_path, code, monkeypatch):
    """One checkpoint, three tasks of two items and two samples; this process works in its folder."""
    made = Campaign(tmp_path / "campaign", code, checkpoints="c1 m1")
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("STUB_LOG", str(made.log))
    monkeypatch.setattr(environments, "_ENVS", tmp_path / "envs")
    monkeypatch.setattr(asking, "HINDSIGHT_S", 0.2)
    put(tmp_path, "vllm", f'exec "{sys.executable}" "{STUB}" "$@"')
    yield made
    made.end_all()


def put(tmp_path, environment, script, program="python"):
    """Put a shell script where a program of an environment would be."""
    path = tmp_path / "envs" / environment / ".venv" / "bin" / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def prepare(campaign):
    """The two steps before an evaluation."""
    for task in campaign.config["tasks"]:
        prepare_prompts.main(["--task", task, "--out", f"results/prompts/{task}.jsonl"])
    write_record("results/models/c1.json", identify(load_campaign().checkpoints["c1"]))


def job(campaign, gpus=0):
    prepare(campaign)
    sets = [read_prompts(f"results/prompts/{task}.jsonl") for task in campaign.config["tasks"]]
    return EvaluationJob(
        ckpt=load_campaign().checkpoints["c1"],
        digest=read_record("results/models/c1.json")["digest"],
        prompts={prompts.header["task"]: prompts for prompts in sets},
        gpus=gpus,
        nemo_parallel=2,
        logs=Path("logs"),
    )


def start(campaign):
    """The step itself, as a process of its own."""
    prepare(campaign)
    prompts = [f"results/prompts/{task}.jsonl" for task in campaign.config["tasks"]]
    return campaign.step(
        "evaluate_checkpoint", "--ckpt", "c1", "--model", "results/models/c1.json", "--prompts", *prompts,
        "--gpus", "0", "--log", "logs/c1.log", "--out", "results/evaluated/c1.json",
    )  # fmt: skip


def stored(campaign):
    return [line for task in campaign.config["tasks"] for line in campaign.stored("c1", task)]


def ledger():
    return [json.loads(line) for line in Path("results/store/c1/.ledger.jsonl").read_text().splitlines()]


def asked(campaign):
    return sum(line.startswith("ASK ") for line in campaign.stub_lines())


def server_pid(campaign):
    """The stand-in of a running evaluation."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if (
                    str(STUB).encode() in words
                    and f"STUB_LOG={campaign.log}\0".encode() in (entry / "environ").read_bytes()
                ):
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError("no server runs")


def end(process, campaign, within):
    """Wait for the end of the step, and see that it is soon and that nothing is left."""
    begun = time.monotonic()
    said = process.communicate(timeout=60)[0]
    assert time.monotonic() - begun < within, said
    assert campaign.processes() == []
    return said


def test_all_tasks_of_a_checkpoint_at_once_then_nothing_more(campaign, tmp_path):
    campaign.faults("m1", "slow 0.5")
    note = evaluate(job(campaign))
    assert note["tasks"] == {task: {"done": 4, "missing": 0} for task in ("t1", "t2", "t3")}
    assert len(stored(campaign)) == 12
    assert len({line["seed"] for line in campaign.stored("c1", "t1")}) == 4, "every sample its own seed"
    (line,) = ledger()
    assert (line["end"], line["requests"], line["tokens_out"]) == ("done", 12, 24)
    assert 0.5 <= line["busy_s"] < 1.5, "twelve answers of half a second, all under way at the same time"
    assert line["start_s"] > 0
    assert note["ledger"]["attempts"] == 1
    assert set(note["versions"]) == {"milepost", "engine"}
    assert not list(Path("results/store/c1").glob(".lease*"))
    # Nothing is missing: no server, so none needs to be installed, and no attempt.
    (tmp_path / "envs/vllm/.venv/bin/python").unlink()
    again = evaluate(job(campaign))
    assert again == note
    assert len(ledger()) == 1
    assert sum(line.startswith("START") for line in campaign.stub_lines()) == 1


def test_only_what_is_missing_is_asked(campaign):
    evaluate(job(campaign))
    campaign.items("t2", "hello", "changed")
    campaign.task("t3", samples=3)
    before = asked(campaign)
    note = evaluate(job(campaign))
    assert asked(campaign) - before == 2 + 2
    assert note["tasks"]["t3"] == {"done": 6, "missing": 0}
    assert note["ledger"]["requests"] == 16


def test_longest_expected_answers_first_and_samples_side_by_side(campaign):
    campaign.profile(concurrency=1)
    campaign.task("t2", sampling={"max_tokens": 99})
    evaluate(job(campaign))
    order = [line.split()[3:5] for line in campaign.stub_lines() if line.startswith("ASK")]
    assert order == [[task, item] for task in ("t2", "t1", "t3") for item in "0011"]


def test_a_request_that_fails_leaves_the_others_running_and_is_final_after_three_jobs(campaign):
    campaign.items("t2", "hello", "bad")
    campaign.faults("m1", "fail bad")
    for attempt in (1, 2, 3):
        note = evaluate(job(campaign))
        missing = 2 if attempt < 3 else 0
        assert note["tasks"]["t1"] == {"done": 4, "missing": 0}
        assert note["tasks"]["t2"]["missing"] == missing
        assert ("error" in note["tasks"]["t2"]) == (attempt < 3)
        assert asked(campaign) == 12 + 2 * (attempt - 1)
    before = campaign.stub_lines()
    evaluate(job(campaign))
    assert campaign.stub_lines() == before
    assert note["ledger"]["attempts"] == 3


def test_a_prompt_too_long_is_an_answer(campaign, tmp_path):
    # A server that refuses every chat for its length.
    code = STUB.read_text().replace(
        'if any(word in asked for word in faults("fail")):',
        'self.reply(400, {"error": {"message": "This model\'s maximum context length is 8 tokens."}})\n        if True:',
    )
    code = code.replace('self.reply(500, {"error": {"message": "failed on purpose"}})', "pass")
    (tmp_path / "stub.py").write_text(code)
    put(tmp_path, "vllm", f'exec "{sys.executable}" "{tmp_path}/stub.py" "$@"')
    note = evaluate(job(campaign))
    assert note["tasks"]["t1"] == {"done": 4, "missing": 0}
    assert {line["error"]["type"] for line in stored(campaign)} == {"context"}
    assert all(line["final"] for line in stored(campaign))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_with_requests_in_flight_it_is_gone_and_the_next_goes_on(campaign, number):
    campaign.profile(concurrency=2)
    campaign.faults("m1", "slow 0.3")
    process = start(campaign)
    campaign.wait_for("ASK", 5)
    process.send_signal(number)
    said = end(process, campaign, within=8)
    assert process.returncode == 1
    kept = stored(campaign)
    assert f"Stopped: Told to end by {number.name} after {len(kept)} of 12 answers." in said
    assert 2 <= len(kept) < 12
    assert not any("error" in line for line in kept)
    assert [line["end"] for line in ledger()] == [number.name]
    assert ledger()[0]["requests"] == len(kept)
    assert not Path("results/evaluated/c1.json").exists()
    campaign.faults("m1")
    before = asked(campaign)
    note = evaluate(job(campaign))
    assert asked(campaign) - before == 12 - len(kept)
    assert note["ledger"]["requests"] == 12
    assert len(stored(campaign)) == 12


def test_it_ends_by_itself_before_the_walltime(campaign, tmp_path, monkeypatch):
    campaign.profile(concurrency=2)
    campaign.faults("m1", "slow 1")
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    ends = int(time.time()) + 24
    squeue.write_text(f"#!/bin/sh\necho 0:$(({ends} - $(date +%s)))\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with pytest.raises(Stopped, match=r"Ended by itself, because 2[01] s of this job's walltime are left"):
        evaluate(replace(job(campaign), walltime_margin_s=21.5))
    kept = stored(campaign)
    assert [line["end"] for line in ledger()] == ["walltime"]
    assert ledger()[0]["requests"] == len(kept) < 12
    monkeypatch.delenv("SLURM_JOB_ID")
    campaign.faults("m1")
    assert evaluate(job(campaign))["ledger"]["requests"] == 12


def test_server_and_harness_that_do_not_end_by_themselves_are_gone_in_time(campaign, tmp_path):
    campaign.write("config/tasks/n.yaml", json.dumps(NEMO))
    campaign.select("t1", "n")
    campaign.faults("m1", "slow 60")
    stubborn = "trap '' TERM INT; "
    for folder in (campaign.code, tmp_path):
        python = folder / "envs/nemo/.venv/bin/python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
        python.with_name("nemo-evaluator").write_text(
            f"#!/bin/sh\n{stubborn}echo started >>nemo.log; sleep 600 & wait; sleep 600\n"
        )
        python.with_name("nemo-evaluator").chmod(0o755)
    server = campaign.code / "envs/vllm/.venv/bin/python"
    before = server.read_text()
    server.write_text(f'#!/bin/sh\n{stubborn}"{sys.executable}" "{STUB}" "$@" & wait; sleep 600\n')
    try:
        process = start(campaign)
        campaign.wait_for("ASK", 4)
        deadline = time.monotonic() + 20
        while len(Path("nemo.log").read_text().split() if Path("nemo.log").exists() else []) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        end(process, campaign, within=8)
    finally:
        server.write_text(before)
    assert ledger()[0]["end"] == "SIGTERM"


def test_told_to_end_while_the_server_starts(campaign):
    server = campaign.code / "envs/vllm/.venv/bin/python"
    before = server.read_text()
    server.write_text("#!/bin/sh\necho START >>$STUB_LOG; exec sleep 600\n")
    try:
        process = start(campaign)
        campaign.wait_for("START")
        process.send_signal(signal.SIGTERM)
        end(process, campaign, within=8)
    finally:
        server.write_text(before)
    assert ledger()[0]["end"] == "SIGTERM"
    assert ledger()[0]["start_s"] > 0
    assert ledger()[0]["busy_s"] == 0


def test_a_supervisor_that_is_killed_leaves_no_server_and_its_account_is_kept(campaign):
    campaign.faults("m1", "slow 60")
    process = start(campaign)
    campaign.wait_for("ASK", 12)
    deadline = time.monotonic() + 20
    while '"content"' not in Path("results/store/c1/.lease").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = server_pid(campaign)
    process.kill()
    process.wait()
    begun = time.monotonic()
    while started(pid) is not None:
        assert time.monotonic() - begun < 5
        time.sleep(0.05)
    assert campaign.processes() == []
    campaign.faults("m1")
    note = evaluate(job(campaign))
    assert [line["end"] for line in ledger()] == ["killed", "done"]
    assert ledger()[0]["start_s"] > 0
    assert note["ledger"]["attempts"] == 2
    assert note["tasks"]["t1"]["missing"] == 0
    process.stdout.close()


@pytest.mark.parametrize("how", ["killed", "dies of a prompt"])
def test_the_death_of_the_server_ends_the_job_at_once_and_nothing_under_way_counts(campaign, how):
    if how == "killed":
        campaign.faults("m1", "slow 60")
    else:
        campaign.items("t3", "hello", "bad")
        campaign.profile(retries=5)
        campaign.faults("m1", "slow 60", "die bad")
    process = start(campaign)
    campaign.wait_for("ASK" if how == "killed" else "ASK c1 bad", 1)
    if how == "killed":
        os.kill(server_pid(campaign), signal.SIGKILL)
    said = end(process, campaign, within=5)
    assert process.returncode == 1
    code = "-9" if how == "killed" else "7"
    assert re.search(
        rf"ServerError: The server of 'c1' died \(exit code {code}\)\. The last lines of logs/c1.server.log:", said
    )
    assert ("stub: engine died on purpose" in said) == (how != "killed")
    assert stored(campaign) == [], "requests under way were not asked"
    assert [line["end"] for line in ledger()] == ["failed"]


def test_the_key_is_nowhere(campaign):
    campaign.faults("m1", "slow 60")
    process = start(campaign)
    campaign.wait_for("ASK", 12)
    environ = Path(f"/proc/{server_pid(campaign)}/environ").read_bytes().split(b"\0")
    key = next(value.partition(b"=")[2] for value in environ if value.startswith(b"VLLM_API_KEY="))
    assert len(key) >= 40
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                assert key not in (entry / "cmdline").read_bytes()
            except OSError:
                continue
    process.send_signal(signal.SIGTERM)
    said = end(process, campaign, within=8)
    assert key.decode() not in said
    files = [path for path in campaign.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if key in path.read_bytes()] == []


def test_a_server_without_its_gpus_is_not_started(campaign, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    campaign.profile(gpus=1)
    with pytest.raises(
        ServerError,
        match=r"Answers of 'c1' are missing, and its server needs 1 GPU\(s\), but this job was given 0.*Run again",
    ):
        evaluate(job(campaign, gpus=0))
    assert campaign.stub_lines() == []
    evaluate(job(campaign, gpus=1))
    evaluate(job(campaign, gpus=0))
    assert ledger()[0]["gpus"] == 1


def test_why_a_job_failed_stands_in_its_log(campaign):
    campaign.profile(gpus=1)
    process = start(campaign)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    paragraph = "ServerError: Answers of 'c1' are missing, and its server needs 1 GPU(s), but this job was given 0"
    assert paragraph in said
    assert paragraph in Path("logs/c1.log").read_text()


def test_a_model_that_changed_since_the_job_was_planned_is_not_asked(campaign):
    planned = job(campaign)
    (campaign.folder / "m1" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(
        ModelError, match=r"'c1' is another model than when this job was planned.*Nothing was asked; run again"
    ):
        evaluate(planned)
    assert campaign.stub_lines() == []
    evaluate(job(campaign))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_answer_of_a_stranger_is_not_stored(campaign, tmp_path, status):
    code = STUB.read_text().replace("        text = ", f"        return self.reply({status}, {{}})\n        text = ")
    (tmp_path / "stub.py").write_text(code)
    put(tmp_path, "vllm", f'exec "{sys.executable}" "{tmp_path}/stub.py" "$@"')
    with pytest.raises(ServerError, match=f"answered {status}: .* another program answers at its address"):
        evaluate(job(campaign))
    assert stored(campaign) == []
    assert ledger()[0]["end"] == "failed"


def test_a_full_disk_ends_the_job_with_what_to_do(campaign, monkeypatch):
    whole = TaskStore.append
    count = []

    def append(self, *rest, **options):
        count.append(1)
        if len(count) > 3:
            raise StoreError("t1.jsonl cannot be written: No space left on device.")
        whole(self, *rest, **options)

    monkeypatch.setattr(TaskStore, "append", append)
    with pytest.raises(StoreError, match="No space left"):
        evaluate(job(campaign))
    assert campaign.processes() == [f for f in campaign.processes() if "pytest" in f]
    assert len(stored(campaign)) == 3
    assert ledger()[0]["end"] == "failed"


@pytest.mark.parametrize("trouble", ["taken over", "disk"])
def test_without_its_lease_a_job_ends(campaign, monkeypatch, trouble):
    campaign.faults("m1", "slow 60")
    monkeypatch.setattr(evaluate_module, "SYNC_S", 0.2)
    if trouble == "disk":

        def sync(self):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(TaskStore, "sync", sync)
        expected, words = OSError, "Input/output error"
    else:
        monkeypatch.setattr(evaluate_module.Lease, "held", lambda self: False)
        expected, words = StoreError, "taken over by another evaluation"
    begun = time.monotonic()
    with pytest.raises(expected, match=words):
        evaluate(job(campaign))
    assert time.monotonic() - begun < 8
    assert ledger()[0]["end"] == "failed"


@pytest.mark.parametrize("back", [True, False])
def test_results_that_are_moved_away_get_what_came_and_no_others_are_made(campaign, monkeypatch, back):
    campaign.faults("m1", "slow 0.3")
    campaign.profile(concurrency=1)
    monkeypatch.setattr(evaluate_module, "SYNC_S", 0.05)
    monkeypatch.setattr(evaluate_module, "BEAT_S", 0.1)
    if not back:
        monkeypatch.setattr(lease_module, "STALE_S", 2 * lease_module.BEAT_S + 0.3)
    results, away = Path("results"), Path("away")

    def move():
        campaign.wait_for("ANSWER ", 3)
        results.rename(away)
        if back:
            campaign.wait_for("ANSWER ", 6)
            away.rename(results)

    made = job(campaign)
    mover = threading.Thread(target=move)
    mover.start()
    try:
        if back:
            assert evaluate(made)["tasks"]["t1"] == {"done": 4, "missing": 0}
        else:
            with pytest.raises(StoreError, match="no longer the folder that was opened"):
                evaluate(made)
            assert not results.exists()
    finally:
        mover.join()
    if not back:
        away.rename(results)
    keys = [line["key"] for line in stored(campaign)]
    assert len(keys) == len(set(keys))
    assert 3 <= len(keys) <= 12
    assert not back or len(keys) == asked(campaign) == 12


class TestHarness:
    @pytest.fixture
    def nemo(self, campaign, tmp_path):
        """A stand-in for NeMo Evaluator; the script sees $OUT, its run's folder."""
        campaign.write("config/tasks/n.yaml", json.dumps(NEMO))
        campaign.select("t1", "n")
        put(tmp_path, "nemo", "")

        def script(text):
            find = "OUT=$(sed -n 's/^  output_dir: //p' \"$3\")"
            put(tmp_path, "nemo", f"{find}\n{text}", "nemo-evaluator")

        return script

    def test_runs_beside_the_native_tasks(self, campaign, nemo):
        nemo('env >"$OUT/env"; touch "$OUT/results.yml"; echo "$MILEPOST_ENDPOINT_KEY" | wc -c >"$OUT/length"')
        note = evaluate(job(campaign))
        assert note["tasks"] == {"t1": {"done": 4, "missing": 0}, "n": {"done": 2, "missing": 0}}
        runs = sorted(Path("results/store/c1/n").glob("*/run-?"))
        assert [run.name for run in runs] == ["run-0", "run-1"]
        envs = [dict(line.partition("=")[::2] for line in (run / "env").read_text().splitlines()) for run in runs]
        assert len({env["ADAPTER_PORT"] for env in envs}) == 2
        assert envs[0]["NEMO_EVALUATOR_TELEMETRY_LEVEL"] == "0"
        configs = [path.read_text() for path in Path("results/store/c1/n").glob("*/run-*.yml")]
        assert len(set(configs)) == 2, "runs differ by their seed and folder"
        assert not any(envs[0]["MILEPOST_ENDPOINT_KEY"] in config for config in configs)
        before = campaign.stub_lines()
        evaluate(job(campaign))
        assert campaign.stub_lines() == before

    @pytest.mark.parametrize(
        ("script", "words"),
        [
            ("echo no such task; exit 2", "NeMo Evaluator ended with exit code 2 on task 'n'. The last lines of .*no such task"),
            ("exit 0", "ended with exit code 0"),
            ('touch "$OUT/results.yml"; exit 1', "ended with exit code 1"),
            ('touch "$OUT/results.yml" "$OUT/.nemo_evaluator_interrupted"', "and left .nemo_evaluator_interrupted"),
            ('touch "$OUT/results.yml"; kill -9 $$', "ended with SIGKILL"),
        ],
    )  # fmt: skip
    def test_one_that_fails_leaves_the_others_running(self, campaign, nemo, script, words):
        nemo(script)
        note = evaluate(job(campaign))
        assert note["tasks"]["t1"] == {"done": 4, "missing": 0}
        assert (note["tasks"]["n"]["done"], note["tasks"]["n"]["missing"]) == (0, 2)
        assert re.search(words, note["tasks"]["n"]["error"], re.S)
        nemo('touch "$OUT/results.yml"')
        assert evaluate(job(campaign))["tasks"]["n"] == {"done": 2, "missing": 0}

    def test_one_that_cannot_be_started_leaves_the_others_running(self, campaign, nemo):
        note = evaluate(job(campaign))
        assert note["tasks"]["t1"] == {"done": 4, "missing": 0}
        assert "No such file" in note["tasks"]["n"]["error"]

    def test_one_whose_image_is_not_there_leaves_the_others_running(self, campaign, nemo):
        campaign.write("config/tasks/n.yaml", json.dumps({**NEMO, "container": "lost.sif"}))
        note = evaluate(job(campaign))
        assert note["tasks"]["t1"] == {"done": 4, "missing": 0}
        assert "The container image results/images/lost.sif does not exist" in note["tasks"]["n"]["error"]

    def test_none_is_left_when_the_native_tasks_end_the_job(self, campaign, nemo, tmp_path):
        nemo('echo $$ >"$OUT/pid"; sleep 600')
        code = STUB.read_text().replace(
            "        text = ", "        time.sleep(0.7)\n        return self.reply(404, {})\n        text = "
        )
        (tmp_path / "stub.py").write_text(code)
        put(tmp_path, "vllm", f'exec "{sys.executable}" "{tmp_path}/stub.py" "$@"')
        with pytest.raises(ServerError, match="answered 404"):
            evaluate(job(campaign))
        pids = [int(path.read_text()) for path in Path("results/store/c1/n").glob("*/run-?/pid")]
        assert len(pids) == 2
        assert [pid for pid in pids if started(pid) is not None] == []


@pytest.fixture
def outside(campaign):
    """A server of somebody else, behind the checkpoint's row."""
    port = free_port()
    environment = {**os.environ, "VLLM_API_KEY": "key-of-the-endpoint"}
    command = [sys.executable, str(STUB), "-m", "api_server", "--model", "m1", "--served-model-name", "their-model"]
    server = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], env=environment)
    spec = {"provider": "external", "url": f"http://127.0.0.1:{port}/v1", "model": "their-model", "key_env": "THE_KEY"}
    campaign.write("config/endpoints.yaml", json.dumps({"theirs": {**spec, "retries": 0, "concurrency": 1}}))
    campaign.write("config/checkpoints.tsv", "name\tendpoint\nc1\ttheirs\n")
    campaign.wait_for("START their-model")
    yield server
    server.kill()
    server.wait()


def test_a_checkpoint_behind_an_endpoint_is_asked_there(campaign, outside, monkeypatch):
    monkeypatch.setenv("THE_KEY", "key-of-the-endpoint")
    note = evaluate(job(campaign))
    assert note["tasks"] == {task: {"done": 4, "missing": 0} for task in ("t1", "t2", "t3")}
    assert {line.split()[1] for line in campaign.stub_lines()} == {"their-model"}, "no server of ours was started"
    assert note["versions"]["engine"] == "external"
    assert ledger()[0]["gpus"] == 0
    kept = "".join(path.read_text() for path in Path(".").rglob("*") if path.is_file())
    assert "key-of-the-endpoint" not in kept
    assert outside.poll() is None, "it is not ours to end"


def test_an_endpoint_that_goes_away_ends_the_job_and_blames_no_question(campaign, outside, monkeypatch):
    monkeypatch.setenv("THE_KEY", "key-of-the-endpoint")
    campaign.items("t2", "hello", "deadly")
    campaign.faults("m1", "die deadly")
    with pytest.raises(
        ServerError, match="The server at http://127.0.0.1:.* cannot be reached: .* the next run goes on there"
    ):
        evaluate(job(campaign))
    assert len(stored(campaign)) == 6
    assert not any("error" in line for line in stored(campaign))


def test_an_endpoint_whose_host_vanishes_blames_no_question(campaign, outside, monkeypatch):
    monkeypatch.setenv("THE_KEY", "key-of-the-endpoint")

    async def connect(*args, **options):
        raise TimeoutError(110, "Connection timed out")

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.create_connection", connect)
    monkeypatch.setattr("milepost.endpoints.open.verify", lambda *args: asyncio.sleep(0))
    with pytest.raises(ServerError, match="cannot be reached: .*timed out"):
        evaluate(job(campaign))
    assert stored(campaign) == []


def test_the_heart_beats_while_names_are_looked_up_and_the_disk_is_slow(campaign, monkeypatch):
    campaign.faults("m1", "slow 0.3")
    campaign.profile(concurrency=2)
    monkeypatch.setattr(evaluate_module, "SYNC_S", 0.05)
    monkeypatch.setattr(evaluate_module, "BEAT_S", 0.1)
    beats = []
    monkeypatch.setattr(evaluate_module.Lease, "beat", lambda self, content: beats.append(time.monotonic()))
    monkeypatch.setattr(TaskStore, "sync", lambda self: time.sleep(1.0))
    ready = Supervisor.ask

    async def ask(self, *args):
        for _ in range(40):
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 1.0)
        await ready(self, *args)

    monkeypatch.setattr(Supervisor, "ask", ask)
    evaluate(job(campaign))
    pauses = [after - before for before, after in itertools.pairwise(beats)]
    assert len(beats) > 8
    assert max(pauses) < 0.8

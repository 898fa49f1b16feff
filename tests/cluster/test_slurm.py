"""The demo's campaign on a real SLURM cluster, and what may happen to it there.

One campaign serves most scenarios: while it runs for the first time, one checkpoint's server, one's supervisor and one's
job are killed, and a task of the last cannot be kept. A second one, which meets its walltime, runs beside it. The tests
follow each other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cluster import GPU_HOSTS, HOSTS, USER_ID, Cluster, Process, SlurmJob, wait_until
from project import NATIVE_ANSWERS, NEMO_ANSWERS, REPOSITORY, Project, gone

CHECKPOINTS = ("demo-100", "demo-200", "demo-400")
TASKS = ("sums", "where", "constraints", "colours")
IMAGE = REPOSITORY / ".images" / "small.sif"
SUMS = 10_000  # answers of the campaign that meets its walltime


@dataclass
class Fault:
    """Something that happens to a checkpoint's job in the middle of its work, and what was seen of it."""

    ckpt: str
    state: str  # of the job that it happened to, in SLURM's words
    end: str  # of the attempt, in the ledger's
    hit: Callable[[Cluster, str, list[Process]], None]
    job: str = ""
    gone_s: float | None = None
    stored: set[str] = field(default_factory=set)


def kill_server(cluster: Cluster, job: str, processes: list[Process]) -> None:
    kill(processes, "vllm.entrypoints.openai.api_server")


def kill_supervisor(cluster: Cluster, job: str, processes: list[Process]) -> None:
    kill(processes, "scripts/evaluate_checkpoint.py")


def cancel(cluster: Cluster, job: str, processes: list[Process]) -> None:
    cluster.call("login", "scancel", job)


def kill(processes: list[Process], program: str) -> None:
    victims = [process.pid for process in processes if process.runs(program)]
    assert victims, [process.command for process in processes]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


FAULTS = {
    "kill -9 of the server": Fault("demo-400", "FAILED", "failed", kill_server),
    "kill -9 of the supervisor": Fault("demo-200", "FAILED", "killed", kill_supervisor),
    "scancel": Fault("demo-100", "CANCELLED", "SIGTERM", cancel),
}


@pytest.fixture(scope="module")
def begun() -> float:
    """When these tests began: the cluster may remember other jobs."""
    return time.time() - 1


@pytest.fixture(scope="module")
def brief(make_project: Callable[..., Project], begun: float) -> Project:
    """A campaign of one checkpoint whose first job has too little time; it runs beside the other one."""
    made = make_project("brief", concurrency=1)
    made.edit("profiles/slurm/config.yaml", "    runtime: 240 * attempt", "    runtime: 2 * attempt ** 3")
    made.edit("config/tasks/sums.yaml", "samples: 4", "samples: 100")
    made.edit(
        "config/checkpoints.tsv", "demo-{step}\tmodel/step-{step}\tdemo\t{step}", "brief\tmodel/step-400\tdemo\t400"
    )
    made.configure(tasks=["sums"], walltime_margin_s=20)
    made.start()
    return made


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Project], brief: Project, cluster: Cluster) -> Project:
    """The demo's campaign after its first run, in which all faults happened."""
    made = make_project("project", concurrency=1, stage=True)
    # Three of the demo's checkpoints are enough.
    shutil.rmtree(made.folder / "model/step-50")
    # A folder that alice cannot write: a task of one checkpoint fails, and nothing else.
    (made.folder / "results/store/demo-400/colours").mkdir(parents=True)
    for path in ("results/store", "results/store/demo-400"):
        cluster.call_as_root("login", "chown", "alice:alice", made.folder / path)
    made.start()
    waiting = list(FAULTS.values())
    while made.runs_now:
        for fault in [fault for fault in waiting if sum(made.stored(fault.ckpt).values()) >= 100]:
            waiting.remove(fault)
            fault.job, host = cluster.job_of(fault.ckpt)
            processes = cluster.processes(host)
            fault.hit(cluster, fault.job, processes)
            fault.gone_s = gone(cluster, host, processes)
            fault.stored = set(made.stored(fault.ckpt))
        for host in GPU_HOSTS:
            scripts = [process for process in cluster.processes(host) if "/scripts/" in process.command]
            ours = ("scripts/evaluate_checkpoint.py", "runtime/watchdog.py", "runtime/launch.py")
            assert all(any(name in process.command for name in ours) for process in scripts), scripts
        time.sleep(0.3)
    return made


def evaluations(cluster: Cluster, since: float, ckpt: str) -> list[SlurmJob]:
    """The jobs that evaluated a checkpoint, oldest first."""
    return [job for job in cluster.jobs(since) if (job.rule, job.wildcards) == ("evaluate_checkpoint", ckpt)]


def check_answers(project: Project, ckpt: str, answers: int) -> None:
    """Everything was asked, and nothing that was stored was asked again."""
    keys = project.stored(ckpt)
    assert len(keys) == answers
    assert set(keys.values()) == {1}


def test_all_that_could_be_scored_was_scored_in_the_run_that_failed(project: Project) -> None:
    assert project.finish() == 1
    missing = [
        (ckpt, task)
        for ckpt in CHECKPOINTS
        for task in TASKS
        if not (project.folder / f"results/summaries/{ckpt}/{task}.json").exists()
    ]
    assert missing == [("demo-400", "colours")]
    assert "Permission denied" in project.said()
    # The models were served from copies on the nodes' disks.
    assert "staged 0.0 GB" in project.log("demo-400")
    copies = [path for path in Path(tempfile.gettempdir()).glob("milepost-model-*") if path.stat().st_uid == USER_ID]
    assert copies == [], "not even where the supervisor was killed"


def test_one_gpu_job_per_checkpoint_and_nothing_else_on_a_gpu_host(
    project: Project, cluster: Cluster, begun: float, measured: Callable[[str], None]
) -> None:
    for ckpt in CHECKPOINTS:
        jobs = evaluations(cluster, begun, ckpt)
        faults = [fault for fault in FAULTS.values() if fault.ckpt == ckpt]
        assert [(job.id, job.state) for job in jobs[:-1]] == [(fault.job, fault.state) for fault in faults]
        assert jobs[-1].state == "COMPLETED"
        assert {job.gpus for job in jobs} == {1}
    others = [job for job in cluster.jobs(begun) if job.rule != "evaluate_checkpoint"]
    assert {(job.rule, job.node, job.gpus) for job in others} == {("score_on_node", "cpu01", 0)}
    for ckpt in CHECKPOINTS:
        last, attempt = evaluations(cluster, begun, ckpt)[-1], project.ledger(ckpt)[-1]
        assert attempt["job"] == last.id
        assert last.started is not None
        assert last.ended is not None
        spent = attempt["start_s"] + attempt["busy_s"] + attempt["idle_s"]
        measured(
            f"{ckpt}: waited {last.started - last.submitted:.0f} s, held its GPU for {last.ended - last.started:.0f} s;"
            f" the server started in {attempt['start_s']:.0f} s, was busy {attempt['busy_s']:.0f} s, idle {attempt['idle_s']:.1f} s;"
            f" SLURM and Snakemake took {last.ended - last.started - spent:.0f} s"
        )


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_nothing_behind_and_the_retry_goes_on(
    name: str, project: Project, measured: Callable[[str], None]
) -> None:
    fault = FAULTS[name]
    assert fault.gone_s is not None, "the fault never happened"
    measured(f"{name}: {len(fault.stored)} answers stored, all processes gone after {fault.gone_s:.1f} s")
    assert len(fault.stored) >= 100
    first, last = project.ledger(fault.ckpt)
    assert (first["job"], first["end"], last["end"]) == (fault.job, fault.end, "done")
    assert fault.stored <= set(project.stored(fault.ckpt))
    check_answers(project, fault.ckpt, NATIVE_ANSWERS)
    # What was under way when it happened may have been asked twice; what was stored was not. The rest are NeMo Evaluator's.
    assert 0 <= last["requests"] - (NATIVE_ANSWERS - len(fault.stored)) <= NEMO_ANSWERS


def test_walltime_is_met_cleanly_and_the_retry_has_more(
    brief: Project, cluster: Cluster, begun: float, measured: Callable[[str], None]
) -> None:
    assert brief.finish() == 0, brief.said()[-3000:]
    first, last = evaluations(cluster, begun, "brief")
    assert (first.state, first.limit_min) == ("FAILED", 2)
    assert (last.state, last.limit_min) == ("COMPLETED", 16)
    assert first.started is not None
    assert first.ended is not None
    # It was neither killed at its end, nor gave up long before.
    assert 90 <= first.ended - first.started < 120
    said = brief.read(f"logs/slurm/rule_evaluate_checkpoint/brief/{first.id}.log")
    assert "of this job's walltime are left" in said, said[-3000:]
    attempts = brief.ledger("brief")
    assert [attempt["end"] for attempt in attempts] == ["walltime", "done"]
    assert 0 < attempts[0]["requests"] < SUMS
    assert attempts[0]["requests"] + attempts[1]["requests"] == SUMS
    check_answers(brief, "brief", SUMS)
    measured(f"walltime of 2 min: ended by itself after {first.ended - first.started:.0f} s,"
             f" {attempts[0]['requests']} of {SUMS} answers stored")  # fmt: skip


def test_after_a_kill_of_snakemake_the_next_run_names_the_jobs_that_go_on(project: Project, cluster: Cluster) -> None:
    cluster.call_as_root("login", "chown", "-R", "alice:alice", project.folder / "results/store/demo-400")
    project.start()
    wait_until("a job", cluster.queue, 180)
    ((job, _, _),) = cluster.queue()
    project.kill()
    project.start("--unlock")
    assert project.finish(180) == 0
    project.start()
    assert project.finish(180) != 0
    said = " ".join(project.said().split())
    assert (
        f"1 job of an earlier run of this campaign is still in SLURM's queue: {job} (evaluate_checkpoint demo-400"
        in said
    )
    assert [ident for ident, _, _ in cluster.queue()] == [job], "nothing was submitted beside it"
    cluster.call("login", "scancel", job)
    wait_until("its end", lambda: not cluster.queue(), 60)


def test_ctrl_c_cancels_its_jobs(project: Project, cluster: Cluster, measured: Callable[[str], None]) -> None:
    project.start()
    wait_until("a job", lambda: any(cluster.processes(host) for host in GPU_HOSTS), 180)
    _, host = cluster.job_of("demo-400")
    wait_until("the server's start", lambda: any(p.runs("api_server") for p in cluster.processes(host)), 180)
    processes = cluster.processes(host)
    project.interrupt()
    measured(f"Ctrl-C: all processes gone after {gone(cluster, host, processes):.1f} s")
    assert project.finish(180) != 0
    wait_until("the end of the job", lambda: not cluster.queue(), 30)
    assert [cluster.processes(host) for host in HOSTS] == [[]] * len(HOSTS)


def test_a_node_goes_down_and_only_the_failed_task_runs_again(
    project: Project, cluster: Cluster, begun: float, measured: Callable[[str], None]
) -> None:
    # From here on, servers and NeMo Evaluator run inside an image, which asks nothing again.
    image = str(shutil.copy(IMAGE, project.folder / "small.sif"))
    project.configure(containers={"vllm": image, "nemo": image, "bind_environments": True})
    # A checkpoint whose store is complete is looked at in the same run.
    for path in ("results/evaluated/demo-100.json", "results/answers/demo-100"):
        cluster.call("login", "rm", "-r", project.folder / path)
    since = time.time() - 1
    scored = project.read("results/scores/demo-400/sums.jsonl")
    attempts = {ckpt: len(project.ledger(ckpt)) for ckpt in CHECKPOINTS}
    project.start()
    wait_until("a job", lambda: any(cluster.processes(host) for host in GPU_HOSTS), 180)
    _, host = cluster.job_of("demo-400")
    wait_until("the server's start", lambda: any(p.runs("api_server") for p in cluster.processes(host)), 180)
    processes = cluster.processes(host)
    assert any("apptainer" in process.command.lower() for process in processes)
    # The job script's own Snakemake waits for files of a node that has failed. A site's cgroup ends it; here is none.
    wrappers = [process for process in processes if process.runs("snakemake")]
    cluster.call_as_root("login", "scontrol", "update", f"nodename={host}", "state=down", "reason=test")
    try:
        ours = [process for process in processes if process not in wrappers]
        measured(f"a node set down: all processes gone after {gone(cluster, host, ours):.1f} s")
        for process in set(wrappers) & set(cluster.processes(host)):
            os.kill(process.pid, signal.SIGKILL)
        assert project.finish() == 0, project.said()[-3000:]
    finally:
        cluster.call_as_root("login", "scontrol", "update", f"nodename={host}", "state=resume")
    jobs = evaluations(cluster, since, "demo-400")
    assert [(job.state, job.node == host) for job in jobs] == [("NODE_FAIL", True), ("COMPLETED", False)]
    digest = hashlib.sha256(IMAGE.read_bytes()).hexdigest()
    attempt = project.ledger("demo-400")[-1]
    assert attempt["requests"] == NEMO_ANSWERS, "only NeMo Evaluator's task was missing"
    assert attempt["versions"]["vllm-image"] == digest
    assert project.read("results/scores/demo-400/sums.jsonl") == scored
    check_answers(project, "demo-400", NATIVE_ANSWERS)
    # The complete one takes no job: its answers are copied out of the store again.
    assert evaluations(cluster, since, "demo-100") == []
    check_answers(project, "demo-100", NATIVE_ANSWERS)
    assert {ckpt: len(project.ledger(ckpt)) for ckpt in CHECKPOINTS[:2]} == {
        ckpt: attempts[ckpt] for ckpt in CHECKPOINTS[:2]
    }
    assert (project.folder / "results/report.html").stat().st_mtime > since


def test_nothing_is_left_on_any_host(project: Project, brief: Project, cluster: Cluster) -> None:
    wait_until("the end of all jobs", lambda: not cluster.queue(), 30)
    wait_until("quiet hosts", lambda: not any(cluster.processes(host) for host in HOSTS), 30)

"""What a run would take, counted from stores and ledgers."""

import json
from pathlib import Path

import pytest
from campaigns import Campaign

import prepare_prompts
from milepost.campaign.identity import identify
from milepost.evaluation.work import remember_complete, requests_of
from milepost.nemo.runs import DONE, run_folders
from milepost.preflight.campaign import load_campaign
from milepost.preflight.plan import make_plan, render, summary
from milepost.preflight.submission import JobRequest, Submission
from milepost.records import read_prompts, write_record
from milepost.tasks import build_prompts
from milepost.terminal import duration


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """Two checkpoints on GPUs, two tasks of two items and two samples: four answers each. Nothing is prepared yet."""
    made = Campaign(tmp_path / "campaign", tmp_path / "code", tasks=("t1", "t2"))
    made.profile(gpus=1)
    monkeypatch.chdir(made.folder)
    return made


def answer(ckpt, task, count=4, **line):
    """Store the first answers of a task."""
    campaign = load_campaign()
    digest = identify(campaign.checkpoints[ckpt])["digest"]
    path = Path(f"results/store/{ckpt}/{task}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    requests = list(requests_of(build_prompts(campaign.tasks[task]), digest))[:count]
    lines = [
        {"key": request.key, "id": request.id, "sample": request.sample, "content": "yes", **line}
        for request in requests
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def took(ckpt, requests, start_s, busy_s, gpus=1):
    """Add an attempt to the ledger."""
    path = Path(f"results/store/{ckpt}/.ledger.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"attempt": path.stat().st_size if path.exists() else 0, "gpus": gpus, "start_s": start_s, "busy_s": busy_s}
    with path.open("a") as file:
        file.write(json.dumps({**line, "idle_s": 1.0, "requests": requests, "end": "done"}) + "\n")


def plan(*runtimes):
    request = JobRequest("evaluate_checkpoint", ("c1", "c2"), 1, runtimes=runtimes)
    return make_plan(load_campaign(), Submission("slurm", len(runtimes) or 1, requests=[request]))


def missing(made):
    return {job.ckpt: job.missing for job in made.jobs}


def test_without_a_store_everything_is_missing_and_the_walltime_bounds_it(campaign):
    made = plan(240, 480)
    assert missing(made) == {"c1": {"t1": 4, "t2": 4}, "c2": {"t1": 4, "t2": 4}}
    assert [job.expected_s for job in made.jobs] == [None, None]
    said = render(made)
    assert "2 GPU jobs, for 2 checkpoints of which 0 are complete." in said
    assert "at most 8.00 GPU hours in their first attempts" in said
    assert "no earlier job" in said
    assert not list(Path("results").rglob("prompts/*")), "nothing is prepared"


def test_stored_answers_are_not_missing(campaign):
    answer("c1", "t1")
    answer("c1", "t2", 3)
    assert missing(plan()) == {"c1": {"t1": 0, "t2": 1}, "c2": {"t1": 4, "t2": 4}}
    answer("c2", "t1", error={"type": "server", "message": "no"}, final=False, attempt="a")
    assert missing(plan())["c2"]["t1"] == 4, "errors that may go away are asked again"


def test_answers_to_other_questions_are_missing(campaign):
    answer("c1", "t1")
    campaign.items("t1", "other", "hello")
    assert missing(plan())["c1"]["t1"] == 2
    campaign.select("t1", "t2", limit=1)
    assert missing(plan())["c2"]["t1"] == 2


@pytest.mark.parametrize("changed", ["nothing", "prompts", "model"])
def test_a_task_that_is_remembered_as_complete_is_so_while_it_is_asked_the_same(campaign, changed, monkeypatch):
    answer("c1", "t1")
    write_record("results/models/c1.json", identify(load_campaign().checkpoints["c1"]))
    prepare_prompts.main(["--task", "t1", "--out", "results/prompts/t1.jsonl"])
    asked = read_prompts("results/prompts/t1.jsonl")
    remember_complete("c1", [asked], identify(load_campaign().checkpoints["c1"])["digest"])
    if changed == "prompts":
        campaign.items("t1", "other", "hello")
    elif changed == "model":
        campaign.write("m1/model.safetensors", "others")
    else:  # the store need not be read
        monkeypatch.setattr("milepost.preflight.plan.read_settled", None)
        monkeypatch.setattr("milepost.evaluation.work.read_settled", None)
    assert missing(plan())["c1"]["t1"] == {"nothing": 0, "prompts": 2, "model": 4}[changed]


def test_runs_of_a_harness_are_counted(campaign):
    spec = {"version": 1, "harness": "nemo", "eval_type": "h.t", "metric": "m", "samples": 3}
    campaign.write("config/tasks/h.yaml", json.dumps(spec))
    campaign.select("t1", "h")
    loaded = load_campaign()
    digest = identify(loaded.checkpoints["c1"])["digest"]
    folder = run_folders(Path("results/store/c1"), digest, build_prompts(loaded.tasks["h"]).header)[0]
    folder.mkdir(parents=True)
    (folder / DONE).touch()
    answer("c1", "t1")
    took("c1", 4, 30, 8)
    made = plan(60)
    first = made.jobs[0]
    assert (first.missing, first.answers, first.runs) == ({"t1": 0, "h": 2}, 0, 2)
    assert first.expected_s is None, "nothing says how long a run takes"
    assert "add what they take" in render(made)


def test_a_checkpoint_is_estimated_by_its_own_attempts(campaign):
    took("c1", 10, 40, 20)
    took("c1", 30, 60, 20)
    took("c1", 0, 500, 0)  # never got to a question
    took("c2", 1, 1, 1000)
    job = plan(240).jobs[0]
    assert job.pace.own
    assert (job.pace.start_s, job.pace.answer_s, job.pace.attempts) == (50, 1.0, 2)
    assert job.expected_s == 50 + 8
    assert job.gpu_hours == pytest.approx(58 / 3600)


def test_a_checkpoint_without_attempts_is_estimated_by_others_served_alike(campaign):
    took("c1", 10, 40, 20)
    job = plan(240).jobs[1]
    assert not job.pace.own
    assert job.expected_s == 40 + 16
    assert "1 earlier job(s) of others" in render(plan(240))


@pytest.mark.parametrize("otherwise", ["gpus", "profile"])
def test_attempts_of_checkpoints_served_otherwise_do_not_count(campaign, otherwise):
    if otherwise == "gpus":
        took("c1", 10, 40, 20, gpus=4)
    else:
        took("c1", 10, 40, 20)
        campaign.config["model_profiles"]["large"] = {"gpus": 1}
        campaign.select("t1", "t2")
        campaign.sheet("c1 m1 default, c2 m2 large", "name model model_profile")
    assert plan(240).jobs[1].pace is None


def test_a_walltime_that_is_too_short_is_said_beforehand(campaign):
    took("c1", 1, 60, 60)  # 60 s of start and a minute per answer: 9 minutes
    assert not any("WARNING" in line for line in summary(plan(10)))
    assert any("first attempt's walltime is too short for c1, c2" in line for line in summary(plan(5, 10)))
    assert any("all attempts together are too short for c1, c2" in line for line in summary(plan(2, 4)))


def test_a_complete_campaign_starts_nothing(campaign):
    for ckpt in ("c1", "c2"):
        for task in ("t1", "t2"):
            answer(ckpt, task)
    assert summary(plan(240)) == ["Nothing is missing: all 2 checkpoints are complete. No server would be started."]


def test_jobs_without_a_gpu_cost_none(campaign):
    campaign.profile(gpus=0)
    took("c1", 10, 40, 20, gpus=0)
    lines = summary(plan(240))
    assert lines[0] == "2 jobs, 0 of them on GPUs, for 2 checkpoints of which 0 are complete."
    assert lines[1].startswith("2 of them: 0.00 GPU hours expected")


def test_duration_in_hours_and_minutes():
    assert duration(7260) == "2 h 01 min"

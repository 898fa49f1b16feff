"""What a run does on SLURM, with stand-ins for its commands: the real ones are played in tests/cluster."""

import json
import stat

import pytest
import yaml

SLURM = ("--executor", "slurm", "--jobs", "1", "--slurm-init-seconds-before-status-checks", "1")


@pytest.fixture
def campaign(make_campaign, monkeypatch):
    made = make_campaign()
    (made.folder / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{made.folder}/bin:/usr/bin:/bin")
    return made


def command(campaign, name, script):
    """A command of SLURM that does what the test wants."""
    path = campaign.folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_run_beside_jobs_of_an_earlier_one_says_so_and_when_to_come_back(campaign):
    command(campaign, "squeue", "echo '7|RUNNING|2026-11-30T18:00:00|rule_evaluate_checkpoint_wildcards_c1|5f2a'")
    logs = campaign.folder / ".snakemake/log"
    logs.mkdir(parents=True)
    (logs / "before.snakemake.log").write_text("SLURM run ID: 5f2a\n")
    run = campaign.run(*SLURM)
    assert run.rc != 0
    said = " ".join(run.said.split())
    assert (
        "1 job of an earlier run of this campaign is still in SLURM's queue: 7 (evaluate_checkpoint c1, RUNNING" in said
    )
    assert run.jobs == []
    assert not (campaign.folder / "results/prompts").exists()
    looked = campaign.run(*SLURM, "plan")
    assert looked.rc == 0, looked.said


def test_jobs_are_told_with_which_resources_they_start_a_shared_server(campaign):
    campaign.write("config/endpoints.yaml", yaml.safe_dump({"judge": {"provider": "shared", "model": "m1", "gpus": 0}}))
    command(campaign, "sbatch", 'echo "$MILEPOST_SBATCH" >>bin/handed; echo "sbatch: error: no" >&2; exit 1')
    resources = ("--default-resources", "slurm_partition='main'", "runtime=7", "mem_mb=100")
    run = campaign.run(*SLURM, "results/evaluated/c1.json", *resources)
    assert "SLURM did not take the job of evaluate_checkpoint: no." in " ".join(run.said.split())
    handed = json.loads((campaign.folder / "bin/handed").read_text().splitlines()[0])
    assert handed == {"options": ["--partition=main", "--time=7", "--mem=100"], "gpu_model": ""}


def test_preflight_looks_at_what_serve_shared_asks_for(campaign):
    campaign.write("config/endpoints.yaml", yaml.safe_dump({"judge": {"provider": "shared", "model": "m1", "gpus": 1}}))
    command(
        campaign,
        "sinfo",
        "echo 'main*|up|1-00:00:00|2|idle|64000|NOGPU|(null)'; echo 'main*|up|1-00:00:00|1|idle|256000|A40,GPU|gpu:A40:2'",
    )
    resources = ("--default-resources", "slurm_partition='main'", "runtime=7", "mem_mb=100", "constraint='NOGPU'")
    run = campaign.run(*SLURM, "preflight", *resources)
    said = " ".join(run.said.split())
    assert "nodes for serve_shared constraint 'NOGPU': no such node has all of it" in said
    assert "set constraint for serve_shared in the profile" in said

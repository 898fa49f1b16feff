import json
import os
import stat
import threading
from pathlib import Path

import pytest

from milepost.errors import StoreError
from milepost.evaluation import earlier
from milepost.evaluation.earlier import refuse_beside_others

QUEUE = """\
101|RUNNING|2026-11-30T18:00:00|rule_evaluate_checkpoint_wildcards_demo-100|5f2a
102|PENDING|N/A|rule_evaluate_checkpoint_wildcards_demo-200|5f2a
103|RUNNING|2026-11-30T18:00:00|rule_serve_shared|5f2a
104|RUNNING|2026-11-30T18:00:00|rule_evaluate_checkpoint_wildcards_a|other_run
105|RUNNING|2026-11-30T18:00:00|(null)|5f2a|own
"""


@pytest.fixture
def said():
    return []


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(earlier, "MISSED_S", 0.5)
    earlier.LOGS.mkdir(parents=True)
    for number, run in enumerate(["77aa", "5f2a"]):
        (earlier.LOGS / f"{number}.snakemake.log").write_text(
            f"host: login\nSLURM run ID: {run}\nBuilding DAG of jobs\n"
        )


def squeue(says, rc=0):
    path = Path("bin/squeue")
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\nexit {rc}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def lease(ckpt, **holder):
    path = Path(f"results/store/{ckpt}/.lease")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"host": "gpu01", "pid": 7, "job": "9", "cluster": "vera", **holder}))
    return path


def test_jobs_of_an_earlier_run_are_named_with_when_to_come_back(said):
    squeue(QUEUE)
    with pytest.raises(StoreError) as error:
        refuse_beside_others(said.append)
    assert str(error.value) == (
        "2 jobs of an earlier run of this campaign are still in SLURM's queue: 101 (evaluate_checkpoint demo-100, RUNNING,"
        " until 2026-11-30T18:00:00 at most), 102 (evaluate_checkpoint demo-200, PENDING). Nothing was submitted, and what"
        " they answer is kept. Run the same command when `squeue --me` shows them no more, or end them first: scancel 101 102"
    )


@pytest.mark.parametrize(("says", "rc"), [("", 0), ("105|RUNNING|N/A|(null)|my|own\n", 0), (QUEUE, 1)])
def test_other_jobs_are_none_of_its_business(said, says, rc):
    squeue(says, rc)
    refuse_beside_others(said.append)
    assert said == []


@pytest.mark.parametrize("beats", [True, False])
def test_a_writer_elsewhere_is_found_by_its_heart(said, beats):
    path = lease("c1")
    over = threading.Event()

    def beat():
        while not over.wait(0.05):
            os.utime(path)

    heart = threading.Thread(target=beat)
    if beats:
        heart.start()
    try:
        if beats:
            with pytest.raises(
                StoreError, match=r"results/store/c1 by process 7 on gpu01, SLURM job 9 of cluster vera"
            ):
                refuse_beside_others(said.append)
        else:
            refuse_beside_others(said.append)
    finally:
        over.set()
        if beats:
            heart.join()
    assert len(said) == 1


def test_the_dead_and_those_of_this_host_are_not_waited_for(said):
    os.utime(lease("c1"), (1, 1))
    lease("c2", host=os.uname().nodename)
    refuse_beside_others(said.append)
    assert said == []


@pytest.mark.parametrize("closed", ["results", "results/models"])
def test_results_that_cannot_be_written_are_named_before_anything_runs(monkeypatch, closed):
    Path("results/models").mkdir(parents=True)
    earlier.refuse_unwritable()
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != closed)
    with pytest.raises(
        StoreError, match=rf"This run cannot write to {closed} \(you have no right to\)\. Nothing was run"
    ):
        earlier.refuse_unwritable()


def test_a_campaign_without_results_can_be_begun():
    earlier.refuse_unwritable()

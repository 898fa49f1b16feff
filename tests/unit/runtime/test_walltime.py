import asyncio

import pytest

from milepost.runtime.walltime import near_the_end, seconds_left


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A stand-in for squeue: prints the next line of a file at each call, and the last line from then on."""
    program, says = tmp_path / "bin" / "squeue", tmp_path / "says"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nhead -n 1 {says}\n[ $(wc -l <{says}) = 1 ] || sed -i 1d {says}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "17")

    def say(*lines):
        says.write_text("".join(f"{line}\n" for line in lines))

    return say


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("0:59", 59),
        ("3:59:30", 14370),
        ("6-23:59:59", 604799),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),  # a job in its last seconds
        ("slurm_load_jobs error: Unable to contact slurm controller", None),
    ],
)
def test_seconds_left(squeue, said, left):
    squeue(said)
    assert seconds_left() == left


def test_there_is_no_walltime_outside_a_job(squeue, monkeypatch):
    squeue("0:59")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert seconds_left() is None


def test_there_is_no_walltime_without_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert seconds_left() is None


def test_the_end_is_near_at_once(squeue):
    squeue("0:20")
    assert asyncio.run(asyncio.wait_for(near_the_end(60), 5)) == pytest.approx(20, abs=1)


def test_a_job_that_was_given_more_time_uses_it(squeue):
    squeue("1:01", "5:00")
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(near_the_end(60), 3))


def test_the_last_answer_of_slurm_holds_while_it_is_silent(squeue):
    squeue("1:01", "")
    assert asyncio.run(asyncio.wait_for(near_the_end(60), 5)) == pytest.approx(60, abs=1)

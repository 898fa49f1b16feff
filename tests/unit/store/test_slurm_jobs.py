import os
import stat

import pytest

from milepost.store import slurm_jobs
from milepost.store.slurm_jobs import job_has_ended, job_is_awaited, names_of_job

JOB = {"job": "77", "cluster": "alvis"}
NO_SUCH_JOB = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program of SLURM into the way that says what the test wants."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    slurm_jobs._configured_name.cache_clear()

    def write(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    yield write
    slurm_jobs._configured_name.cache_clear()


@pytest.mark.parametrize(
    ("says", "ended", "awaited"),
    [
        ("echo RUNNING", False, True),
        ("echo PENDING", False, True),
        ("echo COMPLETING", False, True),
        ("echo CANCELLED", True, False),
        ("echo TIMEOUT", True, False),
        ("exit 0", False, False),
        (NO_SUCH_JOB, False, False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", False, True),
        ('test "$*" = "--noheader --states=all --jobs 77 --format %T" && echo FAILED', True, False),
    ],
)
def test_whether_a_job_has_ended_is_what_slurm_says(program, says, ended, awaited):
    program("scontrol", "echo 'ClusterName             = alvis'")
    program("squeue", says)
    assert job_has_ended(JOB) is ended
    assert job_is_awaited(JOB) is awaited


@pytest.mark.parametrize(
    "record", [{"job": "77", "cluster": "vera"}, {"job": "77"}, {"job": None, "cluster": "alvis"}, {}]
)
def test_a_job_of_another_cluster_is_neither_over_nor_waited_for(program, record):
    program("scontrol", "echo 'ClusterName             = alvis'")
    program("squeue", "echo CANCELLED")
    assert not job_has_ended(record)
    program("squeue", "echo RUNNING")
    assert not job_is_awaited(record)


def test_a_job_is_named_with_its_cluster(program, monkeypatch):
    program("scontrol", "echo 'AccountingStorageHost = x'; echo 'ClusterName             = alvis'")
    assert names_of_job("77") == JOB
    assert names_of_job(None) == {"job": None, "cluster": None}
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "vera")
    assert names_of_job("77") == {"job": "77", "cluster": "vera"}


def test_without_slurm_no_job_is_known_to_have_ended(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "alvis")
    assert not job_has_ended(JOB)
    assert job_is_awaited(JOB)

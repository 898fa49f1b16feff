"""`snakemake preflight --profile slurm` on a real cluster finds what it lacks, and a job it refuses says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from project import Project

RIGHT_GPU = "gpu_model: \"'A40' if gpus(wildcards) else ''\"\n    # gpu_model: \"dict("  # of evaluate_checkpoint
# What a user may write wrongly into the profile, and what is found of it: state, check, words.
MISTAKES = {
    "account": (
        ("slurm_account: \"'proj1'\"", "slurm_account: \"'prj1'\""),
        "'prj1' is no account of yours. You have: proj1, proj2.",
    ),
    "GPU type": ((RIGHT_GPU, RIGHT_GPU.replace("A40", "A100")), "partition main has no GPU 'A100'. Its GPUs: A40."),
    "walltime": (
        ("runtime: 240 * attempt", "runtime: 600 * attempt"),
        "600, 1200, 1800 minutes in attempts 1 to 3, but partition main ends jobs after 1440",
    ),
    "partition": (
        ("slurm_partition: \"'main'\"", "slurm_partition: \"'mian'\""),
        "there is no 'mian'. There are: main.",
    ),
}


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Project]) -> Project:
    """A campaign that nobody has run."""
    return make_project("looks")


def look(project: Project) -> str:
    """What preflight says, in one line: a table's cells go over several."""
    project.start("preflight")
    project.finish(300)
    return " ".join(project.said().split())


def test_a_site_that_fits_passes(project: Project) -> None:
    said = look(project)
    for line in (
        "ok account proj1",
        "ok partition main",
        "ok nodes for evaluate_checkpoint",
        "ok walltime of evaluate_checkpoint 240, 480, 720 minutes in attempts 1 to 3",
        "ok trial of evaluate_checkpoint SLURM would take the job now",
        "ok trial of score_on_node SLURM would take the job now",
    ):
        assert line in said


@pytest.mark.parametrize("mistakes", [("account", "GPU type", "walltime"), ("partition",)])
def test_what_the_site_lacks_is_found(project: Project, mistakes: tuple[str, ...]) -> None:
    for mistake in mistakes:
        project.edit("profiles/slurm/config.yaml", *MISTAKES[mistake][0])
    try:
        said = look(project)
    finally:
        for mistake in mistakes:
            project.edit("profiles/slurm/config.yaml", *reversed(MISTAKES[mistake][0]))
    for mistake in mistakes:
        assert MISTAKES[mistake][1] in said
    assert "checks failed" in said


def test_a_job_that_slurm_refuses_has_the_reason_in_its_log(project: Project) -> None:
    wrong = MISTAKES["partition"][0]
    project.edit("profiles/slurm/config.yaml", *wrong)
    project.start("--retries", "0", "results/evaluated/demo-50.json")
    assert project.finish(300) != 0
    project.edit("profiles/slurm/config.yaml", *reversed(wrong))
    for said in (project.said(), project.log("demo-50")):
        assert "SubmissionError: SLURM did not take the job of evaluate_checkpoint: invalid partition specified" in said
        assert "snakemake preflight" in said

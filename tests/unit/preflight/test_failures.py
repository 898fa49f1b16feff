from pathlib import Path

import pytest

from milepost.preflight.failures import explain_failures

# What Snakemake 9.27 wrote on a real cluster, shortened where it repeats itself.
REFUSED = """\
[Sat Nov 21 12:34:05 2026]
Error in rule evaluate_checkpoint:
    message: SLURM sbatch failed. The error message was 'sbatch: error: {words}
sbatch: error: Batch job submission failed: {words}'.
    sbatch call:
        sbatch --parsable --job-name c8ca -p mian{exclude} --ntasks=1
For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 4
    output: results/evaluated/any.json
    log: logs/evaluate_checkpoint/any.log (check log file(s) for error details)
    shell:
        python
"""
NO_ACCOUNT = """\
Error in rule evaluate_checkpoint:
    message: Job submission failed with exception: The given account prj1 appears to be invalid. Available accounts:
proj1, proj2For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 4
    log: logs/evaluate_checkpoint/any.log (check log file(s) for error details)
"""
FAILED = """\
[Sat Nov 21 12:34:05 2026]
Error in rule {rule}:
    message: {message}
    jobid: 4
    input: results/models/{ckpt}.json
    output: {output}
    log: logs/{rule}/{ckpt}.log, logs/slurm/7.log (check log file(s) for error details)
    shell:
        python evaluate_checkpoint.py
"""
STOPPED = (
    "Stopped: Ended by itself, because 58 s of this job's walltime are left, after {done} of 900 answers. What came is stored;"
    " the next run goes on there, and so does Snakemake's retry, with the time that the profile gives it."
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def log(path, *lines):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def failed(ckpt, state="FAILED", rule="evaluate_checkpoint"):
    message = f"SLURM-job '7' failed, SLURM status is: '{state}'." if state else "None"
    return FAILED.format(rule=rule, ckpt=ckpt, message=message, output=f"results/evaluated/{ckpt}.json")


def explain(*blocks):
    Path("run.log").write_text("".join(blocks))
    return explain_failures(["run.log"])


def test_three_walltimes_that_were_too_short_are_the_last_words():
    path = "logs/evaluate_checkpoint/c1.log"
    for done in (100, 200, 300):
        log(path, f"12:00:00 [c1] {done} of 900 answers", STOPPED.format(done=done))
    (said,) = explain(failed("c1"), failed("c1"), failed("c1"))
    assert said.startswith(
        "evaluate_checkpoint failed (logs/evaluate_checkpoint/c1.log): Stopped: Ended by itself, because"
    )
    assert "after 300 of 900 answers" in said
    assert "raise `runtime` of evaluate_checkpoint in the profile" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("TIMEOUT", "SLURM ended it at its walltime"),
        ("OUT_OF_MEMORY", "more memory than mem_mb of evaluate_checkpoint"),
        ("NODE_FAIL", "its node went down"),
        ("CANCELLED", "somebody cancelled it"),
        ("PREEMPTED", "took its place"),
    ],
)
def test_what_slurm_did_to_the_last_try_is_no_reason_of_an_earlier_one(state, words):
    log("logs/evaluate_checkpoint/c1.log", STOPPED.format(done=100), "12:00:00 [c1] opening the endpoint (hosted)")
    (said,) = explain(failed("c1"), failed("c1", state))
    assert words in said
    assert "Stopped" not in said


def test_an_error_of_several_lines_is_one_paragraph():
    log(
        "logs/evaluate_checkpoint/c1.log",
        "12:00:00 [c1] opening",
        "ServerError: The server ended. Its last lines:",
        "  no",
        "  room",
    )
    assert explain(failed("c1", None)) == [
        "evaluate_checkpoint failed (logs/evaluate_checkpoint/c1.log): ServerError: The server ended. Its last lines: no room"
    ]


def test_one_reason_of_many_jobs_is_said_once_and_what_a_retry_made_up_for_is_not():
    for number in range(5):
        log(f"logs/evaluate_checkpoint/c{number}.log", "ModelError: the disk is gone.")
    Path("results/evaluated").mkdir(parents=True)
    Path("results/evaluated/c0.json").write_text("{}")
    (said,) = explain(*(failed(f"c{number}") for number in range(5)))
    assert said == (
        "evaluate_checkpoint failed (logs/evaluate_checkpoint/c1.log, logs/evaluate_checkpoint/c2.log,"
        " logs/evaluate_checkpoint/c3.log and 1 more): ModelError: the disk is gone."
    )


def test_many_reasons_are_cut_short():
    for number in range(12):
        log(f"logs/evaluate_checkpoint/c{number}.log", f"ModelError: disk {number} is gone.")
    said = explain(*(failed(f"c{number}") for number in range(12)))
    assert (len(said), said[-1]) == (9, "... and 4 more reasons, in the logs of these steps.")


def test_a_job_without_words_is_passed_over():
    assert explain(failed("c1", None), failed("c2", "FAILED")) == []


def test_why_slurm_refused_is_one_paragraph_also_in_the_log_of_the_job():
    refused = REFUSED.format(words="invalid partition specified: mian", exclude="")
    (paragraph,) = explain(refused, refused)
    assert "invalid partition specified: mian" in paragraph
    assert "sinfo -o" in paragraph
    assert "\n" not in paragraph
    assert Path("logs/evaluate_checkpoint/any.log").read_text() == f"{paragraph}\n"


def test_an_account_that_the_plugin_refused_is_explained_too():
    (said,) = explain(NO_ACCOUNT)
    assert said.startswith(
        "SubmissionError: SLURM did not take the job of evaluate_checkpoint: The given account prj1 appears to be invalid."
        " Available accounts: proj1, proj2. Nothing was asked"
    )


@pytest.mark.parametrize(
    ("words", "exclude", "node"),
    [
        ("Requested node configuration is not available", " --exclude=gpu01", True),
        ("Requested node configuration is not available", "", False),
        ("Invalid account", " --exclude=gpu01", False),
    ],
)
def test_a_node_that_went_down_and_was_the_last_that_fits_is_named(words, exclude, node):
    (said,) = explain(REFUSED.format(words=words, exclude=exclude))
    assert ("gpu01 went down in this run" in said) is node
    assert ("a new run leaves no node out" in said) is node
    assert ("Nothing was asked" in said) is not node

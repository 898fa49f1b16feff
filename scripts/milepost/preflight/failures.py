"""Why jobs of a run failed, as the run's last words say it: Snakemake's own stand pages above, one after each try."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from milepost.errors import listed
from milepost.runtime.processes import last_lines

# How many different reasons are said at the end, and how long one may be.
MOST, LONGEST = 8, 1200
# What SLURM ends a job with, in the words of its own; our step had no time for any.
ENDED_BY_SLURM = {
    "TIMEOUT": "SLURM ended it at its walltime, before it had ended itself. Raise `runtime` of {rule} in the profile, or"
    " walltime_margin_s in config/config.yaml.",
    "OUT_OF_MEMORY": "it needed more memory than mem_mb of {rule} in the profile. Raise it.",
    "NODE_FAIL": "its node went down. Run the same command again: it goes on from what is stored.",
    "CANCELLED": "somebody cancelled it (scancel, or an administrator). Run the same command again: it goes on from what is"
    " stored.",
    "PREEMPTED": "a job of more weight took its place. Run the same command again: it goes on from what is stored.",
}
WALLTIME = "of this job's walltime are left"
LONGER = (
    " The last try had no more time than that: raise `runtime` of {rule} in the profile, for later tries too (240 * attempt),"
    " or run the same command again as it is: it goes on there."
)


@dataclass(frozen=True)
class FailedJob:
    """A try of a job that failed, as Snakemake's log tells of it."""

    rule: str
    message: str
    outputs: tuple[Path, ...]
    log: Path | None


def failed_jobs(text: str) -> Iterator[FailedJob]:
    """The tries that failed, in a log of Snakemake's, oldest first."""
    for block in re.split(r"^Error in rule ", text, flags=re.MULTILINE)[1:]:
        log = re.search(r"^    log: (.*?)(?: \(check log|$)", block, re.MULTILINE)
        outputs = re.search(r"^    output: (.*)$", block, re.MULTILINE)
        message = re.search(
            r"^    message: (.*?)(?:For further error details|^    jobid: |\Z)", block, re.DOTALL | re.MULTILINE
        )
        yield FailedJob(
            block.partition(":")[0],
            message[1] if message else "",
            tuple(map(Path, outputs[1].split(", "))) if outputs else (),
            Path(log[1].partition(", ")[0]) if log else None,  # ours; SLURM's stands behind it
        )


def explain_failures(snakemake_logs: Iterable[str]) -> list[str]:
    """Say in a paragraph each why jobs failed; what a later try made up for is left out.

    What SLURM did not take at all is written into the job's log, too, which is empty otherwise.

    Args:
        snakemake_logs: Snakemake's own logs of the run that failed.
    """
    text = "".join(Path(log).read_text(errors="replace") for log in snakemake_logs)
    last = {(job.rule, job.log): job for job in failed_jobs(text)}
    reasons: dict[tuple[str, str], list[FailedJob]] = {}
    for job in last.values():
        if job.outputs and all(output.exists() for output in job.outputs):
            continue
        refused = refusal(job)
        if refused and job.log is not None:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("a") as file:
                file.write(f"{refused}\n")
        reason = refused or reason_of(job)
        if reason:
            reasons.setdefault((job.rule, reason), []).append(job)
    said = [
        reason if reason.startswith("SubmissionError") else f"{rule} failed ({where(jobs)}): {reason}"
        for (rule, reason), jobs in reasons.items()
    ]
    more = [f"... and {len(said) - MOST} more reasons, in the logs of these steps."] if len(said) > MOST else []
    return said[:MOST] + more


def where(jobs: list[FailedJob]) -> str:
    """The logs of jobs that failed for one reason."""
    return listed([str(job.log) for job in jobs if job.log is not None] or ["no log"], most=3)


def reason_of(job: FailedJob) -> str:
    """Why a job failed, in its own last words, or by what SLURM did to it; empty where neither says anything."""
    lines = last_lines(job.log, 60).splitlines() if job.log is not None else []
    # Its own words end its log. What stands above a line of progress was said by an earlier try.
    for number in range(len(lines) - 1, -1, -1):
        if re.match(r"[A-Z]\w*(Error|Stopped|Exception)?: ", lines[number]) and not re.match(
            "INFO|WARNING", lines[number]
        ):
            words = " ".join(" ".join(lines[number:]).split())[:LONGEST]
            return words + (LONGER.format(rule=job.rule) if WALLTIME in words else "")
        if re.match(r"\d\d:\d\d:\d\d \[", lines[number]):
            break
    state = re.search(r"status is: '(\w+)", job.message)
    return ENDED_BY_SLURM.get(state[1], "").format(rule=job.rule) if state else ""


def refusal(job: FailedJob) -> str:
    """Why SLURM did not take a job at all, and what to do; empty if it took it."""
    found = re.search(
        r"sbatch failed\. The error message was '(?P<sbatch>.*?)'\.$|Job submission failed with exception: (?P<plugin>.*)",
        job.message,
        re.DOTALL | re.MULTILINE,
    )
    if found is None:
        return ""
    words = " ".join((found["sbatch"] or found["plugin"]).replace("sbatch: error:", "").split()).removesuffix(".")
    begun = f"SubmissionError: SLURM did not take the job of {job.rule}: {words}."
    left_out = re.search(r" --exclude=(\S+)", job.message)
    if left_out and "node" in words.lower():
        return (
            f"{begun} {left_out[1]} went down in this run, Snakemake leaves it out of all later tries, and no other node fits"
            " what this job asks for. What was answered is stored. Run the same command again: a new run leaves no node out,"
            " and its jobs wait until `sinfo -R` lists the node no more. Or let it go elsewhere: another gpu_model,"
            " constraint or slurm_partition in the profile."
        )
    return (
        f"{begun} Nothing was asked, and no GPU was used."
        " `snakemake preflight` with the same --profile says what this cluster offers;"
        " `sacctmgr show associations user=$USER format=account,partition` shows your accounts, `sinfo -o '%P %l %G %f'` the"
        " partitions with their longest walltime, GPUs and features. Correct slurm_account, slurm_partition, gpu_model,"
        " constraint or runtime in the profile, and run again."
    )

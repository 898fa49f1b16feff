"""Estimates what a run would take: jobs, missing answers, and the GPU time to expect from earlier jobs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from milepost.campaign.identity import CACHE, DigestCache, identify
from milepost.campaign.types import Campaign, Checkpoint, NativeTask
from milepost.errors import RecordError, listed
from milepost.evaluation.work import MODELS, PROMPTS, Request, is_complete, requests_of, store_file
from milepost.judges.asking import kept_calls
from milepost.nemo.runs import missing_runs
from milepost.preflight.campaign import scorer_of
from milepost.preflight.costs import CostEstimate, estimate_costs, priced, render_costs
from milepost.preflight.submission import Submission
from milepost.records import PromptSet, read_prompts, read_record
from milepost.store.answers import STORE, read_records_if_any, read_settled
from milepost.store.forget import ANSWERS
from milepost.store.ledger import LEDGER
from milepost.tasks import build_prompts
from milepost.terminal import columns, duration

SHOWN = 40  # rows of a table
CHARS = 4  # of a token, where nobody has counted


@dataclass(frozen=True)
class Pace:
    """How fast earlier attempts were.

    Attributes:
        start_s: Until the server answered, the median.
        answer_s: Busy seconds per answer, over all of them.
        attempts: How many these numbers come from.
        own: Whether they are the checkpoint's own; else those of others with its model profile and GPUs.
    """

    start_s: float
    answer_s: float
    attempts: int
    own: bool


@dataclass
class JobEstimate:
    """What one checkpoint lacks, and what its job would take.

    Attributes:
        gpus: GPUs of its server.
        asked: Answers that are asked for, task by task; for a task of NeMo Evaluator, runs.
        missing: Of these, the answers or runs that the store lacks, task by task.
        answers: Missing answers to native tasks.
        runs: Missing runs of NeMo Evaluator.
        walltimes_s: Of each attempt; empty where the profile sets none.
        pace: What earlier attempts took; None where there are none to go by.
    """

    ckpt: str
    gpus: int
    asked: dict[str, int]
    missing: dict[str, int]
    answers: int
    runs: int
    walltimes_s: tuple[float, ...] = ()
    pace: Pace | None = None

    @property
    def needed(self) -> bool:
        """Whether a server has to be started."""
        return any(self.missing.values())

    @property
    def expected_s(self) -> float | None:
        """Expected walltime; None without earlier attempts. Runs of NeMo Evaluator are not timed, so they do not count in it."""
        return self.pace.start_s + self.pace.answer_s * self.answers if self.pace and self.answers else None

    @property
    def gpu_hours(self) -> float | None:
        """Expected GPU hours; None where no walltime can be expected."""
        return None if self.expected_s is None else self.gpus * self.expected_s / 3600


@dataclass(frozen=True)
class JudgingEstimate:
    """What one judge has to be asked about the answers to one task, of all checkpoints together.

    Attributes:
        calls: Verdicts on all answers.
        kept: Of these, replies that are kept, of questions that were asked again as well.
        tokens_in: Of the calls that are to come, answers included; four characters count as a token.
        most_out: Tokens of their replies, if all were as long as they may be.
    """

    task: str
    judge: str
    calls: int
    kept: int
    tokens_in: float
    most_out: int

    @property
    def to_come(self) -> int:
        """Calls that are to come."""
        return max(0, self.calls - self.kept)


@dataclass
class CampaignPlan:
    """The estimates for all checkpoints of a campaign, in the order of the sheet."""

    jobs: list[JobEstimate]
    submission: Submission
    kinds: dict[str, str] = field(default_factory=dict)
    judging: list[JudgingEstimate] = field(default_factory=list)
    costs: list[CostEstimate] = field(default_factory=list)
    budget: float | None = None

    @property
    def needed(self) -> list[JobEstimate]:
        """The jobs that will have to start a server."""
        return [job for job in self.jobs if job.needed]


def make_plan(campaign: Campaign, submission: Submission) -> CampaignPlan:
    """Count what is missing, and estimate what it will take; reads the stores, asks and starts nothing.

    Questions are built from the tasks as they are now, whether `prepare_prompts` has written them down or not.
    """
    prompts = {name: build_prompts(task, campaign.config.get("limit")) for name, task in campaign.tasks.items()}
    written = {name: _is_written(asked) for name, asked in prompts.items()}
    digests = DigestCache(CACHE)
    attempts = {name: attempts_at(name) for name in campaign.checkpoints}
    jobs = []
    for ckpt in campaign.checkpoints.values():
        digest = identify(ckpt, digests)["digest"]
        described = _is_described(ckpt.name, digest)
        missing = {
            name: 0
            if described and written[name] and is_complete(ckpt.name, [name])
            else count(ckpt.name, digest, asked)
            for name, asked in prompts.items()
        }
        asked = {name: size(each) for name, each in prompts.items()}
        native = [name for name, task in campaign.tasks.items() if task.kind == "native"]
        answers = sum(missing[name] for name in native)
        job = JobEstimate(ckpt.name, ckpt.serving.gpus, asked, missing, answers, sum(missing.values()) - answers)
        job.walltimes_s = tuple(60 * runtime for runtime in submission.request_of(ckpt.name).runtimes)
        job.pace = pace_of(ckpt, campaign, attempts) if job.needed else None
        jobs.append(job)
    digests.save()
    kinds: dict[str, str] = {name: task.kind for name, task in campaign.tasks.items()}
    judging = [
        estimate
        for name, task in campaign.native.items()
        for estimate in judging_of(task, prompts[name], list(campaign.checkpoints))
    ]
    paid = [ckpt for ckpt in campaign.checkpoints.values() if ckpt.endpoint and ckpt.endpoint.name in priced(campaign)]
    unanswered = {
        ckpt.name: missing_requests(ckpt.name, identify(ckpt, digests)["digest"], prompts.values()) for ckpt in paid
    }
    verdicts = [(one.judge, one.to_come, one.tokens_in, float(one.most_out)) for one in judging]
    costs = estimate_costs(campaign, unanswered, verdicts)
    return CampaignPlan(jobs, submission, kinds, judging, costs, campaign.config.get("budget"))


def missing_requests(ckpt: str, digest: str, prompts: Iterable[PromptSet]) -> Iterator[Request]:
    """The questions of our own tasks that a checkpoint's store does not answer."""
    for asked in prompts:
        if asked.header["kind"] == "native":
            path = store_file(ckpt, asked.header["task"])
            settled = read_settled(path) if path.exists() else {}
            yield from (request for request in requests_of(asked, digest) if request.key not in settled)


def judging_of(task: NativeTask, prompts: PromptSet, ckpts: Sequence[str]) -> list[JudgingEstimate]:
    """What each judge of a task has to be asked. Answers that are not there yet are as long as the others, or as they may be."""
    scorer = scorer_of(task)
    judges = scorer.needs().judges
    if not judges:
        return []
    per_answer = [scorer.expected_calls(item) for item in prompts.prompts]
    calls = sum(one.calls for one in per_answer) * prompts.header["samples"]
    if not calls:
        return []
    lengths = [
        len(str(line.get("content") or ""))
        for ckpt in ckpts
        for line in read_records_if_any(ANSWERS / ckpt / f"{task.name}.jsonl")
    ]
    most = prompts.header["sampling"].get("at_most", prompts.header["sampling"].get("max_tokens", 0))
    answer = statistics.fmean(lengths) / CHARS if lengths else float(most) if isinstance(most, int) else 0.0
    asked = sum(one.chars for one in per_answer) / CHARS + answer * sum(one.answers for one in per_answer)
    tokens_in = asked * prompts.header["samples"] / calls
    found = []
    for judge in judges:
        kept = sum(sum(1 for _ in read_records_if_any(kept_calls(judge, ckpt, task.name))) for ckpt in ckpts)
        whole = calls * len(ckpts)
        to_come = max(0, whole - kept)
        found.append(
            JudgingEstimate(task.name, judge, whole, kept, to_come * tokens_in, to_come * scorer.longest_reply)
        )
    return found


def size(prompts: PromptSet) -> int:
    """The number of answers that a task asks of a checkpoint; for NeMo Evaluator, of runs."""
    return prompts.header["samples"] * (len(prompts.prompts) if prompts.header["kind"] == "native" else 1)


def count(ckpt: str, digest: str, prompts: PromptSet) -> int:
    """Count the answers or runs that a checkpoint's store lacks for one task."""
    if prompts.header["kind"] == "nemo":
        return len(missing_runs(STORE / ckpt, digest, prompts.header))
    path = store_file(ckpt, prompts.header["task"])
    if not path.exists():
        return size(prompts)
    settled = read_settled(path)
    return sum(request.key not in settled for request in requests_of(prompts, digest))


def _is_written(prompts: PromptSet) -> bool:
    """Whether the prompts on disk are today's: the memory of complete tasks is about the prompts on disk."""
    try:
        written = read_prompts(PROMPTS / f"{prompts.header['task']}.jsonl")
    except (RecordError, OSError):
        return False
    written.header.pop("asked", None)
    return written == prompts


def _is_described(ckpt: str, digest: str) -> bool:
    """Whether the model's file on disk is today's: the memory of complete tasks is about the model on disk."""
    try:
        return bool(read_record(MODELS / f"{ckpt}.json")["digest"] == digest)
    except (RecordError, KeyError):
        return False


def attempts_at(ckpt: str) -> list[dict[str, Any]]:
    """The attempts in a checkpoint's ledger that got answers."""
    lines = read_records_if_any(STORE / ckpt / LEDGER)
    return [line for line in lines if line.get("requests", 0) > 0 and line.get("busy_s", 0) > 0]


def pace_of(ckpt: Checkpoint, campaign: Campaign, attempts: dict[str, list[dict[str, Any]]]) -> Pace | None:
    """The pace of the checkpoint's own attempts, or else that of others that are served alike.

    Args:
        ckpt: The checkpoint.
        campaign: All checkpoints.
        attempts: Lines of the ledgers, by checkpoint.
    """
    alike = [
        other.name
        for other in campaign.checkpoints.values()
        if (other.model_profile, other.serving.gpus) == (ckpt.model_profile, ckpt.serving.gpus)
    ]
    for names, own in (([ckpt.name], True), (alike, False)):
        lines = [line for name in names for line in attempts[name] if line.get("gpus") == ckpt.serving.gpus]
        if lines:
            busy, requests = (sum(line[key] for line in lines) for key in ("busy_s", "requests"))
            return Pace(statistics.median(line.get("start_s", 0) for line in lines), busy / requests, len(lines), own)
    return None


def render(plan: CampaignPlan) -> str:
    """The plan as text: tables of tasks and jobs, their sums, and warnings."""
    parts = [_tasks(plan), _jobs(plan), "\n".join(summary(plan)), _judging(plan), render_costs(plan.costs, plan.budget)]
    return "\n\n".join(part for part in parts if part)


def _tasks(plan: CampaignPlan) -> str:
    rows = [("task", "asked of each", "stored", "missing", "")]
    for name, kind in plan.kinds.items():
        asked = sum(job.asked[name] for job in plan.jobs)
        missing = sum(job.missing[name] for job in plan.jobs)
        unit = "runs of NeMo Evaluator" if kind == "nemo" else "answers"
        rows.append((name, f"{plan.jobs[0].asked[name]}", f"{asked - missing}", f"{missing}", unit))
    return "\n".join(columns(rows, right=range(1, 4)))


def _judging(plan: CampaignPlan) -> str:
    if not plan.judging:
        return ""
    rows: list[tuple[str, ...]] = [("task", "judge", "calls", "kept", "to come", "tokens in", "tokens out, at most")]
    rows += [
        (
            one.task,
            one.judge,
            str(one.calls),
            str(one.kept),
            str(one.to_come),
            large(one.tokens_in),
            large(one.most_out),
        )
        for one in plan.judging
    ]
    why = (
        "Judges are asked when the answers are there, and about those only that they were not asked yet. A token counts as "
        f"{CHARS} characters; a reply that cannot be read is asked again up to three times."
    )
    return "\n".join([*columns(rows, right=range(2, 7)), why])


def large(count: float) -> str:
    """A large number, as it is said.

    >>> large(950), large(42_000), large(3_460_000)
    ('950', '42 thousand', '3.5 million')
    """
    if count < 10_000:
        return f"{count:.0f}"
    return f"{count / 1e3:.0f} thousand" if count < 1e6 else f"{count / 1e6:.1f} million"


def _jobs(plan: CampaignPlan) -> str:
    rows: list[tuple[str, ...]] = [
        ("checkpoint", "GPUs", "answers missing", "runs missing", "expected", "walltime", "GPU hours", "from")
    ]
    for job in plan.needed[:SHOWN]:
        rows.append(
            (
                job.ckpt,
                str(job.gpus),
                str(job.answers),
                str(job.runs),
                duration(job.expected_s),
                duration(job.walltimes_s[0] if job.walltimes_s else None),
                "?" if job.gpu_hours is None else f"{job.gpu_hours:.2f}",
                basis(job),
            )
        )
    if len(plan.needed) > SHOWN:
        rows.append((f"and {len(plan.needed) - SHOWN} more", *[""] * 7))
    return "\n".join(columns(rows, right=range(1, 7))) if plan.needed else ""


def basis(job: JobEstimate) -> str:
    """The earlier jobs that an estimate rests on, in words."""
    if job.expected_s is None:
        return "no earlier job" if not job.pace else "not timed"
    assert job.pace is not None, "an expectation rests on earlier attempts"
    return f"{job.pace.attempts} earlier job(s) {'of its own' if job.pace.own else 'of others'}"


def summary(plan: CampaignPlan) -> list[str]:
    """The sentences below the tables: sums, and warnings."""
    needed, total = plan.needed, len(plan.jobs)
    if not needed:
        return [f"Nothing is missing: all {total} checkpoints are complete. No server would be started."]
    on_gpus = [job for job in needed if job.gpus]
    jobs = "job" if len(needed) == 1 else "jobs"
    kind = f"GPU {jobs}" if len(on_gpus) == len(needed) else f"{jobs}, {len(on_gpus)} of them on GPUs"
    lines = [f"{len(needed)} {kind}, for {total} checkpoints of which {total - len(needed)} are complete."]
    timed = [job for job in needed if job.expected_s is not None]
    if timed:
        hours = sum(job.gpu_hours or 0 for job in timed)
        longest = max(job.expected_s or 0 for job in timed)
        lines.append(
            f"{len(timed)} of them: {hours:.2f} GPU hours expected, the longest job {duration(longest)}."
            " Expected is the median start of earlier jobs, and their seconds per answer times the answers missing;"
            " longer answers or fewer at once change it."
        )
    untimed = [job for job in needed if job.expected_s is None]
    if untimed:
        bounded = [job for job in untimed if job.walltimes_s]
        hours = sum(job.gpus * job.walltimes_s[0] / 3600 for job in bounded)
        bound = f": at most {hours:.2f} GPU hours in their first attempts, by their walltime" if bounded else ""
        lines.append(f"For {len(untimed)} no earlier job tells what to expect{bound}.")
    if any(job.runs for job in needed):
        lines.append("The ledger does not time runs of NeMo Evaluator by themselves: add what they take.")
    lines += warnings(needed)
    return lines


def warnings(jobs: Sequence[JobEstimate]) -> Iterable[str]:
    """Warnings about jobs whose walltime is shorter than what they are expected to take."""
    timed = [(job, job.expected_s, job.walltimes_s) for job in jobs if job.expected_s is not None and job.walltimes_s]
    never = [job.ckpt for job, expected, walltimes in timed if expected > sum(walltimes)]
    late = [job.ckpt for job, expected, walltimes in timed if walltimes[0] < expected <= sum(walltimes)]
    if never:
        yield f"WARNING: all attempts together are too short for {listed(never)}: raise `runtime` in the profile."
    if late:
        yield (
            f"WARNING: the first attempt's walltime is too short for {listed(late)}: the next attempt goes on from the"
            " store, but starts its server anew. Raise `runtime` in the profile."
        )

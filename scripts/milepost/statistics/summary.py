"""From the scores of one checkpoint on one task to its summary: every number with its error, and what went wrong."""

from __future__ import annotations

import logging
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from milepost.errors import RecordError
from milepost.reasoning import reasoning_tokens, split_answer
from milepost.records import Answer, Estimate, PromptSet, ReasoningUse, Runs, Score, Summary, Variance
from milepost.statistics.means import FEW_CLUSTERS, advise, mean_estimate, split_variance
from milepost.statistics.metrics import Metric, clusters_of
from milepost.statistics.outcomes import outcomes_of
from milepost.statistics.samples_at_k import estimates_at

log = logging.getLogger(__name__)

# A metric of this name is the score of a blind guess; figures draw it as a line.
CHANCE = "chance"

# By item, the values of its samples.
Values = dict[str, list[float]]
# Every number, with its error, of some of the scores.
Reduce = Callable[[Sequence[Score]], Mapping[str, Estimate]]


def summarize(
    ckpt: str,
    prompts: PromptSet,
    answers: Sequence[Answer],
    scores: Sequence[Score],
    *,
    scorer: str,
    metric: str,
    provenance: Mapping[str, Any],
    metrics: Iterable[Metric] = (),
    reduce: Reduce | None = None,
    ks: Sequence[int] = (),
    server: Mapping[str, Any] | None = None,
) -> Summary:
    """Reduce the scores of one checkpoint on one task to the numbers that tables and figures show.

    Samples are averaged within their item first. A sample that failed or could not be scored is counted and left out
    of the means: it is never a 0. How many samples were asked for stands in `provenance["expected"]`, beside
    `n_samples`, the number that could be read.

    Args:
        ckpt: Name of the checkpoint.
        prompts: The task's prompts file.
        answers: Its answers, in the order of the scores.
        scores: One score per answer.
        scorer: Name of the scorer.
        metric: Name of the headline metric, the one in each score's `score`.
        provenance: What the numbers rest on; copied into the summary.
        metrics: What is known of the numbers: direction and range.
        reduce: Makes the numbers of the scores; None takes the mean over items of every metric in them.
        ks: For each k, what k samples of an item are worth joins the numbers (`samples_at_k`).
        server: What is known of the server that bears on the form of its answers (`outcomes.server_facts`).

    Raises:
        RecordError: Scores, answers and prompts do not belong together.
        StatsError: A score is not finite.
    """
    header = prompts.header
    where = f"{ckpt}, task {header['task']}"
    _check_match(where, {prompt["id"] for prompt in prompts.prompts}, answers, scores)
    clusters = clusters_of(scores)
    headline = samples_by_metric(scores, metric)[metric]
    described = {one.name: one for one in metrics}
    reduce = reduce or (lambda some: _means(some, metric, clusters, described))
    numbers = reduce(scores)
    estimates = {name: numbers[name] for name in [metric, *sorted(numbers.keys() - {metric})]}
    if ks:
        one = described.get(metric, Metric(metric, range=None))
        at_k = estimates_at(scores, one, ks, clusters)
        estimates |= at_k
        described |= {name: replace(one, name=name) for name in at_k}
    n_errors = sum("error" in answer for answer in answers)
    n_samples = sum(map(len, headline.values()))
    # How much of a ratio's or a fitted number's error is decoding's, the means of items do not tell.
    is_mean = metric not in described or described[metric].is_mean
    notes: dict[str, Any] = {
        "expected": {"items": len(prompts.prompts), "samples": len(prompts.prompts) * header["samples"]}
    }
    if clusters:
        notes["clusters"] = len({clusters.get(item, item) for item in headline})
        if notes["clusters"] < FEW_CLUSTERS:
            log.warning("%s: %d clusters only; its interval is a rough guess.", where, notes["clusters"])
    rates, outcomes = outcomes_of(answers, scores, prompts.prompts, notes["expected"]["samples"], server)
    summary = Summary(
        ckpt=ckpt,
        task=header["task"],
        task_version=header["version"],
        scorer=scorer,
        metric=metric,
        value=estimates[metric]["value"],
        stderr=estimates[metric]["stderr"],
        ci95=estimates[metric]["ci95"],
        n_items=len(headline),
        n_samples=n_samples,
        n_errors=n_errors,
        n_unscored=len(scores) - n_samples - n_errors,
        metrics=estimates,
        variance=split_variance(list(headline.values())) if is_mean else Variance(items=None, decoding=None),
        rates=rates,
        mean_tokens=mean_tokens(answers),
        outcomes=outcomes,
        provenance={**provenance, **notes},
        runs=over_runs(
            means_of_runs(scores, header["samples"])
            if is_mean
            else [reduce(_of_run(scores, run))[metric]["value"] for run in range(header["samples"])]
            if header["samples"] > 1
            else [estimates[metric]["value"]]
        ),
    )
    if described:
        summary["scales"] = {name: described[name].scale for name in estimates if name in described}
    if headline and is_mean:
        advice = advise(summary["variance"], n_items=len(headline), n_samples=n_samples, stderr=summary["stderr"])
        summary["advice"] = advice.sentence
    reasoning = reasoning_of(answers)
    if reasoning is not None:
        summary["reasoning"] = reasoning
        if reasoning["cut"]:
            log.warning(
                "%s: in %.0f %% of the answers the reasoning does not end, so they answer nothing. Raise max_tokens.",
                where,
                100 * reasoning["cut"],
            )
    if "partial" in header:
        summary["partial"] = header["partial"]
    if CHANCE in estimates:
        summary["chance"] = estimates[CHANCE]["value"]
    return summary


def samples_by_metric(scores: Iterable[Score], headline: str) -> dict[str, Values]:
    """The readable samples of each item, for every metric; the headline first, the others by name.

    >>> samples_by_metric([{"id": "a", "sample": 0, "score": 1.0, "metrics": {"loose": 0.5}}], "strict")
    {'strict': {'a': [1.0]}, 'loose': {'a': [0.5]}}
    """
    by_metric: dict[str, Values] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        for name, value in {**score["metrics"], headline: score["score"]}.items():
            samples = by_metric[name]
            if value is not None:
                samples[score["id"]].append(value)
    others = sorted(by_metric.keys() - {headline})
    return {name: dict(by_metric[name]) for name in [headline, *others]}


def means_of_runs(scores: Iterable[Score], n: int) -> list[float | None]:
    """The mean over items of each of n runs: run k is every item's sample k. None where nothing of it could be read.

    >>> means_of_runs([{"id": "a", "sample": 1, "score": 0.5, "metrics": {}}], 2)
    [None, 0.5]
    """
    runs: list[list[float]] = [[] for _ in range(n)]
    for score in scores:
        if score["score"] is not None:
            runs[score["sample"]].append(score["score"])
    return [math.fsum(run) / len(run) if run else None for run in runs]


def over_runs(per_run: Sequence[float | None]) -> Runs:
    """Mean and spread over runs. A run without a number is left out, and named.

    >>> found = over_runs([0.5, None, 0.7])
    >>> found["n"], round(found["mean"], 6), round(found["std"], 6), round(found["sem"], 6), found["missing"]
    (2, 0.6, 0.141421, 0.1, [1])
    """
    there = [value for value in per_run if value is not None]
    n = len(there)
    std = statistics.stdev(there) if n > 1 else None
    runs = Runs(
        mean=math.fsum(there) / n if n else None,
        std=std,
        sem=None if std is None else std / math.sqrt(n),
        n=n,
        per_run=list(per_run),
    )
    if n < len(per_run):
        runs["missing"] = [number for number, value in enumerate(per_run) if value is None]
    return runs


def reasoning_of(answers: Iterable[Answer]) -> ReasoningUse | None:
    """What reasoning took, and how often it did not end; None where no answer has any.

    >>> usage = {"prompt_tokens": 1, "completion_tokens": 8}
    >>> reasoning_of([{"id": "a", "sample": 0, "content": "<think>so on", "usage": usage}])
    {'cut': 1.0, 'mean_tokens': 8.0, 'mean_tokens_cut': 8.0}
    """
    there = [split_answer(answer) for answer in answers if "error" not in answer]
    if not any(answer.get("reasoning") or answer.get("reasoning_cut") for answer in there):
        return None
    cut = [answer for answer in there if answer.get("reasoning_cut")]
    return ReasoningUse(
        cut=len(cut) / len(there), mean_tokens=_mean_reasoning(there), mean_tokens_cut=_mean_reasoning(cut)
    )


def _mean_reasoning(answers: Iterable[Answer]) -> float | None:
    counts = [count for count in map(reasoning_tokens, answers) if count is not None]
    return math.fsum(counts) / len(counts) if counts else None


def mean_tokens(answers: Iterable[Answer]) -> float | None:
    """Mean number of tokens of an answer, reasoning included; null where no server counted them.

    >>> mean_tokens([{"usage": {"prompt_tokens": 5, "completion_tokens": 0}}, {"usage": {"prompt_tokens": 0}}, {}])
    0.0
    """
    # Without a token in its prompt it was not counted: earlier versions stored that as zeros.
    counted = [usage for answer in answers if (usage := answer.get("usage")) and any(usage.values())]
    counts = [usage["completion_tokens"] for usage in counted]
    return math.fsum(counts) / len(counts) if counts else None


def _means(
    scores: Sequence[Score], headline: str, clusters: Mapping[str, str], described: Mapping[str, Metric]
) -> dict[str, Estimate]:
    """The mean over items of every metric in the scores; a blind guess is worked out, not measured: it has no error."""
    estimates = {}
    for name, samples in samples_by_metric(scores, headline).items():
        values = [math.fsum(item) / len(item) for item in samples.values()]
        # An item without a cluster is one of its own.
        labels = [clusters.get(item, item) for item in samples] if clusters else None
        bounds = described[name].range if name in described else None
        estimates[name] = mean_estimate(values, clusters=labels, bounds=bounds)
        if name == CHANCE:
            estimates[name] = Estimate(value=estimates[name]["value"], stderr=None, ci95=None)
    return estimates


def _of_run(scores: Sequence[Score], run: int) -> list[Score]:
    return [score for score in scores if score["sample"] == run]


def _check_match(where: str, asked: set[str], answers: Sequence[Answer], scores: Sequence[Score]) -> None:
    """Scores of other answers, or answers to other prompts, must not become a number."""
    if [(a["id"], a["sample"]) for a in answers] != [(s["id"], s["sample"]) for s in scores]:
        raise RecordError(f"{where}: the scores do not follow the answers one by one. Score the answers again.")
    strangers = sorted({answer["id"] for answer in answers} - asked)
    if strangers:
        raise RecordError(
            f"{where}: {len(strangers)} answered items are not among the prompts (such as {strangers[0]!r}). "
            "Collect the answers again."
        )
    for answer, score in zip(answers, scores, strict=True):
        if "error" in answer and score["score"] is not None:
            raise RecordError(
                f"{where}: item {answer['id']!r}, sample {answer['sample']} failed, and yet it was given a score. "
                "A scorer must give a failed answer null."
            )

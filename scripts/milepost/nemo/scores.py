"""Turns NeMo Evaluator's results into Milepost's scores and summary."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from milepost.campaign.types import NemoTask
from milepost.errors import HarnessError, RecordError
from milepost.nemo.metrics import describe
from milepost.nemo.results import (
    Number,
    find_metric,
    higher_is_better,
    read_metrics,
    read_samples,
    run_versions,
    said_again,
    stated_by_lm_eval,
    token_statistics,
)
from milepost.records import (
    Answer,
    Estimate,
    Outcomes,
    Prompt,
    PromptSet,
    Rates,
    Score,
    Summary,
    TaskHeader,
    Variance,
    read_record,
)
from milepost.statistics.intervals import Bounds
from milepost.statistics.means import harness_estimate
from milepost.statistics.metrics import Metric
from milepost.statistics.samples_at_k import names_at
from milepost.statistics.summary import over_runs, summarize

log = logging.getLogger(__name__)

# The harness rounds nothing, but sums in another order.
SAME = 1e-9
# lm-eval's "0" is 0.0000001.
COLD = 0.001


def summarize_harness(
    ckpt: str,
    header: TaskHeader,
    task: NemoTask,
    folder: Path,
    provenance: Mapping[str, Any],
    server: Mapping[str, Any] | None = None,
) -> tuple[list[Score], Summary]:
    """Make the scores and the summary of a NeMo Evaluator task.

    Where the harness wrote down every sample, and their mean is its own number, errors and intervals are made from the
    samples as for our own tasks, a group's from those of all its tasks; the value itself keeps the harness's digits.
    Otherwise (a group that weighs its tasks equally, a metric that is no mean) its number stands with its own standard
    error, marked `harness`, without scores.

    Args:
        ckpt: Name of the checkpoint.
        header: The task's.
        task: The task: its `metric`, and `better` and `range` of that where its file says them.
        folder: results/harness/{ckpt}/{task}, with one folder per run.
        provenance: What the numbers rest on.
        server: What is known of the server that bears on the form of its answers (`outcomes.server_facts`).

    Raises:
        HarnessError: No results, or without the headline metric.
    """
    runs = sorted(folder.glob("run-*"), key=lambda run: int(run.name.removeprefix("run-")))
    if len(runs) != header["samples"]:
        raise HarnessError(f"{folder} holds {len(runs)} runs of {header['samples']}. Remove it: it is collected anew.")
    numbers = [read_metrics(run) for run in runs]
    name = find_metric(numbers[0], task.metric, str(folder))
    for found, run in zip(numbers, runs, strict=True):
        if name not in found:
            raise HarnessError(
                f"{run} holds no metric {name!r}, which the task's other runs hold. Raise 'generation' in the task's file"
                " to ask for all runs again."
            )
    pairs = [pair for number, run in enumerate(runs) for pair in read_samples(run, number, name)]
    scores, answers = [score for score, _ in pairs], [answer for _, answer in pairs]
    known = {key: _described(key, task, runs[0], numbers, scores) for key in _keys(numbers[0], name, scores)}
    own = {key: _over_runs(key, numbers, known[key].range) for key in _names(numbers[0]) | {name}}
    provenance = {**provenance, "versions": {**provenance.get("versions", {}), **_versions(runs)}}
    provenance |= _sampling(runs) | _compare_runs(f"{ckpt}, task {header['task']}", header, runs, answers)
    if _reproduces(scores, name, numbers):
        prompts = PromptSet(header, [Prompt(id=item) for item in dict.fromkeys(score["id"] for score in scores)])
        summary = summarize(
            ckpt,
            prompts,
            answers,
            scores,
            scorer="nemo",
            metric=name,
            provenance=provenance,
            metrics=known.values(),
            ks=task.k,
        )
        summary["value"] = summary["metrics"][name]["value"] = own[name]["value"]
        if not all("content" in answer for answer in answers):
            summary["rates"]["empty"] = None
        at_k = names_at(task.k)
        ours = {key: one for key, one in summary["metrics"].items() if key in at_k or _reproduces(scores, key, numbers)}
        known |= {key: replace(known[name], name=key) for key in at_k if key in ours}
    else:
        scores, ours = [], {}
        summary = _own_numbers(ckpt, header, own[name], name, numbers, provenance)
    _add_outcomes(summary, runs, server)
    # What the samples do not reproduce keeps the harness's own error.
    summary["metrics"] = {name: own[name], **dict(sorted(own.items())), **ours}
    summary["scales"] = {key: known[key].scale for key in summary["metrics"]}
    _add_token_statistics(summary, runs, answers)
    return scores, summary


def _names(numbers: Mapping[str, Number]) -> set[str]:
    """The names of the numbers to keep: those of each task and group by their own names where there are several."""
    several = len({name.rpartition("/")[0] for name in numbers if "/" in name}) > 1
    return {name for name in numbers if several or "/" not in name}


def _reproduces(scores: Sequence[Score], metric: str, numbers: Sequence[Mapping[str, Number]]) -> bool:
    """Whether the mean of each run's samples is the harness's own number."""
    for run, one_run in enumerate(numbers):
        read = [score["metrics"].get(metric) for score in scores if score["sample"] == run]
        values = [value for value in read if value is not None]
        stated = one_run.get(metric, {}).get("value")
        if not values or len(values) < len(read) or not isinstance(stated, int | float):
            return False
        if not math.isclose(math.fsum(values) / len(values), stated, rel_tol=SAME, abs_tol=SAME):
            return False
    return True


def _versions(runs: Sequence[Path]) -> dict[str, str]:
    """Versions of the harness's packages; where runs differ, all of their versions."""
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, version in run_versions(run).items():
            found[name].add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def _compare_runs(where: str, header: TaskHeader, runs: Sequence[Path], answers: Sequence[Answer]) -> dict[str, Any]:
    """Compare the runs' answers, to see whether they are independent samples; warns where there is doubt.

    The same text in all runs is no fault in itself: a confident model repeats itself. It is a fault if a run sent the server
    fewer requests than it has items: then a cache answered.
    """
    if header["samples"] < 2 and not any(said_again(run)[0] for run in runs):
        return {}
    texts: dict[str, list[str]] = defaultdict(list)
    for answer in answers:
        if "content" in answer:
            texts[answer["id"]].append(answer["content"])
    compared = [said for said in texts.values() if len(said) == len(runs)] if len(runs) > 1 else []
    same = sum(len(set(said)) == 1 for said in compared)
    again = [said_again(run) for run in runs]
    compared_within, same_within = sum(one for one, _ in again), sum(one for _, one in again)
    requests = [_requests(run) for run in runs]
    temperature = header.get("harness", {}).get("params", {}).get("temperature")
    warm = isinstance(temperature, int | float) and temperature > COLD
    note = None
    silent = [number for number, asked in enumerate(requests) if asked is not None and asked < len(texts)]
    if silent:
        note = f"run {silent[0]} asked the server {requests[silent[0]]} times for {len(texts)} items: a cache answered"
    elif not warm and len(runs) > 1:
        note = "the temperature is 0 or the harness's own: runs differ by chance in the server's arithmetic at most"
    elif warm and compared and same == len(compared):
        note = f"all {len(runs)} runs gave the same answers to all {same} items, though every request had its own seed:"
        note += " the model is that sure, and more runs add nothing"
    elif warm and compared_within and same_within == compared_within:
        note = (
            f"what the harness asked several times within a run was answered the same each time ({same_within} items)"
        )
    if note:
        log.warning("%s: %s.", where, note)
    result = {"compared": len(compared), "same": same, "requests": requests, **({"note": note} if note else {})}
    return {"repeats": result}


def _sampling(runs: Sequence[Path]) -> dict[str, Any]:
    """How the runs' answers were drawn, by what their requests asked for; nothing where that was not kept."""
    found: list[Any] = []
    for run in runs:
        try:
            sampled = read_record(run / "done.json").get("sampling") or []
        except RecordError:
            continue
        found += [each for each in sampled if each not in found]
    return {"sampling": found[0] if len(found) == 1 else found} if found else {}


def _requests(run: Path) -> int | None:
    """The number of a run's requests that the server answered; None where they were not counted."""
    try:
        asked = read_record(run / "done.json").get("requests")
    except RecordError:
        return None
    return asked if isinstance(asked, int) else None


def _keys(numbers: Mapping[str, Number], headline: str, scores: Sequence[Score]) -> set[str]:
    """Names of all numbers, those of samples included."""
    return _names(numbers) | {headline} | {name for score in scores for name in score["metrics"]}


def _described(
    name: str, task: NemoTask, run: Path, numbers: Sequence[Mapping[str, Number]], scores: Sequence[Score]
) -> Metric:
    """What is known of a number; without a range that its values do not keep, unless the task's file states it."""
    metric = describe(name, task, higher_is_better(stated_by_lm_eval(run), name))
    if metric.range is None or (task.range is not None and name.startswith(task.metric)):
        return metric
    found = [one[name]["value"] for one in numbers if name in one] + [score["metrics"].get(name) for score in scores]
    low, high = metric.range
    kept = all(low <= value <= high for value in found if isinstance(value, int | float))
    return metric if kept else replace(metric, range=None)


def _over_runs(name: str, numbers: Sequence[Mapping[str, Number]], bounds: Bounds | None) -> Estimate:
    """One number of the harness over all runs: their mean, with the standard error of one run.

    Runs ask the same items, so the error over items does not shrink with their number.
    """
    entries = [run[name] for run in numbers if name in run]
    values = [float(number["value"]) for number in entries if isinstance(number["value"], int | float)]
    errors = [float(number["stderr"]) for number in entries if isinstance(number["stderr"], int | float)]
    if not values:
        return harness_estimate(None, None)
    error = math.fsum(errors) / len(errors) if errors else None
    return harness_estimate(math.fsum(values) / len(values), error, bounds)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _own_numbers(
    ckpt: str,
    header: TaskHeader,
    estimate: Estimate,
    metric: str,
    numbers: Sequence[Mapping[str, Number]],
    provenance: Mapping[str, Any],
) -> Summary:
    """Make a summary of the harness's own numbers; `n_items` is 0 where the harness does not say how many there are."""
    counts = [one_run[metric]["n"] or 0 for one_run in numbers]
    summary = Summary(
        ckpt=ckpt,
        task=header["task"],
        task_version=header["version"],
        scorer="nemo",
        metric=metric,
        value=estimate["value"],
        stderr=estimate["stderr"],
        ci95=estimate["ci95"],
        n_items=max(counts),
        n_samples=sum(counts),
        n_errors=0,
        n_unscored=0,
        metrics={},
        variance=Variance(items=None, decoding=None),
        rates=Rates(truncated=None, empty=None, unreadable=None, failed=None),
        mean_tokens=None,
        provenance=dict(provenance),
        runs=over_runs([_number(run.get(metric, {}).get("value")) for run in numbers]),
        harness=True,
    )
    if "partial" in header:
        summary["partial"] = header["partial"]
    return summary


def _add_outcomes(summary: Summary, runs: Sequence[Path], server: Mapping[str, Any] | None) -> None:
    """Add what the replies were that the harness got, as its relay kept them: a harness's samples have the text only."""
    found = [read_record(run / "done.json").get("outcomes") or {} for run in runs if (run / "done.json").is_file()]
    kinds, reasons = Counter[str](), dict[str, str]()
    who: dict[str, Counter[str]] = {name: Counter() for name in ("models", "fingerprints", "providers")}
    for one in found:
        kinds.update(one.get("kinds", {}))
        reasons |= one.get("reasons", {})
        for name, counted in who.items():
            counted.update(one.get(name, {}))
    outcomes = summary.get("outcomes") or Outcomes(asked=0, answered=0, kinds={})
    if kinds:
        total = sum(kinds.values())
        # What the scorer could not read, only its samples tell.
        unreadable = outcomes["kinds"].get("unreadable", 0)
        outcomes["kinds"] = {**kinds, **({"unreadable": unreadable} if unreadable else {})}
        for name in ("refused", "filtered", "reasoning_only", "tool_calls"):
            summary["rates"][name] = kinds[name] / total  # type: ignore[literal-required]
    if reasons:
        outcomes["reasons"] = {**outcomes.get("reasons", {}), **reasons}
    outcomes |= {name: dict(counted) for name, counted in who.items() if counted}  # type: ignore[typeddict-item]
    if server:
        outcomes["server"] = dict(server)
    summary["outcomes"] = outcomes


def _add_token_statistics(summary: Summary, runs: Sequence[Path], answers: Sequence[Answer]) -> None:
    """Add the rate of truncated answers and the mean tokens, which NeMo's adapter counts and lm-eval's samples do not hold."""
    if answers and not any("content" in answer for answer in answers):
        # Log-probabilities are asked for with one token, which is no answer that was cut.
        summary["rates"]["truncated"] = summary["mean_tokens"] = None
        return
    counted = [token_statistics(run) for run in runs]
    truncated = [run["truncated"] for run in counted if run["truncated"] is not None]
    tokens = [run["mean_tokens"] for run in counted if run["mean_tokens"] is not None]
    summary["rates"]["truncated"] = math.fsum(truncated) / len(truncated) if truncated else None
    summary["mean_tokens"] = math.fsum(tokens) / len(tokens) if tokens else None

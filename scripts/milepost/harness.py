"""NeMo Evaluator's results as scores and a summary of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.errors import HarnessError
from milepost.nemo import find_metric, read_metrics, read_samples, token_statistics
from milepost.records import Estimate, Prompt, PromptSet, Rates, Score, Summary, TaskHeader, Variance
from milepost.stats import harness_estimate
from milepost.summary import over_runs, summarize

# The harness rounds nothing, but sums in another order.
SAME = 1e-6


def summarize_harness(
    ckpt: str, header: TaskHeader, metric: str, folder: Path, provenance: Mapping[str, Any]
) -> tuple[list[Score], Summary]:
    """Scores and summary of a NeMo task.

    Where the harness wrote down every sample, and their mean is its own number, the numbers are made from the samples
    as for our own tasks. Otherwise its number stands with its own standard error, marked `harness`, without scores.

    Args:
        ckpt: Name of the checkpoint.
        header: The task's.
        metric: The task's headline metric.
        folder: results/harness/{ckpt}/{task}, with one folder per run.
        provenance: What the numbers rest on.

    Raises:
        HarnessError: No results, or without the headline metric.
    """
    runs = sorted(folder.glob("run-*"), key=lambda run: int(run.name.removeprefix("run-")))
    if len(runs) != header["samples"]:
        raise HarnessError(f"{folder} holds {len(runs)} runs of {header['samples']}. Remove it: it is collected anew.")
    numbers = [read_metrics(run) for run in runs]
    name = find_metric(numbers[0], metric, str(folder))
    pairs = [pair for number, run in enumerate(runs) for pair in read_samples(run, number, name)]
    scores = [score for score, _ in pairs]
    if all(_reproduces(scores, number, found[name]["value"]) for number, found in enumerate(numbers)):
        items = dict.fromkeys(score["id"] for score in scores)
        prompts = PromptSet(header, [Prompt(id=item) for item in items])
        answers = [answer for _, answer in pairs]
        summary = summarize(ckpt, prompts, answers, scores, scorer="nemo", metric=name, provenance=provenance)
        if not all("content" in answer for answer in answers):
            summary["rates"]["empty"] = None
    else:
        scores = []
        summary = _own_numbers(ckpt, header, name, numbers, provenance)
    own = {key: _over_runs(key, numbers) for key in numbers[0] if "/" not in key}
    summary["metrics"] = {**own, **summary["metrics"]}
    _add_token_statistics(summary, runs)
    return scores, summary


def _reproduces(scores: list[Score], run: int, value: float | None) -> bool:
    """Whether the mean of a run's samples is the harness's own number."""
    read = [score["score"] for score in scores if score["sample"] == run and score["score"] is not None]
    return bool(read) and value is not None and math.isclose(math.fsum(read) / len(read), value, abs_tol=SAME)


def _over_runs(name: str, numbers: list[dict[str, dict[str, Any]]]) -> Estimate:
    """A number of the harness over all runs: their mean, with the standard error of one run.

    Runs ask the same items, so the error over items does not shrink with their number.
    """
    found = [run[name] for run in numbers if name in run]
    values = [float(number["value"]) for number in found if isinstance(number["value"], int | float)]
    errors = [float(number["stderr"]) for number in found if isinstance(number["stderr"], int | float)]
    if not values:
        return harness_estimate(None, None)
    return harness_estimate(math.fsum(values) / len(values), math.fsum(errors) / len(errors) if errors else None)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _own_numbers(
    ckpt: str, header: TaskHeader, metric: str, numbers: list[dict[str, dict[str, Any]]], provenance: Mapping[str, Any]
) -> Summary:
    """A summary of the harness's own numbers. How many items they rest on, the harness does not say."""
    estimate = _over_runs(metric, numbers)
    summary = Summary(
        ckpt=ckpt,
        task=header["task"],
        task_version=header["version"],
        scorer="nemo",
        metric=metric,
        value=estimate["value"],
        stderr=estimate["stderr"],
        ci95=estimate["ci95"],
        n_items=0,
        n_samples=0,
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


def _add_token_statistics(summary: Summary, runs: list[Path]) -> None:
    """What NeMo's adapter counted and lm-eval's samples do not hold: truncated answers and tokens."""
    counted = [token_statistics(run) for run in runs]
    truncated = [run["truncated"] for run in counted if run["truncated"] is not None]
    tokens = [run["mean_tokens"] for run in counted if run["mean_tokens"] is not None]
    summary["rates"]["truncated"] = math.fsum(truncated) / len(truncated) if truncated else None
    summary["mean_tokens"] = math.fsum(tokens) / len(tokens) if tokens else None

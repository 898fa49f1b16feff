"""lm-eval's numbers as NeMo Evaluator's results. Runs in NeMo Evaluator's environment."""

import json
import math
from pathlib import Path

from nemo_evaluator.api.api_dataclasses import (
    EvaluationResult,
    GroupResult,
    MetricResult,
    Score,
    ScoreStats,
    TaskResult,
)


def parse_output(output_dir: str) -> EvaluationResult:
    """Read the newest results of lm-eval in a folder: tasks, and its groups where it has any.

    A metric is named METRIC, or METRIC__FILTER for another filter than lm-eval's `none`.

    Raises:
        ValueError: There are no results.
    """
    paths = sorted(Path(output_dir).rglob("results_*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not paths:
        raise ValueError(f"lm-eval left no results in {output_dir}.")
    results = json.loads(paths[-1].read_bytes())
    groups = results.get("groups") or {}
    tasks = {name: _metrics(numbers) for name, numbers in results["results"].items() if name not in groups}
    return EvaluationResult(
        tasks={name: TaskResult(metrics=metrics) for name, metrics in tasks.items()},
        groups={name: GroupResult(metrics=_metrics(numbers)) for name, numbers in groups.items()},
    )


def _metrics(numbers: dict) -> dict[str, MetricResult]:
    metrics = {}
    for key, value in numbers.items():
        metric, comma, named = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float) or math.isnan(value):
            continue
        stderr = numbers.get(f"{metric}_stderr,{named}")
        name = metric if named == "none" else f"{metric}__{named}"
        stats = ScoreStats(stderr=stderr if isinstance(stderr, int | float) else None)
        metrics[name] = MetricResult(scores={name: Score(value=value, stats=stats)})
    return metrics

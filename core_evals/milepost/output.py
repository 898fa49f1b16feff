"""Milepost's numbers as NeMo Evaluator's results. Runs in NeMo Evaluator's environment."""

import json
from pathlib import Path

from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, ScoreStats, TaskResult


def parse_output(output_dir: str) -> EvaluationResult:
    """Read the summary of a run.

    Every metric has its value, our standard error over items and, as `count`, the items that it rests on. The metric
    `rates` holds the shares of truncated, empty, unreadable, failed and other such answers, without which no value can be
    judged.

    Raises:
        ValueError: No answer could be scored: there is no number, and 0 would be a wrong one.
    """
    folder = Path(output_dir) / "milepost"
    summary = json.loads((folder / "summary.json").read_bytes())
    if summary["value"] is None:
        raise ValueError(f"No answer could be scored; {folder / 'scores.jsonl'} has a note for each.")
    counts = summary["provenance"]["items_by_metric"]
    metrics = {
        name: MetricResult(scores={name: _score(estimate["value"], stderr=estimate["stderr"], count=counts[name])})
        for name, estimate in summary["metrics"].items()
        if estimate["value"] is not None
    }
    rates = {name: _score(value) for name, value in summary["rates"].items() if value is not None}
    metrics["rates"] = MetricResult(scores=rates)
    return EvaluationResult(tasks={summary["task"]: TaskResult(metrics=metrics)})


def _score(value: float, **stats: float | int | None) -> Score:
    return Score(value=value, stats=ScoreStats(**stats))

"""The report: one HTML page with everything in it, which opens offline, on a phone and in print."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from milepost import tables
from milepost.errors import RecordError
from milepost.records import Summary
from milepost.tables import MetricRow, ScoreRow

TEMPLATE = Path(__file__).resolve().parents[2] / "report" / "report.html.j2"

# What a ledger sums up, as (key, heading); seconds are shown as minutes and hours.
COSTS = [
    ("attempts", "attempts"),
    ("start_s", "server start"),
    ("busy_s", "busy"),
    ("idle_s", "idle"),
    ("gpu_s", "GPU time"),
    ("requests", "requests"),
    ("tokens_in", "tokens in"),
    ("tokens_out", "tokens out"),
]


def render_report(
    title: str,
    scores: Sequence[ScoreRow],
    metrics: Sequence[MetricRow],
    figures: Path,
    evaluated: Iterable[Mapping[str, Any]],
    summaries: Iterable[Summary],
) -> str:
    """The page.

    Everything in it is escaped, and a policy in its head forbids scripts and any address: figures are inside as data.

    Args:
        title: The campaign's title.
        scores: Rows of scores.csv.
        metrics: Rows of metrics.csv.
        figures: The folder with {task}.svg for each task.
        evaluated: The notes of the evaluations, with their ledgers.
        summaries: What the rows were made from, for their provenance.

    Raises:
        RecordError: A task has no figure.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": tables.number, "share": tables.share, "step": tables.step}
    environment.globals |= {"interval": tables.interval, "samples": tables.samples_cell}
    rows = by_checkpoint(scores)
    order = {ckpt: place for place, ckpt in enumerate(rows)}
    evaluated = sorted(evaluated, key=lambda note: order.get(note["ckpt"], len(order)))
    summaries = sorted(summaries, key=lambda summary: order.get(summary["ckpt"], len(order)))
    tasks = {row.task: row.title for row in scores}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        tasks=tasks,
        rows=rows,
        scores=scores,
        has_run=any(row.run is not None for row in scores),
        has_step=any(row.step is not None for row in scores),
        partial=[task for task in tasks if any(row.task == task and row.partial for row in scores)],
        gaps=[row for row in scores if row.value is None],
        notes=tables.notes(scores),
        shares=tables.SHARES,
        figures={task: inline_svg(figures / f"{task}.svg") for task in tasks},
        metrics=metric_grids(metrics),
        unfinished=unfinished(evaluated),
        costs=costs(evaluated),
        provenance=provenance(summaries),
    )


def by_checkpoint(rows: Iterable[ScoreRow]) -> dict[str, list[ScoreRow]]:
    """The rows of each checkpoint, one for each task."""
    found: dict[str, list[ScoreRow]] = {}
    for row in rows:
        found.setdefault(row.ckpt, []).append(row)
    return found


def metric_grids(rows: Iterable[MetricRow]) -> dict[str, tuple[list[str], dict[str, dict[str, MetricRow]]]]:
    """For each task its metrics, and by checkpoint the row of each metric; tasks with one metric are left out."""
    grids: dict[str, dict[str, dict[str, MetricRow]]] = {}
    for row in rows:
        grids.setdefault(row.task, {}).setdefault(row.ckpt, {})[row.metric] = row
    names = {task: list(dict.fromkeys(name for line in grid.values() for name in line)) for task, grid in grids.items()}
    return {task: (names[task], grid) for task, grid in grids.items() if len(names[task]) > 1}


def inline_svg(path: Path) -> str:
    """A figure as an address that holds its content. As an image it can run nothing, and keeps its ids to itself.

    Raises:
        RecordError: The file is missing.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist. `plot.py` draws it.") from None
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"


def unfinished(evaluated: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tasks of checkpoints for which answers are missing, or which ended with an error."""
    return [
        {"ckpt": note["ckpt"], "task": task, **{"done": 0, "missing": 0, "error": None}, **state}
        for note in evaluated
        for task, state in note["tasks"].items()
        if state.get("missing") or state.get("error")
    ]


def costs(evaluated: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Headings, a line for each checkpoint, and the sum of what the evaluations took.

    A column that is nothing but zeros is left out: there is no GPU time without GPUs.
    """
    ledgers = {note["ckpt"]: note.get("ledger", {}) for note in evaluated}
    shown = [(key, heading) for key, heading in COSTS if any(ledger.get(key) for ledger in ledgers.values())]
    lines = [[ckpt, *(_amount(key, ledger.get(key, 0)) for key, _ in shown)] for ckpt, ledger in ledgers.items()]
    total = [_amount(key, sum(ledger.get(key, 0) for ledger in ledgers.values())) for key, _ in shown]
    return {"headings": [heading for _, heading in shown], "lines": lines, "total": ["all", *total]}


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(8.04), duration(75), duration(7260)
    ('8.0 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def provenance(summaries: Iterable[Summary]) -> dict[str, Any]:
    """What the numbers rest on, said once: for all of them, or by task, by checkpoint, or by both.

    Returns:
        `common`: {name: value}; `by_task`, `by_ckpt`: {name: {task or checkpoint: value}}; `other`: {name: values}.
    """
    found: dict[str, dict[tuple[str, str], str]] = {}
    for summary in summaries:
        facts: dict[str, Any] = {"task_version": summary["task_version"], "scorer": summary["scorer"]}
        facts |= {key: value for key, value in summary["provenance"].items() if key != "expected"}
        for name, value in _flat(facts):
            found.setdefault(name, {})[summary["ckpt"], summary["task"]] = value
    told: dict[str, Any] = {"common": {}, "by_task": {}, "by_ckpt": {}, "other": {}}
    for name, values in found.items():
        by_ckpt = _constant((ckpt, value) for (ckpt, _), value in values.items())
        by_task = _constant((task, value) for (_, task), value in values.items())
        if len(set(values.values())) == 1:
            told["common"][name] = next(iter(values.values()))
        elif by_task:
            told["by_task"][name] = by_task
        elif by_ckpt:
            told["by_ckpt"][name] = by_ckpt
        else:
            told["other"][name] = list(dict.fromkeys(values.values()))
    return told


def _constant(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """The value of each key, if no key has two."""
    found: dict[str, str] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            return None
    return found


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}".replace("_", " "), str(value)


def _amount(key: str, value: float) -> str:
    return duration(value) if key.endswith("_s") else f"{value:,.0f}"

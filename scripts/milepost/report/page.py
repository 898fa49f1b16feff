"""Makes the report: one HTML page that holds everything, so that it opens offline, on a phone and in print."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from milepost.comparisons.rows import ComparisonRow, FlipRow, RankRow, StepRow, TrendRow
from milepost.errors import RecordError
from milepost.paths import WORKFLOW
from milepost.records import Summary
from milepost.report import legend, parts, tables
from milepost.report.partial import MissingRow, by_state
from milepost.report.tables import MetricRow, ScoreRow
from milepost.report.tables_to_read import probability, problems, signed

TEMPLATES = WORKFLOW / "report"

# Lines that a table shows at first, and those that it can unfold; the CSV has all of them.
SHOWN, UNFOLDED = 40, 400
FEW = 6  # marked numbers whose reasons stand on the first screen


@dataclass(frozen=True, kw_only=True)
class Content:
    """Everything that the page is made from; only title, scores and figures are required."""

    title: str
    scores: Sequence[ScoreRow]
    figures: Path
    """The folder with {task}.svg for each task."""
    metrics: Sequence[MetricRow] = ()
    comparisons: Sequence[ComparisonRow] = ()
    flips: Sequence[FlipRow] = ()
    steps: Sequence[StepRow] = ()
    trends: Sequence[TrendRow] = ()
    ranking: Sequence[RankRow] = ()
    ledgers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the evaluations of each checkpoint took, as sums over its ledger."""
    bills: Mapping[str, Any] = field(default_factory=dict)
    """What was paid to endpoints of others."""
    summaries: Collection[Summary] = ()
    """What the scores were made from, for their provenance."""
    headers: Collection[Mapping[str, Any]] = ()
    """The first lines of the prompts files: how each task asks."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of what the tables and figures were made with."""
    missing: Sequence[MissingRow] = ()
    """What has no score yet, and why; anything here makes the page PARTIAL."""


def render_report(content: Content) -> str:
    """Render the report as HTML.

    Everything in it is escaped, and a policy in its head forbids scripts and any address: figures are inside as data.

    Raises:
        RecordError: A task has no figure.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": tables.number, "share": tables.share, "step": tables.step, "tokens": tables.tokens, "delta": signed,
        "directed": tables.with_direction,
        "p_value": probability,
    }  # fmt: skip
    environment.globals |= {
        "interval": tables.interval, "samples": tables.samples_cell, "SHOWN": SHOWN, "UNFOLDED": UNFOLDED,
        "MUCH": parts.MUCH, "FEW": FEW, "mark_cell": tables.mark_cell,
    }  # fmt: skip
    rows = by_checkpoint(content.scores)
    order = {ckpt: place for place, ckpt in enumerate(rows)}
    ledgers = {
        ckpt: content.ledgers[ckpt] for ckpt in sorted(content.ledgers, key=lambda ckpt: order.get(ckpt, len(order)))
    }
    summaries = sorted(content.summaries, key=lambda summary: order.get(summary["ckpt"], len(order)))
    titles = {row.task: row.title for row in content.scores}
    marks = parts.marks_of(content.steps)
    return environment.get_template("report.html.j2").render(
        title=content.title,
        tasks=titles,
        headline_metrics={
            row.task: tables.with_direction(row.metric, row.direction) for row in reversed(content.scores) if row.metric
        },
        rows=rows,
        chosen=chosen(rows, marks),
        marks=marks,
        scores=content.scores,
        has_run=any(row.run is not None for row in content.scores),
        has_step=any(row.step is not None for row in content.scores),
        partial=[task for task in titles if any(row.task == task and row.partial for row in content.scores)],
        missing=content.missing,
        missing_by_state=by_state(content.missing),
        marked=[row for row in content.scores if row.marks],
        problems=problems(content.scores),
        gaps=[row for row in content.scores if row.value is None],
        # Why numbers are marked stands at the head of the page.
        notes=legend.notes([replace(row, marks=None) for row in content.scores]),
        shares=legend.SHARES,
        figures={task: inline_svg(content.figures / f"{task}.svg") for task in titles},
        metrics=metric_grids(content.metrics),
        findings=parts.findings(content.trends),
        advised=parts.advised(summaries),
        trends=content.trends,
        families=parts.families(content.comparisons),
        rankings=parts.rankings(content.ranking),
        flips=parts.flips_of(content.flips),
        coverage=parts.coverage(content.scores, problems(content.scores)),
        looks=[row for row in content.scores if parts.needs_a_look(row)],
        costs=parts.costs(ledgers),
        paid=parts.paid(content.bills),
        provenance=parts.provenance(summaries),
        asked=parts.asked(content.headers),
        packages=content.packages,
    )


def by_checkpoint(rows: Iterable[ScoreRow]) -> dict[str, list[ScoreRow]]:
    """Group score rows by checkpoint."""
    grouped: dict[str, list[ScoreRow]] = {}
    for row in rows:
        grouped.setdefault(row.ckpt, []).append(row)
    return grouped


def chosen(rows: Mapping[str, Sequence[ScoreRow]], marks: Mapping[tuple[str, str], str]) -> list[str]:
    """The checkpoints of the first table: all, or if there are too many, each run's first, first better and last one."""
    if len(rows) <= SHOWN:
        return list(rows)
    runs: dict[str | None, list[tuple[float, str]]] = {}
    for ckpt, (row, *_) in rows.items():
        if row.step is not None:
            runs.setdefault(row.run, []).append((row.step, ckpt))
    wanted = {ckpt for steps in runs.values() for _, ckpt in (min(steps), max(steps))}
    wanted |= {ckpt for (ckpt, _), mark in marks.items() if mark == "first"}
    wanted |= {ckpt for ckpt, (row, *_) in rows.items() if row.step is None}
    return [ckpt for ckpt in rows if ckpt in wanted][:SHOWN]


def metric_grids(rows: Iterable[MetricRow]) -> dict[str, tuple[list[str], dict[str, dict[str, MetricRow]]]]:
    """For each task with several metrics, their names, and by checkpoint the row of each metric."""
    grids: dict[str, dict[str, dict[str, MetricRow]]] = {}
    for row in rows:
        grids.setdefault(row.task, {}).setdefault(row.ckpt, {})[row.metric] = row
    names = {task: list(dict.fromkeys(name for line in grid.values() for name in line)) for task, grid in grids.items()}
    return {task: (names[task], grid) for task, grid in grids.items() if len(names[task]) > 1}


def inline_svg(path: Path) -> str:
    """A figure as a data URL. As an image it can run no scripts, and its ids do not mix with those of the page.

    Raises:
        RecordError: The file is missing.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist. `plot.py` draws it.") from None
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"

"""Makes the tables for readers, before they become Markdown, LaTeX or sheets: headers, lines of text, and legends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from milepost.comparisons.rows import ComparisonRow, TrendRow
from milepost.report.legend import MARKED, PARTIAL, SHARES, short_notes
from milepost.report.tables import (
    MetricRow,
    ScoreRow,
    number,
    samples_cell,
    score_cell,
    share,
    short,
    short_cell,
    step,
    tokens,
    with_direction,
)
from milepost.style import places

# Shares of answers: those that are always shown, and those that are where there are any.
ALWAYS = ("truncated", "empty", "unreadable", "failed")
IN_PLACE = ("reasoning_cut", "refused", "filtered", "reasoning_only", "tool_calls", "identical")
# Nobody reads more lines than this: the CSV file has all of them.
MOST_LINES = 60
COMPARED = (
    "B - A on the items that both have, with the 95 % interval of the paired difference. p: corrected for all tests of the "
    "same list; where it is .05 or less, ↑ if B is better, ↓ if worse. Detectable: the smallest true difference that these items would have shown in "
    "80 of 100 evaluations. Gained, lost: items on which B is better or worse."
)
SINCE = (
    "Better since: the first step that is significantly better than the run's first (all steps together at 5 %). Lost "
    "since: from there on it is no longer better than the first, though it was. Regressed since: from there on it stays "
    "significantly worse than an earlier step. p: of the clearest gain, corrected over the run's tasks."
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table for readers: its first `left` columns hold words, the others numbers; `notes` are its legend."""

    name: str
    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: int = 1
    notes: Sequence[str] = ()


def score_table(rows: Sequence[ScoreRow], cell: Callable[[ScoreRow], str] = short_cell) -> Table:
    """The table of headline scores: a line for each checkpoint, a column for each task."""
    header, starts = _checkpoints(rows)
    # By any row that tells: a checkpoint without a score says nothing of the metric.
    titles = {row.task: row.title for row in rows} | {
        row.task: with_direction(row.title, row.direction) for row in rows if row.direction
    }
    lines: dict[str, list[str]] = {}
    for row in rows:
        lines.setdefault(row.ckpt, list(starts[row.ckpt])).append(cell(row))
    return Table(
        name="scores",
        title="Scores",
        header=[*header, *titles.values()],
        lines=list(lines.values()),
        left=1 + ("run" in header),
        notes=short_notes(rows),
    )


def metric_tables(rows: Sequence[ScoreRow], metrics: Iterable[MetricRow]) -> list[Table]:
    """A table for each task with several metrics: a line for each checkpoint, a column for each metric."""
    header, starts = _checkpoints(rows)
    grids: dict[str, dict[str, dict[str, MetricRow]]] = {}
    for metric in metrics:
        grids.setdefault(metric.task, {}).setdefault(metric.ckpt, {})[metric.metric] = metric
    tables = []
    for task, title in {row.task: row.title for row in rows}.items():
        grid = grids.get(task, {})
        names = list(dict.fromkeys(name for line in grid.values() for name in line))
        if len(names) > 1:
            lines = [[*starts[ckpt], *(_metric_cell(grid[ckpt].get(name)) for name in names)] for ckpt in grid]
            partial = any(row.task == task and row.partial for row in rows)
            tables.append(
                Table(
                    name=f"metrics of {task}",
                    title=f"Metrics of {title}",
                    header=[*header, *(name.replace("_", " ") for name in names)],
                    lines=lines,
                    left=1 + ("run" in header),
                    notes=[*[PARTIAL] * partial, *[MARKED] * any(row.task == task and row.marks for row in rows)],
                )
            )
    return tables


def comparison_table(rows: Sequence[ComparisonRow]) -> Table:
    """The table of compared pairs, on each task and over tasks; only over tasks where there are very many."""
    shown = [row for row in rows if row.task is None] if len(rows) > MOST_LINES else list(rows)
    shown = shown if len(shown) <= MOST_LINES else []
    legend = [COMPARED]
    if len(shown) < len(rows):
        legend.append(f"{len(shown)} of {len(rows)} comparisons are shown; comparisons.csv holds all.")
    if any(row.partial for row in shown):
        legend.append(PARTIAL)
    header = ["A", "B", "task", "A's score", "B's score", "B - A", "p", "detectable", "items", "gained", "lost", "note"]
    return Table(
        name="comparisons",
        title="Comparisons",
        header=header,
        lines=[_comparison(row) for row in shown],
        left=3,
        notes=legend,
    )


def trend_table(rows: Sequence[TrendRow]) -> Table:
    """The table of trends: since which step each run is better, no longer better, or worse than before."""
    has_run = any(row.run is not None for row in rows)
    shown = [row for row in rows if row.n_steps > 1]
    lines = [
        [
            *[row.run or "-"] * has_run,
            with_direction(row.title, row.direction),
            step(row.reference_step),
            step(row.better_since_step),
            probability(row.p_better_adjusted),
            step(row.lost_since_step),
            _regressed(row),
            "; ".join(filter(None, [f"PARTIAL {row.partial}" if row.partial else None, row.note])),
        ]
        for row in shown
    ]
    header = [*["run"] * has_run, "task", "first step", "better since", "p", "lost since", "regressed since", "note"]
    return Table(name="steps", title="Since when", header=header, lines=lines, left=1 + has_run, notes=[SINCE])


def coverage_table(rows: Sequence[ScoreRow]) -> Table:
    """The table of coverage: for every score, the share of its answers that could be used."""
    header = ["checkpoint", "task", "score", "items", "samples"]
    names = problems(rows)
    reasons = any(row.reasoning_tokens is not None for row in rows)
    header += [*(name.replace("_", " ") for name in names), "mean tokens", *["of reasoning"] * reasons]
    lines = []
    for row in rows:
        shares = [share(getattr(row, name)) for name in names]
        items = "-" if row.n_items is None else str(row.n_items)
        counts = [tokens(row.mean_tokens), *[tokens(row.reasoning_tokens)] * reasons]
        lines.append([row.ckpt, row.title, score_cell(row), items, samples_cell(row), *shares, *counts])
    notes = ["In brackets: the 95 % interval over items.", SHARES]
    return Table(name="coverage", title="Coverage", header=header, lines=lines, left=2, notes=notes)


def problems(rows: Iterable[ScoreRow]) -> list[str]:
    """The kinds of answers whose shares are shown: four always, others where there are any."""
    scores = list(rows)
    return [*ALWAYS, *(name for name in IN_PLACE if any(getattr(row, name) for row in scores))]


def probability(p: float | None) -> str:
    """A p-value with three decimals, or more where it would read as .05 or 1 and is none.

    >>> probability(0.0123), probability(0.00002), probability(None), probability(0.0504), probability(0.05)
    ('0.012', '<0.001', '-', '0.0504', '0.050')
    """
    return "-" if p is None else "<0.001" if p < 0.0005 else f"{p:.{places(p, 3, (0.05, 1))}f}"


def signed(value: float | None) -> str:
    """A difference with its sign.

    >>> signed(0.1234), signed(-2), signed(None)
    ('+0.123', '-2.000', '-')
    """
    shown = number(value)
    return f"+{shown}" if value is not None and value > 0 and float(shown.replace(",", "")) > 0 else shown


def _checkpoints(rows: Sequence[ScoreRow]) -> tuple[list[str], dict[str, list[str]]]:
    """The first columns of tables with a line for each checkpoint: their header, and the cells by checkpoint."""
    has_run = any(row.run is not None for row in rows)
    has_step = any(row.step is not None for row in rows)
    header = ["checkpoint", *["run"] * has_run, *["step"] * has_step]
    return header, {row.ckpt: [row.ckpt, *[row.run or "-"] * has_run, *[step(row.step)] * has_step] for row in rows}


def _metric_cell(row: MetricRow | None) -> str:
    return "-" if row is None or row.value is None else short(row.value, row.stderr) + " !" * bool(row.marks)


def _comparison(row: ComparisonRow) -> list[str]:
    arrow = {"better": "↑", "worse": "↓"}.get(row.change or "", "")
    between = "" if row.ci_low is None else f" [{signed(row.ci_low)}, {signed(row.ci_high)}]"
    items = f"{row.n_common}" if row.n_a == row.n_b == row.n_common else f"{row.n_common} of {row.n_a} and {row.n_b}"
    return [
        row.ckpt_a,
        row.ckpt_b,
        with_direction(row.title, row.direction),
        number(row.value_a),
        number(row.value_b),
        f"{signed(row.delta)}{between}{arrow}",
        probability(row.p_adjusted),
        number(row.detectable),
        "-" if row.n_common is None else items,
        "-" if row.better is None else str(row.better),
        "-" if row.worse is None else str(row.worse),
        "; ".join(filter(None, [f"PARTIAL {row.partial}" if row.partial else None, row.note])),
    ]


def _regressed(row: TrendRow) -> str:
    if row.regressed_since is None:
        return "-"
    return f"{step(row.regressed_since_step)} (worse than {step(row.regressed_below_step)})"

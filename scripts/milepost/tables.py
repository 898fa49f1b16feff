"""From summaries to tables: long CSV files to compute with, Markdown and plain text to read.

The CSV files are what figures and the report are made from. A checkpoint without a summary of a task has a row all the
same, without numbers: a gap is shown, not closed.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from milepost.errors import ConfigError, RecordError
from milepost.records import Estimate, Summary

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

INTERVALS = "In brackets: the 95 % interval over items."
HARNESS = "harness: an external harness's own standard error and a normal interval, without the answers behind them."
PARTIAL = "PARTIAL: only so many of the task's items were asked. Good for a smoke test, not for a conclusion."
SHARES = "Truncated, empty, unreadable, failed: shares of all answers. Failed and unreadable ones have no score."


class Curve(TypedDict):
    """Where a checkpoint stands: which run it is from and after how many training steps it was saved."""

    run: str | None
    step: float | None


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One line of metrics.csv: one metric of one checkpoint on one task."""

    ckpt: str
    run: str | None
    step: float | None
    task: str
    metric: str
    value: float | None
    stderr: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One line of scores.csv: the headline score of one checkpoint on one task, and what stands beside it.

    `truncated`, `empty`, `unreadable`, `failed` are shares of all answers; `partial` is like "20/100", or nothing;
    `n_expected` is how many samples were asked for, where that is known. `run_std` and `run_sem` are over the N samples of
    every item as N runs.
    """

    ckpt: str
    run: str | None
    step: float | None
    task: str
    title: str
    scorer: str | None = None
    metric: str | None = None
    value: float | None = None
    stderr: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n_items: int | None = None
    n_samples: int | None = None
    n_expected: int | None = None
    n_errors: int | None = None
    n_unscored: int | None = None
    truncated: float | None = None
    empty: float | None = None
    unreadable: float | None = None
    failed: float | None = None
    mean_tokens: float | None = None
    chance: float | None = None
    partial: str | None = None
    harness: bool = False
    run_std: float | None = None
    run_sem: float | None = None


Row = TypeVar("Row", bound="DataclassInstance")


def score_rows(
    summaries: Iterable[Summary], curves: Mapping[str, Curve], titles: Mapping[str, str] | None = None
) -> list[ScoreRow]:
    """One row for each checkpoint and task: checkpoints in the order of `curves`, tasks as they first appear.

    Raises:
        ConfigError: A summary's checkpoint is not among the curves.
        RecordError: Two summaries of one checkpoint and task.
    """
    found = _by_place(summaries, curves)
    tasks = list(dict.fromkeys(task for _, task in found))
    rows = []
    for ckpt, curve in curves.items():
        for task in tasks:
            place = {"ckpt": ckpt, **_place(curve), "task": task, "title": (titles or {}).get(task) or task}
            summary = found.get((ckpt, task))
            rows.append(ScoreRow(**place, **_numbers(summary) if summary else {}))
    return rows


def metric_rows(summaries: Iterable[Summary], curves: Mapping[str, Curve]) -> list[MetricRow]:
    """One row for every metric of every summary, in the order of `score_rows`."""
    found = _by_place(summaries, curves)
    return [
        MetricRow(ckpt=ckpt, **_place(curves[ckpt]), task=task, metric=metric, **_interval(estimate))
        for ckpt, task in sorted(found, key=_order(found, curves))
        for metric, estimate in found[ckpt, task]["metrics"].items()
    ]


def write_table(path: str | Path, kind: type[Row], rows: Iterable[Row]) -> None:
    """Write rows as CSV, under a header even if there are none; numbers in full precision, null as nothing."""
    names = [field.name for field in fields(kind)]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        table.writerows([_cell(getattr(row, name)) for name in names] for row in rows)
    part.replace(path)


def read_table(path: str | Path, kind: type[Row]) -> list[Row]:
    """Read rows that `write_table` wrote.

    Raises:
        RecordError: The file is missing, or has other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            records = list(csv.DictReader(file))
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist. `tabulate.py` writes it.") from None
    types = {field.name: str(field.type) for field in fields(kind)}
    try:
        return [kind(**{name: _parse(types[name], text) for name, text in record.items()}) for record in records]
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{path} is not a table of this version: {error}. Make it again with `tabulate.py`."
        ) from None


def score_cell(row: ScoreRow) -> str:
    """A score as tables show it.

    >>> score_cell(ScoreRow(ckpt="a", run=None, step=1, task="t", title="T"))
    'missing'
    >>> score_cell(ScoreRow(ckpt="a", run=None, step=1, task="t", title="T", metric="m", value=0.5, partial="2/9"))
    '0.500 PARTIAL 2/9'
    """
    if row.metric is None:
        return "missing"
    if row.value is None:
        return "not scored"
    marks = [f"PARTIAL {row.partial}"] if row.partial else []
    marks += ["(harness)"] if row.harness else []
    return " ".join([f"{number(row.value)}{interval(row)}", *marks])


def interval(row: ScoreRow | MetricRow) -> str:
    """The interval in brackets after a space, or nothing."""
    if row.ci_low is None or row.ci_high is None:
        return ""
    return f" [{number(row.ci_low)}, {number(row.ci_high)}]"


def number(value: float | None) -> str:
    """A score with three decimals; large ones with one.

    >>> number(0.12345), number(-61.28), number(None)
    ('0.123', '-61.3', '-')
    """
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def share(value: float | None) -> str:
    """A share as a percentage.

    >>> share(0.0), share(0.125), share(0.0004)
    ('0 %', '12.5 %', '<0.1 %')
    """
    if value is None:
        return "-"
    if 0 < value < 0.001:
        return "<0.1 %"
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def samples_cell(row: ScoreRow) -> str:
    """Readable samples, and of how many that were asked for."""
    if row.n_samples is None:
        return "-"
    return f"{row.n_samples}" if row.n_expected in (None, row.n_samples) else f"{row.n_samples} of {row.n_expected}"


def wide_table(rows: Sequence[ScoreRow]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the summary table: a line for each checkpoint, a column for each task."""
    has_run = any(row.run is not None for row in rows)
    has_step = any(row.step is not None for row in rows)
    titles = {row.task: row.title for row in rows}
    header = ["checkpoint", *["run"] * has_run, *["step"] * has_step, *titles.values()]
    lines: dict[str, list[str]] = {}
    for row in rows:
        start = [row.ckpt, *[row.run or "-"] * has_run, *[step(row.step)] * has_step]
        lines.setdefault(row.ckpt, start).append(score_cell(row))
    return header, list(lines.values())


def coverage_table(rows: Sequence[ScoreRow]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of what stands beside every score: how much of it rests on answers that could be read."""
    header = ["checkpoint", "task", "score", "items", "samples"]
    header += ["truncated", "empty", "unreadable", "failed", "mean tokens"]
    lines = []
    for row in rows:
        shares = map(share, (row.truncated, row.empty, row.unreadable, row.failed))
        items = "-" if row.n_items is None else str(row.n_items)
        tokens = "-" if row.mean_tokens is None else f"{row.mean_tokens:,.1f}"
        lines.append([row.ckpt, row.title, score_cell(row), items, samples_cell(row), *shares, tokens])
    return header, lines


def markdown(rows: Sequence[ScoreRow]) -> str:
    """Both tables as Markdown, with the notes they need."""
    tables = ["\n".join(_markdown_table(*wide_table(rows))), "\n".join(_markdown_table(*coverage_table(rows)))]
    return "\n\n".join(["# Scores", tables[0], *notes(rows), "## Coverage", tables[1], SHARES]) + "\n"


def text(rows: Sequence[ScoreRow], width: int = 120) -> str:
    """The summary table for a terminal: a line for each checkpoint, or for each score where that is too wide."""
    lines = _text_table(*wide_table(rows))
    if max(map(len, lines)) > width:
        tasks = list(dict.fromkeys(row.task for row in rows))
        header, cells = coverage_table(sorted(rows, key=lambda row: tasks.index(row.task)))
        lines = _text_table(header[:5], [line[:5] for line in cells])
    return "\n".join([*lines, "", *notes(rows)]) + "\n"


def notes(rows: Iterable[ScoreRow]) -> list[str]:
    """What a reader of the summary table has to know."""
    rows = list(rows)
    said = [INTERVALS]
    said += [PARTIAL] * any(row.partial for row in rows)
    said += [HARNESS] * any(row.harness for row in rows)
    return said


def step(value: float | None) -> str:
    """A training step, without decimals unless it has some.

    >>> step(12000), step(0.5), step(None)
    ('12000', '0.5', '-')
    """
    return "-" if value is None else f"{value:.0f}" if value == int(value) else f"{value}"


def _by_place(summaries: Iterable[Summary], curves: Mapping[str, Curve]) -> dict[tuple[str, str], Summary]:
    found: dict[tuple[str, str], Summary] = {}
    for summary in summaries:
        ckpt, task = summary["ckpt"], summary["task"]
        if ckpt not in curves:
            raise ConfigError(
                f"A summary is of checkpoint {ckpt!r}. Checkpoints of this table: {', '.join(curves) or 'none'}. "
                "Add it to --curves, or leave its summaries out."
            )
        if (ckpt, task) in found:
            raise RecordError(f"Two summaries are of checkpoint {ckpt!r} and task {task!r}. Give each file once.")
        found[ckpt, task] = summary
    return found


def _order(found: Iterable[tuple[str, str]], curves: Iterable[str]) -> Any:
    ckpts = {ckpt: place for place, ckpt in enumerate(curves)}
    tasks = {task: place for place, task in enumerate(dict.fromkeys(task for _, task in found))}
    return lambda key: (ckpts[key[0]], tasks[key[1]])


def _place(curve: Curve) -> dict[str, Any]:
    return {"run": curve.get("run"), "step": curve.get("step")}


def _interval(estimate: Estimate) -> dict[str, Any]:
    low, high = estimate["ci95"] or (None, None)
    return {"value": estimate["value"], "stderr": estimate["stderr"], "ci_low": low, "ci_high": high}


def _numbers(summary: Summary) -> dict[str, Any]:
    names = ["scorer", "metric", "n_items", "n_samples", "n_errors", "n_unscored", "mean_tokens"]
    partial = summary.get("partial")
    return {
        **{name: cast(dict[str, Any], summary)[name] for name in names},
        **_interval(Estimate(value=summary["value"], stderr=summary["stderr"], ci95=summary["ci95"])),
        **summary["rates"],
        "n_expected": summary["provenance"].get("expected", {}).get("samples"),
        "chance": summary.get("chance"),
        "partial": f"{partial['limit']}/{partial['of']}" if partial else None,
        "harness": summary.get("harness", False),
        "run_std": summary.get("runs", {}).get("std"),
        "run_sem": summary.get("runs", {}).get("sem"),
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse(kind: str, text: str) -> Any:
    """A cell as the field of a row has it; `kind` is the field's annotation."""
    wanted, _, optional = kind.partition(" | ")
    if text == "" and optional:
        return None
    if wanted == "bool":
        return text == "true"
    return {"str": str, "int": int, "float": float}[wanted](text)


def _markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    escaped = [f"| {' | '.join(map(_escape, line))} |" for line in [header, *lines]]
    return [escaped[0], f"| :-- |{' --: |' * (len(header) - 1)}", *escaped[1:]]


def _escape(text: str) -> str:
    for mark in "\\`*|<>":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _text_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *lines]
    ]

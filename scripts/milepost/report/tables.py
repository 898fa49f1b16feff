"""Turns summaries into tables: long CSV files to compute with, and the text of a score in tables for readers.

The CSV files are what figures and the report are made from. A checkpoint without a summary of a task has a row all the
same, without numbers: a gap is shown, not closed.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from milepost.comparisons.rows import ComparisonRow, RankRow, StepRow
from milepost.errors import ConfigError, RecordError
from milepost.records import Estimate, Summary
from milepost.statistics.marks import NOTHING, marks_of
from milepost.statistics.metrics import scale_of
from milepost.style import places

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Curve(TypedDict):
    """A checkpoint's place on a training curve: its run, and the training step after which it was saved."""

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
    direction: str | None = None
    marks: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One line of scores.csv: the headline score of one checkpoint on one task, and what stands beside it.

    `truncated`, `empty`, `unreadable`, `failed` are shares of all answers; so is `reasoning_cut`, those of which the reasoning
    does not end; `partial` is like "20/100", or nothing;
    `n_expected` is how many samples were asked for, where that is known. `run_std` and `run_sem` are over the N samples of
    every item as N runs. `direction` says which values of the metric are better: higher or lower. Those of a task that share one of the `letters` could not be told apart; `change` is better or
    worse where the score differs significantly from that of the checkpoint `reference`. `marks` says in a few words why the
    number is not what it seems, `reasons` in sentences.
    """

    ckpt: str
    run: str | None
    step: float | None
    task: str
    title: str
    scorer: str | None = None
    metric: str | None = None
    direction: str | None = None
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
    letters: str | None = None
    reference: str | None = None
    change: str | None = None
    reasoning_cut: float | None = None
    reasoning_tokens: float | None = None
    refused: float | None = None
    filtered: float | None = None
    reasoning_only: float | None = None
    tool_calls: float | None = None
    identical: float | None = None
    marks: str | None = None
    reasons: str | None = None


Row = TypeVar("Row", bound="DataclassInstance")


def score_rows(
    summaries: Iterable[Summary],
    curves: Mapping[str, Curve],
    titles: Mapping[str, str] | None = None,
    shares: Mapping[str, float] | None = None,
) -> list[ScoreRow]:
    """One row for each checkpoint and task: checkpoints in the order of `curves`, tasks in that of `titles`.

    Args:
        summaries: The numbers.
        curves: The checkpoints' places.
        titles: The tasks' titles.
        shares: From which shares on numbers are marked (`statistics.marks`).

    Raises:
        ConfigError: A summary's checkpoint is not among the curves.
        RecordError: Two summaries of one checkpoint and task.
    """
    by_place = _by_place(summaries, curves)
    tasks = list(dict.fromkeys([*(titles or {}), *(task for _, task in by_place)]))
    rows = []
    for ckpt, curve in curves.items():
        for task in tasks:
            place = {"ckpt": ckpt, **_place(curve), "task": task, "title": (titles or {}).get(task) or task}
            summary = by_place.get((ckpt, task))
            rows.append(ScoreRow(**place, **_numbers(summary, shares) if summary else {}))
    return rows


def metric_rows(
    summaries: Iterable[Summary], curves: Mapping[str, Curve], shares: Mapping[str, float] | None = None
) -> list[MetricRow]:
    """One row for every metric of every summary, in the order of `score_rows`, with the marks of its score."""
    by_place = _by_place(summaries, curves)
    return [
        MetricRow(
            ckpt=ckpt,
            **_place(curves[ckpt]),
            task=task,
            metric=metric,
            **_interval(estimate),
            direction=scale_of(by_place[ckpt, task], metric)["better"],
            marks=_marks(by_place[ckpt, task], shares)["marks"],
        )
        for ckpt, task in sorted(by_place, key=_order(by_place, curves))
        for metric, estimate in by_place[ckpt, task]["metrics"].items()
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


def with_marks(
    rows: Iterable[ScoreRow],
    comparisons: Iterable[ComparisonRow],
    steps: Iterable[StepRow],
    ranking: Iterable[RankRow],
) -> list[ScoreRow]:
    """Add to the rows their letters by rank, and whether they differ significantly from a reference.

    The reference is the checkpoint that all were compared with, if the configuration names one (`against`); otherwise
    the first step of each run.
    """
    letters = {(row.ckpt, row.task): row.letters for row in ranking}
    changes: dict[tuple[str, str | None], tuple[str, str | None]] = {}
    for compared in comparisons:
        if compared.family == "against":
            changes[compared.ckpt_b, compared.task] = compared.ckpt_a, compared.change
    if not changes:
        for tested in steps:
            if tested.reference and tested.ckpt != tested.reference:
                change = "better" if tested.better else "worse" if tested.worse else None
                changes[tested.ckpt, tested.task] = tested.reference, change
    marked = []
    for row in rows:
        reference, change = changes.get((row.ckpt, row.task), (None, None))
        marked.append(replace(row, letters=letters.get((row.ckpt, row.task)), reference=reference, change=change))
    return marked


def short_cell(row: ScoreRow) -> str:
    """A score in the short form, with its marks.

    >>> short_cell(ScoreRow(ckpt="a", run=None, step=1, task="t", title="T", metric="m", value=0.5, stderr=0.04,
    ...     change="better", letters="ab"))
    '0.500(40)↑ ab'
    """
    if row.value is None:
        return score_cell(row)
    return " ".join([short(row.value, row.stderr) + arrow(row), *filter(None, [row.letters]), *_warnings(row)])


def score_cell(row: ScoreRow) -> str:
    """A score with its interval, for tables that have room for it.

    >>> score_cell(ScoreRow(ckpt="a", run=None, step=1, task="t", title="T"))
    'missing'
    >>> score_cell(ScoreRow(ckpt="a", run=None, step=1, task="t", title="T", metric="m", value=0.5, partial="2/9"))
    '0.500 PARTIAL 2/9'
    """
    if row.metric is None:
        return "missing"
    if row.value is None:
        return " ".join(["not scored", *_warnings(row)])
    return " ".join([f"{number(row.value)}{interval(row)}", *_warnings(row)])


def arrow(row: ScoreRow) -> str:
    """An arrow that says whether a score is better or worse than its reference, or nothing."""
    return {"better": "↑", "worse": "↓"}.get(row.change or "", "")


def short(value: float, stderr: float | None) -> str:
    """A value with two digits of its standard error in brackets, in units of the value's last digit.

    >>> short(0.74166, 0.0349), short(0.9999, 0.00997), short(-61.28, 1.23), short(1.0, 0.0)
    ('0.742(35)', '0.9999(100)', '-61.3(1.2)', '1.000')
    """
    if not stderr:
        return number(value)
    # Its first two digits as they will be shown decide the place: .00997 is shown as .010.
    decimals = places(value, max(0, 1 - math.floor(math.log10(float(f"{stderr:.1e}")))))
    digits = f"{stderr:.{decimals}f}" if stderr >= 1 else f"{stderr * 10**decimals:.0f}"
    return f"{_fixed(value, decimals)}({digits})"


def interval(row: ScoreRow | MetricRow) -> str:
    """The 95 % interval in brackets, after a space; nothing if there is none."""
    if row.ci_low is None or row.ci_high is None:
        return ""
    return f" [{number(row.ci_low)}, {number(row.ci_high)}]"


def number(value: float | None) -> str:
    """A score with three decimals; large ones with one; with more where it would read as 0, 1 or 100, which it is not.

    >>> number(0.12345), number(-61.28), number(None), number(0.9999), number(-0.0001), number(1e-9)
    ('0.123', '-61.3', '-', '0.9999', '-0.0001', '1e-09')
    """
    if value is None:
        return "-"
    if 1e-12 < abs(value) < 5e-8:
        return f"{value:.0e}"
    return _fixed(value, places(value, 3) if abs(value) < 10 else places(value, 1, (100, -100)))


def tokens(value: float | None) -> str:
    """A mean number of tokens.

    >>> tokens(1234.56), tokens(0.04), tokens(None)
    ('1,234.6', '0.04', '-')
    """
    return "-" if value is None else _fixed(value, places(value, 1, (0,)))


def share(value: float | None) -> str:
    """A share as a percentage.

    >>> share(0.0), share(0.125), share(0.0004), share(0.9999), share(1.0)
    ('0 %', '12.5 %', '<0.1 %', '>99.9 %', '100 %')
    """
    if value is None:
        return "-"
    if 0 < value < 0.001:
        return "<0.1 %"
    if 0.9995 <= value < 1:
        return ">99.9 %"
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def samples_cell(row: ScoreRow) -> str:
    """The number of readable samples, and of those that were asked for."""
    if row.n_samples is None:
        return "-"
    return f"{row.n_samples}" if row.n_expected in (None, row.n_samples) else f"{row.n_samples} of {row.n_expected}"


def with_direction(title: str, direction: str | None) -> str:
    """A title that says so where lower is better.

    >>> with_direction("Loss", "lower"), with_direction("Sums", "higher")
    ('Loss (lower is better)', 'Sums')
    """
    return f"{title} (lower is better)" if direction == "lower" else title


def step(value: float | None) -> str:
    """A training step, without decimals unless it has some.

    >>> step(12000), step(0.5), step(None)
    ('12000', '0.5', '-')
    """
    return "-" if value is None else f"{value:.0f}" if value == int(value) else f"{value}"


def mark_cell(row: ScoreRow) -> str:
    """The marks of a score as they stand beside it; nothing where there are none.

    >>> place = {"ckpt": "a", "run": None, "step": 1, "task": "t", "title": "T"}
    >>> mark_cell(ScoreRow(**place, value=0.0, marks="empty 100 %"))
    '! empty 100 %'
    >>> mark_cell(ScoreRow(**place, marks="nothing scored, refused 100 %")), mark_cell(ScoreRow(**place))
    ('! refused 100 %', '')
    """
    marks = (row.marks or "").removeprefix(NOTHING).removeprefix(", ") if row.value is None else row.marks
    return f"! {marks}".strip() if row.marks else ""


def _warnings(row: ScoreRow) -> list[str]:
    marks = [mark_cell(row)] if row.marks else []
    return marks + [f"PARTIAL {row.partial}"] * bool(row.partial) + ["(harness)"] * row.harness


def _fixed(value: float, decimals: int) -> str:
    # Without the sign of a zero.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def _by_place(summaries: Iterable[Summary], curves: Mapping[str, Curve]) -> dict[tuple[str, str], Summary]:
    by_place: dict[tuple[str, str], Summary] = {}
    for summary in summaries:
        ckpt, task = summary["ckpt"], summary["task"]
        if ckpt not in curves:
            raise ConfigError(
                f"A summary is of checkpoint {ckpt!r}. Checkpoints of this table: {', '.join(curves) or 'none'}. "
                "Add it to --curves, or leave its summaries out."
            )
        if (ckpt, task) in by_place:
            raise RecordError(f"Two summaries are of checkpoint {ckpt!r} and task {task!r}. Give each file once.")
        by_place[ckpt, task] = summary
    return by_place


def _order(found: Iterable[tuple[str, str]], curves: Iterable[str]) -> Any:
    ckpts = {ckpt: place for place, ckpt in enumerate(curves)}
    tasks = {task: place for place, task in enumerate(dict.fromkeys(task for _, task in found))}
    return lambda key: (ckpts[key[0]], tasks[key[1]])


def _place(curve: Curve) -> dict[str, Any]:
    return {"run": curve.get("run"), "step": curve.get("step")}


def _interval(estimate: Estimate) -> dict[str, Any]:
    low, high = estimate["ci95"] or (None, None)
    return {"value": estimate["value"], "stderr": estimate["stderr"], "ci_low": low, "ci_high": high}


def _marks(summary: Summary, shares: Mapping[str, float] | None) -> dict[str, str | None]:
    marks = marks_of(summary, shares)
    return {
        "marks": ", ".join(mark.short for mark in marks) or None,
        "reasons": " ".join(mark.reason for mark in marks) or None,
    }


def _numbers(summary: Summary, shares: Mapping[str, float] | None) -> dict[str, Any]:
    names = ["scorer", "metric", "n_items", "n_samples", "n_errors", "n_unscored", "mean_tokens"]
    partial = summary.get("partial")
    return {
        **{name: cast(dict[str, Any], summary)[name] for name in names},
        "direction": scale_of(summary)["better"],
        **_interval(Estimate(value=summary["value"], stderr=summary["stderr"], ci95=summary["ci95"])),
        **summary["rates"],
        "n_expected": summary["provenance"].get("expected", {}).get("samples"),
        "reasoning_cut": summary.get("reasoning", {}).get("cut"),
        "reasoning_tokens": summary.get("reasoning", {}).get("mean_tokens"),
        "chance": summary.get("chance"),
        "partial": f"{partial['limit']}/{partial['of']}" if partial else None,
        "harness": summary.get("harness", False),
        "run_std": summary.get("runs", {}).get("std"),
        "run_sem": summary.get("runs", {}).get("sem"),
        **_marks(summary, shares),
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse(kind: str, text: str) -> Any:
    """Read a CSV cell as a value of the row's field, whose annotation is `kind`."""
    wanted, _, optional = kind.partition(" | ")
    if text == "" and optional:
        return None
    if wanted == "bool":
        return text == "true"
    return {"str": str, "int": int, "float": float}[wanted](text)

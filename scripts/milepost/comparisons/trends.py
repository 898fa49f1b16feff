"""Compares all steps of a run with its start, and ranks checkpoints: since when is a run better, and which is best?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from milepost.comparisons.rows import RankRow, StepRow, TrendRow
from milepost.comparisons.task_results import ALPHA, HARNESS, MISSING, TaskResults, is_small, joined
from milepost.records import Summary
from milepost.statistics.paired import LESS_THAN_HALF, first_better, lost_since, rank_letters, regressed_since
from milepost.statistics.sign_flips import LEAST_OVERLAP

TOO_FEW = "scores of less than half of the items"

if TYPE_CHECKING:
    from milepost.campaign.shown import OnCurve


def compare_steps(steps: Sequence[OnCurve], task: TaskResults) -> tuple[list[StepRow], TrendRow]:
    """Compare all steps of one run on one task with the first of them that has scores of enough items."""
    names = [ckpt.name for ckpt in steps]
    start = _reference(task, names)
    notes = [task.why_not(name, names[start] if start is not None else None) for name in names]
    rows = [
        StepRow(
            run=ckpt.run,
            task=task.name,
            title=task.title,
            metric=task.metric(),
            ckpt=ckpt.name,
            step=float(ckpt.step or 0),
            direction=task.scale["better"] if task.summaries else None,
            reference=None if start is None else names[start],
            value=task.summaries[ckpt.name]["value"] if ckpt.name in task.summaries else None,
            n_items=task.summaries[ckpt.name]["n_items"] if ckpt.name in task.summaries else None,
            partial=task.partial(ckpt.name),
            note=note,
        )
        for ckpt, note in zip(steps, notes, strict=True)
    ]
    trend = TrendRow(
        run=steps[0].run,
        task=task.name,
        title=task.title,
        metric=task.metric(),
        n_steps=len(steps),
        n_scored=sum(name in task.summaries for name in names),
        direction=task.scale["better"] if task.summaries else None,
        partial=task.partial(*names),
    )
    for k, row in enumerate(rows[:start]):
        rows[k] = replace(row, note=row.note or (TOO_FEW if _n_scored(task, row.ckpt) else MISSING))
    if start is None:
        return rows, replace(trend, note=next(filter(None, notes), MISSING))
    # Times the sign, more is better: all tests are of gains then, whichever way the metric goes.
    means = task.sign * task.scores.several(names[start:])
    # Scores that must not be compared are treated as missing.
    means[[note is not None for note in notes[start:]]] = np.nan
    clusters = task.scores.clusters
    first, better = first_better(means, clusters=clusters)
    _, worse = first_better(means, clusters=clusters, alternative="less")
    for k, (up, down) in enumerate(zip(better, worse, strict=True)):
        row = rows[start + k]
        tested = row.note is None
        too_few = tested and k > 0 and up.p_adjusted is None
        rows[start + k] = replace(
            row,
            n_common=up.n_common if tested else None,
            delta=task.sign * up.delta if tested and not too_few and up.delta is not None else None,
            t=None if up.t is None else task.sign * up.t,
            p_better=up.p_adjusted,
            p_worse=down.p_adjusted,
            better=is_small(up.p_adjusted, ALPHA / 2),
            worse=is_small(down.p_adjusted, ALPHA / 2),
            first_better=k == first,
            note=_untested(up.n_common)
            if too_few
            else row.note or (task.warning(row.ckpt, names[start]) if k else None),
        )
    regression = regressed_since(means, clusters=clusters)
    lost = lost_since(better, regression)

    def at(index: int | None) -> tuple[str | None, float | None]:
        return (None, None) if index is None else (rows[start + index].ckpt, rows[start + index].step)

    p_better = [test.p_adjusted for test in better if test.p_adjusted is not None]
    first_steps = max(_n_scored(task, name) for name in names[:start]) if start else 0
    note = f"the first steps have {'scores of too few items' if first_steps else 'no scores'}" if start else None
    trend = replace(
        trend,
        reference=names[start],
        reference_step=rows[start].step,
        better_since=at(first)[0],
        better_since_step=at(first)[1],
        p_better=min(p_better, default=None),
        lost_since=at(lost)[0],
        lost_since_step=at(lost)[1],
        regressed_since=at(regression.since)[0],
        regressed_since_step=at(regression.since)[1],
        regressed_below=at(regression.below)[0],
        regressed_below_step=at(regression.below)[1],
        p_regressed=regression.p_any,
        note=joined(note, None if p_better else "no other step to compare with"),
    )
    return rows, trend


def rank(task: TaskResults, ckpts: Sequence[OnCurve]) -> list[RankRow]:
    """Rank the checkpoints of one task, best first, with letters: those that share a letter could not be told apart.

    Only scores on one footing are ranked: of the version, scorer and metric that most checkpoints have.
    """
    if len(ckpts) < 2:
        return []
    footings = Counter(_footing(task.summaries[ckpt.name]) for ckpt in ckpts if ckpt.name in task.summaries)
    footing = footings.most_common(1)[0][0] if footings else None
    like = next((ckpt.name for ckpt in ckpts if _footing(task.summaries.get(ckpt.name)) == footing), None)
    notes = {ckpt.name: task.why_not(ckpt.name, like) for ckpt in ckpts}
    tested = [ckpt.name for ckpt in ckpts if notes[ckpt.name] is None]
    letters = dict(
        zip(tested, rank_letters(task.sign * task.scores.several(tested), clusters=task.scores.clusters), strict=True)
        if tested
        else []
    )
    values = {ckpt.name: task.summaries[ckpt.name]["value"] for ckpt in ckpts if notes[ckpt.name] in (None, HARNESS)}
    known = [value for value in values.values() if value is not None]
    rows = [
        RankRow(
            task=task.name,
            title=task.title,
            metric=task.metric(),
            rank=None if value is None else 1 + sum(task.sign * other > task.sign * value for other in known),
            ckpt=ckpt.name,
            run=ckpt.run,
            step=ckpt.step,
            direction=task.scale["better"] if task.summaries else None,
            value=value,
            n_items=task.summaries[ckpt.name]["n_items"] if ckpt.name in task.summaries else None,
            letters=letters.get(ckpt.name) or None,
            partial=task.partial(ckpt.name),
            note=notes[ckpt.name],
        )
        for ckpt in ckpts
        for value in [values.get(ckpt.name)]
    ]
    return sorted(rows, key=lambda row: math.inf if row.rank is None else row.rank)


def _reference(task: TaskResults, names: Sequence[str]) -> int | None:
    """The first step that the others can be compared with; None where no step has scores.

    A step of which most items could not be read has too few in common with any other: against it nothing is tested.
    """
    counts = [_n_scored(task, name) for name in names]
    enough = LEAST_OVERLAP * max(counts, default=0)
    return next((k for k, count in enumerate(counts) if 0 < count >= enough), None)


def _n_scored(task: TaskResults, ckpt: str) -> int:
    """Items with a score that may be compared."""
    return 0 if task.why_not(ckpt) else int((~np.isnan(task.scores.of(ckpt))).sum())


def _footing(summary: Summary | None) -> tuple[object, ...] | None:
    return None if summary is None else (summary["task_version"], summary["scorer"], summary["metric"])


def _untested(n_common: int) -> str:
    return "one item" if n_common == 1 else LESS_THAN_HALF if n_common else "no scores in common"

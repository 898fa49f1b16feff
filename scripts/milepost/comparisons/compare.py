"""Compare the checkpoints of a campaign: pair by pair, step by step, and by rank; per task and over tasks.

The tests themselves are in `paired`; here is which scores go into them, and which must not: those of another version of
a task, of another scorer, or a harness's own numbers. docs/comparisons.md says how to read what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from milepost.comparisons.pairs import Pair, plan_pairs, ranked, runs_of
from milepost.comparisons.rows import ComparisonRow, FlipRow, RankRow, StepRow, TrendRow
from milepost.comparisons.task_results import HARNESS, TaskResults, is_small, joined, read_results
from milepost.comparisons.trends import compare_steps, rank
from milepost.errors import RecordError
from milepost.statistics.intervals import UNIT
from milepost.statistics.paired import benjamini_hochberg, compare, holm

if TYPE_CHECKING:
    from milepost.campaign.shown import Shown

# Items one by one are for pairs that somebody looks at; all against one would be a file as long as the scores.
FLIPS_OF = ("pairs", "first_last")
CORRECTIONS: dict[str, Callable[[Sequence[float | None]], list[float | None]]] = {
    "bh": benjamini_hochberg,
    "holm": holm,
}


@dataclass(frozen=True)
class Comparisons:
    """The rows of all files."""

    comparisons: list[ComparisonRow] = field(default_factory=list)
    flips: list[FlipRow] = field(default_factory=list)
    steps: list[StepRow] = field(default_factory=list)
    trends: list[TrendRow] = field(default_factory=list)
    ranking: list[RankRow] = field(default_factory=list)


def compare_campaign(campaign: Shown, scores: Path, summaries: Path) -> Comparisons:
    """Compare what a campaign asks to compare, from what is scored so far.

    Args:
        campaign: Its checkpoints, tasks and `comparisons`.
        scores: Folder of {ckpt}/{task}.jsonl.
        summaries: Folder of {ckpt}/{task}.json.

    Raises:
        ConfigError: A checkpoint or run to be compared does not exist.
        RecordError: Malformed scores, or no summary at all.
        StaleNumberError: A summary that another configuration than today's has made.
    """
    pairs = plan_pairs(campaign.config, campaign.checkpoints)
    runs = runs_of(campaign.checkpoints)
    rankable = ranked(campaign.config, campaign.checkpoints)
    correction = campaign.config["comparisons"]["correction"]
    comparisons = Comparisons()
    by_pair: dict[Pair, list[tuple[ComparisonRow, float | None]]] = {pair: [] for pair in pairs}
    any_summary = False
    # Task by task: only one task's scores are held at a time.
    for name in campaign.tasks:
        results = read_results(campaign, name, scores, summaries)
        any_summary = any_summary or bool(results.summaries)
        for pair in pairs:
            row = compare_pair(pair, results)
            by_pair[pair].append((row, _degrees(row, results)))
            if pair.family in FLIPS_OF and row.delta is not None:
                comparisons.flips.extend(flip_rows(pair, results))
        for steps in runs.values():
            rows, trend = compare_steps(steps, results)
            comparisons.steps.extend(rows)
            comparisons.trends.append(trend)
        comparisons.ranking.extend(rank(results, [campaign.checkpoints[ckpt] for ckpt in rankable]))
    if not any_summary:
        raise RecordError(
            f"{summaries} holds no summary of this campaign's checkpoints and tasks. Score answers first (`snakemake`), or "
            "correct the folder."
        )
    for pair, compared in by_pair.items():
        comparisons.comparisons.extend(row for row, _ in compared)
        if len(compared) > 1:
            comparisons.comparisons.append(over_tasks(pair, compared))
    order = {(pair.a, pair.b): place for place, pair in enumerate(pairs)}
    comparisons.flips.sort(key=lambda row: order[row.ckpt_a, row.ckpt_b])
    place = {run: number for number, run in enumerate(runs)}
    comparisons.steps.sort(key=lambda row: place[row.run or ""])
    comparisons.trends.sort(key=lambda row: place[row.run or ""])
    comparisons.comparisons[:] = corrected(comparisons.comparisons, correction)
    comparisons.trends[:] = corrected_trends(comparisons.trends, correction)
    return comparisons


def compare_pair(pair: Pair, task: TaskResults) -> ComparisonRow:
    """One pair on one task; a row without numbers where they cannot be compared."""
    row = ComparisonRow(
        family=pair.family,
        ckpt_a=pair.a,
        ckpt_b=pair.b,
        task=task.name,
        title=task.title,
        metric=task.metric(),
        direction=task.scale["better"] if task.summaries else None,
        partial=task.partial(pair.a, pair.b),
    )
    why_not = task.why_not(pair.b, pair.a)
    a, b = task.scores.of(pair.a), task.scores.of(pair.b)
    if why_not:
        there = ~np.isnan(a), ~np.isnan(b)
        row = replace(row, n_a=int(there[0].sum()), n_b=int(there[1].sum()), note=why_not)
        if why_not != HARNESS:
            return row
        first, second = task.summaries[pair.a]["value"], task.summaries[pair.b]["value"]
        delta = None if first is None or second is None else second - first
        return replace(row, n_a=None, n_b=None, value_a=first, value_b=second, delta=delta)
    single = all(task.scores.samples[task.scores.rows[ckpt]] == 1 for ckpt in (pair.a, pair.b))
    found = compare(a, b, clusters=task.scores.clusters, single=single, bounds=task.bounds)
    low, high = found.ci95 or (None, None)
    return replace(
        row,
        n_a=found.n_a,
        n_b=found.n_b,
        n_common=found.n_common,
        value_a=found.value_a,
        value_b=found.value_b,
        delta=found.delta,
        stderr=found.stderr,
        ci_low=low,
        ci_high=high,
        p=found.p,
        test=found.test,
        detectable=found.detectable,
        better=None if found.delta is None else found.better if task.sign > 0 else found.worse,
        worse=None if found.delta is None else found.worse if task.sign > 0 else found.better,
        note=joined(found.note, task.warning(pair.b, pair.a)),
    )


def flip_rows(pair: Pair, task: TaskResults) -> list[FlipRow]:
    """The items on which two checkpoints differ, the largest change first."""
    a, b = task.scores.of(pair.a), task.scores.of(pair.b)
    rows = [
        FlipRow(
            ckpt_a=pair.a,
            ckpt_b=pair.b,
            task=task.name,
            item=item,
            score_a=float(first),
            score_b=float(second),
            delta=float(second - first),
            change="better" if task.sign * (second - first) > 0 else "worse",
            partial=task.partial(pair.a, pair.b),
        )
        for item, first, second in zip(task.scores.items, a, b, strict=True)
        if not math.isnan(second - first) and second != first
    ]
    return sorted(rows, key=lambda row: -abs(row.delta))


def over_tasks(pair: Pair, rows: Sequence[tuple[ComparisonRow, float | None]]) -> ComparisonRow:
    """One pair over tasks: the plain mean of its deltas, every task with the same weight.

    The tasks' items are taken as independent: stderr = √(Σ stderr²)/T, and t has the degrees of freedom of Welch and
    Satterthwaite. It holds for these tasks; how the pair would do on others it does not say. Tasks with another range than
    [0, 1], without a paired comparison, or of which lower scores are better while of others higher ones are, are left out
    and named in the note.

    Args:
        pair: The two checkpoints.
        rows: The pair's row of each task with its degrees of freedom; None where it cannot be averaged.
    """
    directions = {row.direction for row, df in rows if df is not None}
    # Errors and successes have no mean in common.
    direction = "higher" if len(directions) > 1 else next(iter(directions), None)
    used = [(row, df) for row, df in rows if df is not None and row.direction == direction]
    kept = {row.task for row, _ in used}
    left_out = ", ".join(row.title for row, _ in rows if row.task not in kept)
    marks = dict.fromkeys(row.partial for row, _ in used if row.partial)
    total = ComparisonRow(
        family=pair.family,
        ckpt_a=pair.a,
        ckpt_b=pair.b,
        task=None,
        title=f"Mean of {len(used)} tasks",
        direction=direction,
        n_tasks=len(used),
        partial=", ".join(marks) or None,
        note=f"without {left_out}" if left_out else None,
    )
    if len(used) < 2:
        return replace(total, title="Mean of tasks", note=joined("fewer than two tasks can be averaged", total.note))
    n = len(used)
    delta = math.fsum(row.delta or 0 for row, _ in used) / n
    parts = [((row.stderr or 0) / n) ** 2 for row, _ in used]
    stderr = math.sqrt(math.fsum(parts))
    total = replace(
        total,
        n_a=sum(row.n_a or 0 for row, _ in used),
        n_b=sum(row.n_b or 0 for row, _ in used),
        n_common=sum(row.n_common or 0 for row, _ in used),
        value_a=math.fsum(row.value_a or 0 for row, _ in used) / n,
        value_b=math.fsum(row.value_b or 0 for row, _ in used) / n,
        delta=delta,
        stderr=stderr,
        better=sum(row.better or 0 for row, _ in used),
        worse=sum(row.worse or 0 for row, _ in used),
    )
    # Differences that are all alike say nothing about how far others would be.
    if stderr <= 1e-9 * max(1.0, abs(delta)):
        return replace(total, note=joined("no item differs more than another", total.note))
    df = math.fsum(parts) ** 2 / math.fsum(part**2 / df for part, (_, df) in zip(parts, used, strict=True) if df)
    p, half, power = _student(delta / stderr, df)
    return replace(
        total,
        ci_low=delta - half * stderr,
        ci_high=delta + half * stderr,
        p=p,
        test="t over tasks",
        detectable=(half + power) * stderr,
    )


def corrected(rows: Sequence[ComparisonRow], correction: str) -> list[ComparisonRow]:
    """The rows with p-values corrected in families: the pairs of one entry on all tasks, and the same over tasks."""
    p_adjusted, n_tests = _families([((row.family, row.task is None), row.p) for row in rows], correction)
    return [
        replace(
            row,
            p_adjusted=p,
            correction=None if p is None else correction,
            n_tests=None if p is None else n,
            significant=is_small(p),
            change=_change(row) if is_small(p) else None,
        )
        for row, p, n in zip(rows, p_adjusted, n_tests, strict=True)
    ]


def corrected_trends(rows: Sequence[TrendRow], correction: str) -> list[TrendRow]:
    """The trends with each run's p-values corrected over its tasks: gains and falls are two families."""
    better, _ = _families([(row.run, row.p_better) for row in rows], correction)
    regressed, _ = _families([(row.run, row.p_regressed) for row in rows], correction)
    return [
        replace(row, p_better_adjusted=up, p_regressed_adjusted=down, correction=None if up is None else correction)
        for row, up, down in zip(rows, better, regressed, strict=True)
    ]


def _change(row: ComparisonRow) -> str:
    """Whether b is better or worse than a."""
    return "better" if (row.delta or 0) * (-1 if row.direction == "lower" else 1) > 0 else "worse"


def _families(tests: Iterable[tuple[object, float | None]], correction: str) -> tuple[list[float | None], list[int]]:
    """For every test its corrected p, and the number of tests in its family."""
    tests = list(tests)
    members: dict[object, list[int]] = {}
    for place, (family, _) in enumerate(tests):
        members.setdefault(family, []).append(place)
    adjusted: list[float | None] = [None] * len(tests)
    sizes = [0] * len(tests)
    for places in members.values():
        p = [tests[place][1] for place in places]
        for place, value in zip(places, CORRECTIONS[correction](p), strict=True):
            adjusted[place] = value
            sizes[place] = sum(one is not None for one in p)
    return adjusted, sizes


def _degrees(row: ComparisonRow, task: TaskResults) -> float | None:
    """Degrees of freedom of a row's error; None if it has none, or if its scores have another range than [0, 1]."""
    if row.stderr is None or task.bounds != UNIT:
        return None
    if task.scores.clusters is None:
        return (row.n_common or 0) - 1
    common = ~np.isnan(task.scores.of(row.ckpt_a) - task.scores.of(row.ckpt_b))
    return len(set(np.array(task.scores.clusters)[common])) - 1


def _student(t: float, df: float) -> tuple[float, float, float]:
    """Student's t with a broken number of degrees of freedom: two-sided p, and the quantiles .975 and .8."""
    from scipy.special import stdtr, stdtrit

    return float(2 * stdtr(df, -abs(t))), float(stdtrit(df, 0.975)), float(stdtrit(df, 0.8))

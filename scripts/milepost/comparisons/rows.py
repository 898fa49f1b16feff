"""Row types of comparisons.csv and the tables beside it: what was compared, and with what result.

A null is an empty cell. Where a number is not defined, or would mislead, the line stands all the same, without it, and
`note` says why. Deltas are b - a, or step - reference: above 0 is a gain where higher is better. Where a metric's lower
values are better, `direction` says "lower", and all that is called better, worse, gained or lost goes by it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One line of comparisons.csv: two checkpoints on one task, or, with `task` null, over `n_tasks` tasks.

    `better` and `worse` count items; `change` is better or worse where the difference is significant. `p_adjusted` is corrected over the `n_tests` tests of the family: the pairs of one
    entry of the configuration on all tasks, or these pairs over tasks. `significant`: p_adjusted ≤ .05.
    """

    family: str
    ckpt_a: str
    ckpt_b: str
    task: str | None
    title: str
    metric: str | None = None
    direction: str | None = None
    n_tasks: int | None = None
    n_a: int | None = None
    n_b: int | None = None
    n_common: int | None = None
    value_a: float | None = None
    value_b: float | None = None
    delta: float | None = None
    stderr: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    correction: str | None = None
    n_tests: int | None = None
    significant: bool = False
    change: str | None = None
    test: str | None = None
    detectable: float | None = None
    better: int | None = None
    worse: int | None = None
    partial: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class FlipRow:
    """One line of flips.csv: an item that one checkpoint of a pair answers better than the other, largest first."""

    ckpt_a: str
    ckpt_b: str
    task: str
    item: str
    score_a: float
    score_b: float
    delta: float
    change: str
    """better or worse"""
    partial: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One line of steps.csv: one step of a run on one task, against `reference`, its first step that has scores.

    `p_better` and `p_worse` are one-sided and corrected for all steps of the run. A mark can go either way, so `better` and
    `worse` say that theirs is at most .025: together 5 %. `first_better` is the first step with p_better ≤ .05.
    """

    run: str | None
    task: str
    title: str
    metric: str | None
    ckpt: str
    step: float
    direction: str | None = None
    reference: str | None = None
    value: float | None = None
    n_items: int | None = None
    n_common: int | None = None
    delta: float | None = None
    t: float | None = None
    p_better: float | None = None
    p_worse: float | None = None
    better: bool = False
    worse: bool = False
    first_better: bool = False
    partial: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrendRow:
    """One line of trends.csv: what is known of one run on one task.

    `better_since` is the first better step; `lost_since` the step from which on it is no longer better than its start,
    though it was; `regressed_since` the step from which on it stays below an earlier one, `regressed_below`.
    `p_better` is the smallest of its steps' p, `p_regressed` that of any lasting fall; `p_better_adjusted` and
    `p_regressed_adjusted` are those, corrected over the tasks of the run. What is said of several tasks rests on these.
    """

    run: str | None
    task: str
    title: str
    metric: str | None
    n_steps: int
    n_scored: int
    direction: str | None = None
    reference: str | None = None
    reference_step: float | None = None
    better_since: str | None = None
    better_since_step: float | None = None
    p_better: float | None = None
    p_better_adjusted: float | None = None
    correction: str | None = None
    lost_since: str | None = None
    lost_since_step: float | None = None
    regressed_since: str | None = None
    regressed_since_step: float | None = None
    regressed_below: str | None = None
    regressed_below_step: float | None = None
    p_regressed: float | None = None
    p_regressed_adjusted: float | None = None
    partial: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class RankRow:
    """One line of ranking.csv: checkpoints of one task by their score. Those that share a letter could not be told apart."""

    task: str
    title: str
    metric: str | None
    rank: int | None
    ckpt: str
    run: str | None
    step: float | None
    direction: str | None = None
    value: float | None = None
    n_items: int | None = None
    letters: str | None = None
    partial: str | None = None
    note: str | None = None

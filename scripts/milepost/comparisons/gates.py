"""A gate: conditions over tasks that a checkpoint must meet, tested together by Holm.

Each condition has a one-sided test of what it asks for and one of the contrary. A condition has passed if the first holds
after Holm's correction over all conditions, it has failed if the second does, and else these items do not decide it. The
gate has passed if all conditions have, and has failed if one has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milepost.comparisons.task_results import ALPHA, TaskResults, read_results
from milepost.errors import ConfigError, did_you_mean
from milepost.schemas import check, read_yaml
from milepost.statistics.intervals import Spread, difference_spread, score_spread
from milepost.statistics.margins import hold_against, units_needed
from milepost.statistics.paired import holm
from milepost.statistics.sign_flips import LEAST_OVERLAP, max_t

if TYPE_CHECKING:
    from milepost.campaign.shown import Shown

PASSED, FAILED, UNDECIDED = "passed", "failed", "not decided"
EXIT_CODES = {PASSED: 0, FAILED: 1, UNDECIDED: 2}

# A threshold is one checkpoint's, all others compare two.
THRESHOLDS = ("above", "below")
MARGINS = ("not_worse", "equivalent")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of a gate.

    Attributes:
        task: Name of a task.
        kind: `better`, `not_worse`, `equivalent`, `above` or `below`.
        by: The margin δ of `not_worse` and `equivalent`.
        than: The threshold of `above` and `below`.
    """

    task: str
    kind: str
    by: float | None = None
    than: float | None = None

    @property
    def words(self) -> str:
        """The condition, as people say it."""
        return {
            "better": "better than the reference",
            "not_worse": f"not worse by more than {self.by:g}" if self.by is not None else "",
            "equivalent": f"as good as the reference, ± {self.by:g}" if self.by is not None else "",
            "above": f"above {self.than:g}" if self.than is not None else "",
            "below": f"below {self.than:g}" if self.than is not None else "",
        }[self.kind]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A gate's file: what is asked of the candidate, beside a reference or by itself."""

    candidate: str
    reference: str | None
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, kw_only=True)
class ConditionVerdict:
    """What came of one condition; one line of a gate's table.

    `value` is what the condition is about: a difference (above 0 is better, whichever way the metric goes) or a score, with
    its 95 % interval. `p` is of what was asked, corrected over the gate, `p_contrary` of its contrary; `n_needed` is about how
    many items or clusters would decide it in 80 of 100 evaluations, if the truth is what was found.
    """

    task: str
    title: str
    condition: str
    verdict: str
    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_contrary: float | None = None
    n: int | None = None
    n_needed: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class _Tested:
    """A condition's two plain p-values, and what stands beside them."""

    p: float | None
    p_contrary: float | None
    spread: Spread | None = None
    value: float | None = None
    n: int | None = None
    n_needed: int | None = None
    note: str | None = None


def read_gate(path: Path, campaign: Shown, margins: Mapping[str, float]) -> Gate:
    """Read a gate's file.

    Args:
        path: The file.
        campaign: Its checkpoints and tasks.
        margins: The `delta` of each task that has one, for conditions that state no margin.

    Raises:
        ConfigError: The file is missing or wrong, or names what the campaign does not have.
    """
    data = read_yaml(path)
    check(data, "gate", str(path))
    for role in ("candidate", "reference"):
        if role in data and data[role] not in campaign.checkpoints:
            raise ConfigError(
                f"{path} names the {role} {data[role]!r}. Checkpoints: {', '.join(campaign.checkpoints)}."
                f"{did_you_mean(data[role], campaign.checkpoints)} Correct the name, or add it to the sheet."
            )
    conditions = tuple(_condition(path, given, data, campaign, margins) for given in data["conditions"])
    return Gate(candidate=data["candidate"], reference=data.get("reference"), conditions=conditions)


def _condition(
    path: Path, given: Mapping[str, Any], gate: Mapping[str, Any], campaign: Shown, margins: Mapping[str, float]
) -> Condition:
    task, kind = given["task"], given["is"]
    if task not in campaign.tasks:
        raise ConfigError(
            f"{path} has a condition on task {task!r}. Tasks: {', '.join(campaign.tasks)}.{did_you_mean(task, campaign.tasks)}"
            " Correct the name, or add it to `tasks` in config/config.yaml."
        )
    if kind in THRESHOLDS and "than" not in given:
        raise ConfigError(f"{path}: task {task!r} is to be {kind} nothing. Write `than: NUMBER` beside it.")
    if kind not in THRESHOLDS and "reference" not in gate:
        raise ConfigError(f"{path}: {kind!r} compares task {task!r} with a reference. Write `reference: CHECKPOINT`.")
    by = given.get("by", margins.get(task)) if kind in MARGINS else None
    if kind in MARGINS and by is None:
        raise ConfigError(
            f"{path}: {kind!r} of task {task!r} has no margin. Write `by: NUMBER` beside it, or `delta` in config/tasks/{task}"
            ".yaml: how much may be lost, chosen before the data are seen."
        )
    return Condition(task=task, kind=kind, by=by, than=given.get("than"))


def try_gate(gate: Gate, campaign: Shown, scores: Path, summaries: Path) -> list[ConditionVerdict]:
    """Test all conditions of a gate together.

    Args:
        gate: What is asked.
        campaign: Its checkpoints and tasks.
        scores: Folder of {ckpt}/{task}.jsonl.
        summaries: Folder of {ckpt}/{task}.json.

    Raises:
        RecordError: Malformed scores.
        StaleNumberError: A summary that another configuration than today's has made.
    """
    results = {task: read_results(campaign, task, scores, summaries) for task in {one.task for one in gate.conditions}}
    tested = [_test(gate, condition, results[condition.task], len(gate.conditions)) for condition in gate.conditions]
    # What could not be tested is not decided, and belongs to the family all the same.
    p, contrary = (
        [1.0 if value is None else value for value in holm([1.0 if one is None else one for one in family])]
        for family in ([one.p for one in tested], [one.p_contrary for one in tested])
    )
    return [
        _verdict(condition, results[condition.task], one, asked, against)
        for condition, one, asked, against in zip(gate.conditions, tested, p, contrary, strict=True)
    ]


def gate_verdict(verdicts: Sequence[ConditionVerdict]) -> str:
    """The verdict of a whole gate: failed if one condition has failed, passed if all have passed."""
    occurring = {verdict.verdict for verdict in verdicts}
    return FAILED if FAILED in occurring else PASSED if occurring == {PASSED} else UNDECIDED


def _verdict(condition: Condition, task: TaskResults, tested: _Tested, p: float, contrary: float) -> ConditionVerdict:
    verdict = UNDECIDED
    if tested.p is not None:
        verdict = PASSED if p <= ALPHA else FAILED if contrary <= ALPHA else UNDECIDED
    low, high = tested.spread.interval() if tested.spread else (None, None)
    return ConditionVerdict(
        task=task.name,
        title=task.title,
        condition=condition.words,
        verdict=verdict,
        value=tested.value,
        ci_low=low,
        ci_high=high,
        p=None if tested.p is None else p,
        p_contrary=None if tested.p_contrary is None else contrary,
        n=tested.n,
        n_needed=tested.n_needed if verdict == UNDECIDED else None,
        note=tested.note,
    )


def _test(gate: Gate, condition: Condition, task: TaskResults, n_conditions: int) -> _Tested:
    pair = [gate.candidate] if condition.kind in THRESHOLDS else [gate.reference or "", gate.candidate]
    why_not = task.why_not(pair[-1], pair[0] if len(pair) > 1 else None)
    if why_not:
        return _Tested(None, None, note=why_not)
    # Holm asks most of the smallest p: with it, all are decided.
    alpha = ALPHA / n_conditions
    if condition.kind in THRESHOLDS:
        return _test_threshold(condition, task, gate.candidate, alpha)
    return _test_difference(condition, task, pair[0], pair[1], alpha)


def _test_threshold(condition: Condition, task: TaskResults, ckpt: str, alpha: float) -> _Tested:
    values, than = task.scores.of(ckpt), condition.than or 0.0
    there = ~np.isnan(values)
    items = [(value, 1.0, label) for value, label in zip(values[there].tolist(), _labels(task, there), strict=True)]
    n = len({label for _, _, label in items})
    if n < 2:
        return _Tested(None, None, n=n, note="fewer than two items or clusters")
    spread, value = score_spread(items, task.bounds), float(values[there].mean())
    if spread is None:
        return _Tested(None, None, value=value, n=n, note="no item differs, and the metric has no known range")
    above, below = spread.p_above(than), spread.p_below(than)
    needed = units_needed(spread, than, n, alpha)
    asked, contrary = (above, below) if condition.kind == "above" else (below, above)
    return _Tested(asked, contrary, spread, value, n, needed, task.summaries[ckpt].get("partial") and "PARTIAL")


def _test_difference(condition: Condition, task: TaskResults, a: str, b: str, alpha: float) -> _Tested:
    scores = task.sign * task.scores.several([a, b])
    there = ~np.isnan(scores)
    common = np.asarray(there.all(axis=0))
    labels = _labels(task, common)
    n = len(set(labels))
    if n < 2 or common.sum() < LEAST_OVERLAP * there.sum(axis=1).max():
        return _Tested(None, None, n=n, note="too few items in common")
    first, second = scores[:, common].tolist()
    single = all(task.scores.samples[task.scores.rows[ckpt]] == 1 for ckpt in (a, b))
    bounds = task.bounds if task.bounds is None or task.sign > 0 else (-task.bounds[1], -task.bounds[0])
    clusters = None if task.scores.clusters is None else labels
    spread = difference_spread(first, second, clusters=clusters, single=single, bounds=bounds)
    value = math.fsum(y - x for x, y in zip(first, second, strict=True)) / len(first)
    note = task.partial(a, b)
    note = f"PARTIAL {note}" if note else task.warning(b, a)
    if condition.kind == "better":
        flips = [
            float(max_t(scores, [(0, 1)], clusters=task.scores.clusters, alternative=way).p_adjusted[0])
            for way in ("greater", "less")
        ]
        needed = None if spread is None else units_needed(spread, 0.0, n, alpha)
        return _Tested(flips[0], flips[1], spread, value, n, needed, note)
    if spread is None:
        return _Tested(None, None, value=value, n=n, note="no item differs, and the metric has no known range")
    held = hold_against(spread, condition.by or 0.0, n, alpha)
    if condition.kind == "not_worse":
        return _Tested(held.p_not_worse, held.p_worse, spread, value, n, held.n_needed, note)
    nearer = -held.delta if spread.centre < 0 else held.delta
    return _Tested(held.p_equivalent, held.p_different, spread, value, n, units_needed(spread, nearer, n, alpha), note)


def _labels(task: TaskResults, there: np.ndarray) -> list[str]:
    """Labels of what is independent of each other: the clusters of these items, or the items themselves."""
    names = task.scores.items if task.scores.clusters is None else task.scores.clusters
    return [names[place] for place in np.flatnonzero(there).tolist()]

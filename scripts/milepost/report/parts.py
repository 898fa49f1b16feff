"""Makes the contents of the report's sections: comparisons, coverage, costs, and what the numbers rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from milepost.comparisons.rows import ComparisonRow, FlipRow, RankRow, StepRow, TrendRow
from milepost.comparisons.task_results import is_small
from milepost.records import Summary
from milepost.report.tables import ScoreRow, step
from milepost.report.tables_to_read import ALWAYS, IN_PLACE
from milepost.style import money

# The sums of a ledger, as (key, heading); seconds are shown as minutes and hours.
COSTS = [
    ("attempts", "attempts"),
    ("start_s", "server start"),
    ("busy_s", "busy"),
    ("idle_s", "idle"),
    ("idle_share", "idle share"),
    ("gpu_s", "GPU hours"),
    ("requests", "requests"),
    ("tokens_in", "tokens in"),
    ("tokens_out", "tokens out"),
]
UP = ("start_s", "busy_s", "idle_s")

FAMILIES = {
    "first_last": "The last step of each run against its first",
    "pairs": "Chosen pairs",
    "against": "All against one",
    "same_step": "The same step of two runs",
}

# A score is marked from this share of unusable answers on.
MUCH = 0.05
# How many flipped items are named, for each direction.
EXAMPLES = 3


@dataclass
class Flips:
    """The items of one task that two checkpoints answer differently: how many in each direction, and examples."""

    ckpt_a: str
    ckpt_b: str
    task: str
    better: int = 0
    worse: int = 0
    examples: dict[str, list[str]] = field(default_factory=lambda: {"better": [], "worse": []})


def findings(trends: Iterable[TrendRow]) -> list[tuple[str, list[str]]]:
    """The findings about each run, as sentences; what they say of several tasks holds after correction over them.

    >>> row = TrendRow(run="a", task="t", title="Sums", metric="m", n_steps=3, n_scored=3, reference="a-0",
    ...                better_since="a-9", better_since_step=9.0, p_better=0.02, p_better_adjusted=0.04)
    >>> findings([row])
    [('a', ['Better than its start on 1 of 1 task: Sums (first at step 9).'])]
    """
    runs: dict[str, list[TrendRow]] = {}
    for row in trends:
        runs.setdefault(row.run or "", []).append(row)
    return [(run, _findings_of(rows)) for run, rows in runs.items()]


def _findings_of(rows: Sequence[TrendRow]) -> list[str]:
    judged = [row for row in rows if row.p_better is not None]
    if not judged:
        reasons = dict.fromkeys(row.note for row in rows if row.n_scored > 1 and row.note)
        return [
            f"Nothing is tested: {'; '.join(reasons)}."
            if reasons
            else "Fewer than two steps with scores: nothing to compare."
        ]
    tasks = f"{len(judged)} task{'s' if len(judged) != 1 else ''}"
    # Tasks that are named because one of many happened to pass would be named in a third of all reports.
    rose = [row for row in judged if row.better_since and is_small(row.p_better_adjusted)]
    sank = [row for row in judged if is_small(row.p_regressed_adjusted)]
    better = [f"{row.title} (first at step {step(row.better_since_step)})" for row in rose]
    lost = [f"{row.title} (from step {step(row.lost_since_step)})" for row in sank if row.lost_since]
    fell = [
        f"{row.title} (from step {step(row.regressed_since_step)}, worse than step {step(row.regressed_below_step)})"
        for row in sank
        if row.regressed_since
    ]
    sentences = [f"Better than its start on {len(better)} of {tasks}{': ' if better else ''}{', '.join(better)}."]
    sentences += [f"No longer shown to be better than its start: {', '.join(lost)}."] if lost else []
    sentences += [f"Regressed: {', '.join(fell)}."] if fell else []
    untested = [row.title for row in rows if row.p_better is None and row.n_scored > 1]
    sentences += [f"Not tested: {', '.join(untested)}."] if untested else []
    return sentences


def marks_of(steps: Iterable[StepRow]) -> dict[tuple[str, str], str]:
    """Marks (`first`, `better`, `worse`) of checkpoints and tasks that differ significantly from their run's start."""
    marks = {}
    for row in steps:
        mark = "first" if row.first_better else "better" if row.better else "worse" if row.worse else None
        if mark:
            marks[row.ckpt, row.task] = mark
    return marks


def families(comparisons: Iterable[ComparisonRow]) -> dict[str, list[ComparisonRow]]:
    """The comparisons of each family, under its heading."""
    grouped: dict[str, list[ComparisonRow]] = {}
    for row in comparisons:
        grouped.setdefault(FAMILIES.get(row.family, row.family), []).append(row)
    return grouped


def rankings(rows: Iterable[RankRow]) -> dict[str, list[RankRow]]:
    """The ranking of each task, under its title."""
    grouped: dict[str, list[RankRow]] = {}
    for row in rows:
        grouped.setdefault(row.task, []).append(row)
    return grouped


def flips_of(rows: Iterable[FlipRow]) -> list[Flips]:
    """Count the flipped items of each pair and task, with examples: the first rows, which differ most."""
    by_pair: dict[tuple[str, str, str], Flips] = {}
    for row in rows:
        key = (row.ckpt_a, row.ckpt_b, row.task)
        flips = by_pair.setdefault(key, Flips(*key))
        better = row.change == "better"
        flips.better += better
        flips.worse += not better
        shown = flips.examples["better" if better else "worse"]
        if len(shown) < EXAMPLES:
            shown.append(row.item)
    return list(by_pair.values())


def coverage(rows: Iterable[ScoreRow], problems: Sequence[str]) -> list[dict[str, Any]]:
    """For each task, how many checkpoints have a score, and the highest share of each problem with its checkpoint."""
    tasks: dict[str, list[ScoreRow]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(row)
    covered = []
    for lines in tasks.values():
        worst = {}
        for name in problems:
            known = [(value, row.ckpt) for row in lines if (value := getattr(row, name)) is not None]
            worst[name] = max(known, key=lambda pair: pair[0], default=(None, None))
        scored = sum(row.value is not None for row in lines)
        covered.append({"title": lines[0].title, "scored": scored, "of": len(lines), "worst": worst})
    return covered


def needs_a_look(row: ScoreRow) -> bool:
    """Whether a score is missing, or rests on answers of which many could not be used: the report marks it."""
    shares = [getattr(row, name) or 0.0 for name in (*ALWAYS, *IN_PLACE)]
    return row.value is None or bool(row.marks) or max(shares) >= MUCH


def advised(summaries: Iterable[Summary]) -> dict[str, Summary]:
    """For each task, the checkpoint with the widest interval among those whose summaries have advice on narrowing it."""
    by_task: dict[str, Summary] = {}
    for summary in summaries:
        widest = by_task.get(summary["task"])
        if summary.get("advice") and (widest is None or (summary["stderr"] or 0.0) > (widest["stderr"] or 0.0)):
            by_task[summary["task"]] = summary
    return by_task


def costs(sums: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The table of costs: headings, a line for each checkpoint, and the sum over all.

    A column that is nothing but zeros is left out: there is no GPU time without GPUs.
    """
    ledgers = {ckpt: _with_idle_share(ledger) for ckpt, ledger in sums.items()}
    shown = [(key, heading) for key, heading in COSTS if any(ledger.get(key) for ledger in ledgers.values())]
    keys = {key for key, _ in COSTS} - {"idle_share"}
    total = _with_idle_share({key: sum(ledger.get(key, 0) for ledger in ledgers.values()) for key in keys})
    return {
        "headings": [heading for _, heading in shown],
        "lines": [[ckpt, *(_amount(key, ledger.get(key, 0)) for key, _ in shown)] for ckpt, ledger in ledgers.items()],
        "total": ["all", *(_amount(key, total.get(key, 0)) for key, _ in shown)],
        "sums": {key: _amount(key, value) for key, value in total.items() if value},
    }


def paid(bills: Mapping[str, Any]) -> dict[str, Any]:
    """The table of what endpoints of others did cost: a line for each, and the sum; nothing where no price is known.

    >>> bill = {"calls": 2, "tokens_in": 10, "tokens_out": 4, "cost": 0.5, "price": {"input": 1, "output": 2}, "budget": 3}
    >>> paid({"endpoints": {"api": bill}})["lines"]
    [['api', '2', '10', '0', '4', '0.50', '3.00', '-']]
    """
    found = {name: bill for name, bill in bills.get("endpoints", {}).items() if bill.get("price")}
    lines = []
    for name, bill in found.items():
        counts = [f"{bill.get(key, 0):,.0f}" for key in ("calls", "tokens_in", "tokens_cached", "tokens_out")]
        bound = "-" if bill.get("budget") is None else money(bill["budget"])
        guessed = f"{bill['guessed']:,.0f} calls" if bill.get("guessed") else "-"
        lines.append([name, *counts, money(bill.get("cost", 0)), bound, guessed])
    total = sum(bill.get("cost", 0) for bill in found.values())
    return {"lines": lines, "total": money(total), "budget": money(bills["budget"]) if bills.get("budget") else None}


def duration(seconds: float) -> str:
    """A duration in words, from seconds.

    >>> duration(8.04), duration(75), duration(7260)
    ('8.0 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def provenance(summaries: Iterable[Summary]) -> dict[str, Any]:
    """Sort the provenance of all numbers, so that each fact stands once: for all, by task, by checkpoint, or by both.

    Returns:
        `common`: {name: value}; `by_task`, `by_ckpt`: {name: {task or checkpoint: value}}; `other`: {name: values}.
    """
    facts_by_name: dict[str, dict[tuple[str, str], str]] = {}
    for summary in summaries:
        facts: dict[str, Any] = {"task_version": summary["task_version"], "scorer": summary["scorer"]}
        facts |= {key: value for key, value in summary["provenance"].items() if key != "expected"}
        for name, value in _flat(facts):
            facts_by_name.setdefault(name, {})[summary["ckpt"], summary["task"]] = value
    sorted_facts: dict[str, Any] = {"common": {}, "by_task": {}, "by_ckpt": {}, "other": {}}
    for name, values in facts_by_name.items():
        by_ckpt = _constant((ckpt, value) for (ckpt, _), value in values.items())
        by_task = _constant((task, value) for (_, task), value in values.items())
        if len(set(values.values())) == 1:
            sorted_facts["common"][name] = next(iter(values.values()))
        elif by_task:
            sorted_facts["by_task"][name] = by_task
        elif by_ckpt:
            sorted_facts["by_ckpt"][name] = by_ckpt
        else:
            sorted_facts["other"][name] = list(dict.fromkeys(values.values()))
    return sorted_facts


def asked(headers: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """How each task asks, from the header of its prompts file: {task: {name: value}}; the seed is 0 if none is set."""
    by_task = {}
    for header in headers:
        harness = header.get("harness") or {}
        facts = {
            "samples": header["samples"],
            "generation": header.get("generation"),
            **({} if harness else {"seed": 0}),
            **header.get("sampling", {}),
            **harness,
        }
        by_task[header["task"]] = dict(_flat(facts))
    return by_task


def _with_idle_share(ledger: Mapping[str, Any]) -> dict[str, Any]:
    up = sum(ledger.get(key, 0) for key in UP)
    return {**ledger, "idle_share": ledger.get("idle_s", 0) / up if up else 0}


def _constant(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """A mapping from key to value, or None if a key has two different values."""
    values: dict[str, str] = {}
    for key, value in pairs:
        if values.setdefault(key, value) != value:
            return None
    return values


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}".replace("_", " "), str(value)


def _amount(key: str, value: float) -> str:
    if key == "gpu_s":
        return f"{value / 3600:,.2f}"
    if key == "idle_share":
        return f"{100 * value:.1f} %"
    return duration(value) if key.endswith("_s") else f"{value:,.0f}"

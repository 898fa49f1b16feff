"""Decides which checkpoints a campaign compares: those that `comparisons` in its configuration names, or a default choice.

Names only, no numbers: a name that does not exist is found before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milepost.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from milepost.campaign.shown import OnCurve

# A ranking marks groups by letters, of which there are 26.
MOST_RANKED = 26


@dataclass(frozen=True)
class Pair:
    """Two checkpoints: is `b` better than `a`? The pairs of one `family` are corrected together."""

    family: str
    a: str
    b: str


def plan_pairs(config: Mapping[str, Any], checkpoints: Mapping[str, OnCurve]) -> list[Pair]:
    """Plan the pairs that `comparisons` asks for; if it asks for none, the last step of each run against its first.

    Checkpoints without a step are then compared with the first of the sheet.

    Raises:
        ConfigError: A checkpoint or run that does not exist, one compared with itself, or runs without a step in common.
    """
    wanted = config.get("comparisons", {})
    planned = [
        *_listed(wanted.get("pairs", []), checkpoints),
        *_against(wanted.get("against"), checkpoints),
        *_same_step(wanted.get("same_step"), checkpoints),
    ]
    return planned or list(_first_and_last(checkpoints))


def runs_of(checkpoints: Mapping[str, OnCurve]) -> dict[str, list[OnCurve]]:
    """The checkpoints of each run that have a step, by ascending step. Those that name no run make a run of their own.

    >>> from milepost.campaign.shown import Point
    >>> two = {name: Point(name, "r", step) for name, step in [("late", 9), ("early", 1)]}
    >>> [ckpt.name for ckpt in runs_of(two)["r"]]
    ['early', 'late']
    """
    runs: dict[str, list[OnCurve]] = {}
    for ckpt in checkpoints.values():
        if ckpt.step is not None:
            runs.setdefault(ckpt.run or "", []).append(ckpt)
    return {run: sorted(steps, key=lambda ckpt: ckpt.step or 0) for run, steps in runs.items()}


def ranked(config: Mapping[str, Any], checkpoints: Mapping[str, OnCurve]) -> list[str]:
    """The checkpoints that are ranked: all, or if these are too many for letters, the last of each run."""
    wanted = config.get("comparisons", {}).get("ranking")
    if wanted == "none":
        return []
    if wanted == "all" or (wanted is None and len(checkpoints) <= MOST_RANKED):
        return list(checkpoints)
    last = {steps[-1].name for steps in runs_of(checkpoints).values()}
    return [name for name, ckpt in checkpoints.items() if ckpt.step is None or name in last]


def _listed(pairs: Sequence[Sequence[str]], checkpoints: Mapping[str, OnCurve]) -> Iterator[Pair]:
    for a, b in pairs:
        for name in (a, b):
            _check_checkpoint(name, checkpoints, "pairs")
        if a == b:
            raise ConfigError(
                f"config/config.yaml compares the checkpoint {a!r} with itself under 'comparisons.pairs'. Name two."
            )
        yield Pair("pairs", a, b)


def _against(reference: str | None, checkpoints: Mapping[str, OnCurve]) -> Iterator[Pair]:
    if reference is not None:
        _check_checkpoint(reference, checkpoints, "against")
        yield from (Pair("against", reference, name) for name in checkpoints if name != reference)


def _same_step(names: Sequence[str] | None, checkpoints: Mapping[str, OnCurve]) -> Iterator[Pair]:
    if names is None:
        return
    runs = {run: steps for run, steps in runs_of(checkpoints).items() if run}
    for name in names:
        if name not in runs:
            known = ", ".join(runs) or "none"
            raise ConfigError(
                f"config/config.yaml compares run {name!r} under 'comparisons.same_step'. Runs with steps in the sheet "
                f"of checkpoints: {known}.{did_you_mean(name, runs)} Correct the name, or the columns 'run' and 'step'."
            )
    first, second = names
    if first == second:
        raise ConfigError(
            f"config/config.yaml compares the run {first!r} with itself under 'comparisons.same_step'. Name two."
        )
    at: list[dict[float | None, str]] = []
    for name in names:
        steps: dict[float | None, str] = {}
        for ckpt in runs[name]:
            if steps.setdefault(ckpt.step, ckpt.name) != ckpt.name:
                raise ConfigError(
                    f"Run {name!r} has two checkpoints at step {ckpt.step}: {steps[ckpt.step]} and {ckpt.name}. "
                    "'comparisons.same_step' cannot choose: list the pairs under 'comparisons.pairs'."
                )
        at.append(steps)
    common = [step for step in at[0] if step in at[1]]
    if not common:
        raise ConfigError(
            f"config/config.yaml compares the runs {first!r} and {second!r} at the same step, but they share none. "
            "List the pairs under 'comparisons.pairs'."
        )
    yield from (Pair("same_step", at[0][step], at[1][step]) for step in common)


def _first_and_last(checkpoints: Mapping[str, OnCurve]) -> Iterator[Pair]:
    pairs = [Pair("first_last", run[0].name, run[-1].name) for run in runs_of(checkpoints).values() if len(run) > 1]
    yield from pairs
    if not pairs:
        first, *others = checkpoints
        yield from (Pair("against", first, name) for name in others)


def _check_checkpoint(name: str, checkpoints: Mapping[str, OnCurve], key: str) -> None:
    if name not in checkpoints:
        raise ConfigError(
            f"config/config.yaml compares the checkpoint {name!r} under 'comparisons.{key}'. Checkpoints: "
            f"{', '.join(checkpoints)}.{did_you_mean(name, checkpoints)} Correct the name, or add it to the sheet."
        )

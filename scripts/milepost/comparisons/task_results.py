"""All results of one task in a campaign, and which of them must not be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from milepost.comparisons.item_scores import TaskScores, read_task
from milepost.records import Scale, Summary, read_summary
from milepost.statistics.intervals import Bounds
from milepost.statistics.metrics import PLAIN, scale_of

if TYPE_CHECKING:
    from milepost.campaign.shown import Shown

ALPHA = 0.05
HARNESS = "a harness's own numbers, without the answers behind them: no paired test"
MISSING = "no scores yet"


@dataclass(frozen=True)
class TaskResults:
    """The results of one task: a summary for each checkpoint that has one, and the item means."""

    name: str
    title: str
    summaries: Mapping[str, Summary]
    scores: TaskScores

    def metric(self) -> str | None:
        """The headline metric of the first checkpoint that has one."""
        return next((summary["metric"] for summary in self.summaries.values()), None)

    @property
    def scale(self) -> Scale:
        """Which values of the headline metric are better, and what it can be; as the first checkpoint that has one says it."""
        return next((scale_of(summary) for summary in self.summaries.values()), PLAIN)

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is: times it, a difference above 0 is a gain."""
        return -1 if self.scale["better"] == "lower" else 1

    @cached_property
    def bounds(self) -> Bounds | None:
        """The lowest and the highest score of an item, where the metric has them.

        A number that is cut to its range may be made of items beyond it: these have no bounds.
        """
        ends = self.scale["range"]
        if ends is None:
            return None
        low, high = ends
        slack, means = 1e-9 * (high - low), self.scores.means
        return None if ((means < low - slack) | (means > high + slack)).any() else (low, high)

    def partial(self, *ckpts: str) -> str | None:
        """The mark of a score on part of the items only, if one of these checkpoints has one."""
        marks = [self.summaries[ckpt].get("partial") for ckpt in ckpts if ckpt in self.summaries]
        return ", ".join(dict.fromkeys(f"{mark['limit']}/{mark['of']}" for mark in marks if mark)) or None

    def why_not(self, ckpt: str, other: str | None = None) -> str | None:
        """Why a checkpoint cannot be tested, by itself or against another one; None if it can."""
        names = list(filter(None, (other, ckpt)))
        missing = ", ".join(name for name in names if name not in self.summaries)
        if missing:
            return f"{MISSING}: {missing}"
        if other:
            unlike = _unlike(self.summaries[other], self.summaries[ckpt])
            if unlike:
                return unlike
        if any(self.summaries[name].get("harness") for name in names):
            return HARNESS
        return None

    def warning(self, ckpt: str, other: str) -> str | None:
        """A note for a comparison that is allowed, but has a flaw that readers must know; None without one."""
        prompts = [self.summaries[name]["provenance"].get("prompts") for name in (ckpt, other)]
        return "the two answered different prompt files" if prompts[0] != prompts[1] else None


def read_results(campaign: Shown, task: str, scores: Path, summaries: Path) -> TaskResults:
    """Read one task's results of all checkpoints; those that are missing are left out.

    Args:
        campaign: Its checkpoints and tasks.
        task: Name of the task.
        scores: Folder of {ckpt}/{task}.jsonl.
        summaries: Folder of {ckpt}/{task}.json.

    Raises:
        RecordError: Malformed scores or summaries.
        StaleNumberError: A summary that another configuration than today's has made.
    """
    paths = {ckpt: summaries / ckpt / f"{task}.json" for ckpt in campaign.checkpoints}
    read = {ckpt: campaign.check(read_summary(path), path) for ckpt, path in paths.items() if path.is_file()}
    return TaskResults(task, campaign.tasks[task].title, read, read_task(scores, list(campaign.checkpoints), task))


def joined(*notes: str | None) -> str | None:
    """Join several notes into one; None if there are none."""
    return "; ".join(filter(None, notes)) or None


def is_small(p: float | None, alpha: float = ALPHA) -> bool:
    """Whether a p-value is significant (at most `alpha`); a missing one (None) is not."""
    return p is not None and p <= alpha


def _unlike(first: Summary, second: Summary) -> str | None:
    for key, words in (("task_version", "versions of the task"), ("scorer", "scorers"), ("metric", "metrics")):
        values = first[key], second[key]  # type: ignore[literal-required]
        if values[0] != values[1]:
            return f"different {words}: {values[0]} and {values[1]}"
    better = scale_of(first)["better"], scale_of(second)["better"]
    if better[0] != better[1]:
        return f"different directions: {better[0]} is better, and {better[1]} is"
    return None

"""The settings file that a rule writes for comparisons, tables, figures and the report: what they show of a campaign."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from milepost.errors import RecordError, StaleNumberError
from milepost.records import Summary


class OnCurve(Protocol):
    """A checkpoint, as far as curves and comparisons know it: its name, its run, and its step in it."""

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        ...

    @property
    def run(self) -> str | None:
        """The training run that it is from."""
        ...

    @property
    def step(self) -> float | None:
        """After how many training steps it was saved."""
        ...


@dataclass(frozen=True)
class Point:
    """A checkpoint's place on a curve."""

    name: str
    run: str | None = None
    step: float | None = None


@dataclass(frozen=True)
class ShownTask:
    """A task as people see it: its title, and the metrics that are drawn beside its score."""

    title: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Current:
    """Digests of all that decides today's numbers.

    Attributes:
        asked: Of what each task asks.
        scored: Of how each task is scored: options, code, and who judges.
        models: Of each checkpoint's model.
    """

    asked: Mapping[str, str] = field(default_factory=dict)
    scored: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What is shown of a campaign.

    Attributes:
        checkpoints: Their places on curves, by name, in the order of the sheet.
        tasks: The tasks by name, in the order of the configuration.
        config: Those options of the configuration that the step needs.
        current: What decides today's numbers; empty where nothing is to be checked.
    """

    checkpoints: Mapping[str, Point]
    tasks: Mapping[str, ShownTask]
    config: Mapping[str, Any] = field(default_factory=dict)
    current: Current = field(default_factory=Current)

    def record(self) -> dict[str, Any]:
        """The content as a mapping for JSON."""
        return asdict(self)

    def why_stale(self, summary: Summary) -> str | None:
        """What has changed since a summary was made, so that its number is stale; None if nothing has."""
        facts = summary["provenance"]
        parts = (
            ("the task's questions", facts.get("asked"), self.current.asked.get(summary["task"])),
            (
                "its scorer, the scorer's options or code, or who judges",
                facts.get("scored"),
                self.current.scored.get(summary["task"]),
            ),
            ("the model", facts.get("model"), self.current.models.get(summary["ckpt"])),
        )
        return next((what for what, was, now in parts if now is not None and was != now), None)

    def check(self, summary: Summary, path: Path) -> Summary:
        """Return the summary after checking that today's configuration made it.

        Raises:
            StaleNumberError: It is not.
        """
        stale = self.why_stale(summary)
        if stale:
            raise StaleNumberError(
                f"{path} is no number of today's configuration: {stale} changed since. Run the same command again; if it"
                f" says this once more, remove {path}."
            )
        return summary


def read_shown(path: str | Path) -> Shown:
    """Read what `Shown.record` wrote.

    Raises:
        RecordError: The file is missing or holds something else.
    """
    try:
        record = json.loads(Path(path).read_bytes())
        return Shown(
            checkpoints={name: Point(**point) for name, point in record["checkpoints"].items()},
            tasks={name: ShownTask(task["title"], tuple(task["beside"])) for name, task in record["tasks"].items()},
            config=record["config"],
            current=Current(**record["current"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path} does not hold a step's settings ({type(error).__name__}: {error}). A run writes such files to"
            " .snakemake/milepost/settings; run `snakemake` first."
        ) from None

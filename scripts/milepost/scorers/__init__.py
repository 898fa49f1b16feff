"""Scorers: what makes scores of answers. One module per scorer, with a class `Scorer` built from its options.

A scorer's options are described in config/schemas/scorers/{name}.yaml. To add one, write both files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from milepost.errors import UnknownScorerError, did_you_mean
from milepost.records import Answer, Prompt, PromptSet, Score


@dataclass(frozen=True)
class CheckpointTask:
    """Whose answers to what are scored: it names where a scorer keeps its calls."""

    ckpt: str
    task: str


class Scorer(Protocol):
    """Scores answers.

    Attributes:
        name: The scorer's module.
        metric: Its headline metric, the `score` of each Score.
        metrics: Every metric that it reports with the options it was given, the headline among them.
    """

    name: str
    metric: str
    metrics: tuple[str, ...]

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield one score per answer, in the order of the answers; an answer with an error has a score of null."""
        ...


@runtime_checkable
class SamplingScorer(Protocol):
    """A scorer that may score part of the items only."""

    def sample(self, prompts: PromptSet) -> PromptSet:
        """The items to score; marked as partial in the header if some are left out."""
        ...


@runtime_checkable
class TracedScorer(Protocol):
    """A scorer whose numbers rest on more than its options say."""

    def provenance(self) -> dict[str, Any]:
        """What stands beside the numbers, by name."""
        ...


def scorer_names() -> list[str]:
    """Names of all scorers: the modules and folders of this package that define a class `Scorer`."""
    # Read, not imported: asking for names must stay quick whatever the scorers need.
    return sorted(
        name
        for name, file in _modules().items()
        if re.search(r"^class Scorer\b", file.read_text(encoding="utf-8"), re.MULTILINE)
    )


def scorer_module(name: str) -> str:
    """Full name of the module that a scorer's name stands for.

    >>> scorer_module("exact_match"), scorer_module("avert")
    ('milepost.scorers.exact_match', 'milepost.scorers.avert.scorer')
    """
    return f"milepost.scorers.{name}" if _modules()[name].stem == name else f"milepost.scorers.{name}.scorer"


def _modules() -> dict[str, Path]:
    """The files in which scorers may stand, by name: a module of this package, or `scorer.py` in a folder of it."""
    here = Path(__file__).parent
    folders = {file.parent.name: file for file in here.glob("[!_]*/scorer.py")}
    return {file.stem: file for file in here.glob("[!_]*.py")} | folders


def load_scorer(spec: Mapping[str, Any], ckpt: str | None = None, task: str | None = None) -> Scorer:
    """Build the scorer that a task asks for.

    Args:
        spec: The task's `scorer`: its `name`, and its options as its schema allows them.
        ckpt: Whose answers are scored, and
        task: to which task: a scorer with `keeps_calls` is told, as its `place`, and keeps what it asks of models.

    Raises:
        UnknownScorerError: There is no scorer of this name.
        ConfigError: Options that contradict each other.
    """
    options = dict(spec)
    name = options.pop("name", None)
    known = scorer_names()
    if name not in known:
        raise UnknownScorerError(
            f"There is no scorer {name!r}. Scorers: {', '.join(known)}.{did_you_mean(str(name), known)} "
            "Correct the task's `scorer: {name: …}`, or add scripts/milepost/scorers/ and config/schemas/scorers/ files."
        )
    made = import_module(scorer_module(name)).Scorer
    if ckpt is not None and task is not None and getattr(made, "keeps_calls", False):
        options["place"] = CheckpointTask(ckpt, task)
    return cast(Scorer, made(**options))

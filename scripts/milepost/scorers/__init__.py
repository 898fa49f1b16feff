"""Scorers turn answers into scores. Each is a module or folder with a class `Scorer`, built from the task's options.

A scorer's options are described in config/schemas/scorers/{name}.yaml. To add one, write both files and a test: nothing
else knows a scorer by its name. What a scorer can say of itself stands in `BaseScorer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from milepost.endpoints.specs import find_endpoint
from milepost.errors import ConfigError, RecordError, UnknownScorerError, did_you_mean
from milepost.records import Answer, Estimate, Prompt, PromptSet, Score
from milepost.schemas import with_defaults
from milepost.statistics.metrics import Metric, reduce_scores

# What an endpoint is asked for, as config/endpoints.yaml has it.
Kind = Literal["chat", "embedding", "reranker"]


@dataclass(frozen=True)
class CheckpointTask:
    """A checkpoint and a task, whose answers are scored: they name where a scorer keeps its calls.

    `ckpt` is None before there are answers, when a task is checked: nothing is kept then.
    """

    ckpt: str | None
    task: str


@dataclass(frozen=True)
class Needs:
    """What a scorer needs beside answers, by the options that it was given.

    Attributes:
        environments: Folders in envs/ whose interpreters it starts.
        endpoints: Names in config/endpoints.yaml, and of which kinds each may be. A scorer that asks one of kind `chat`
            is a judged one: its scoring is the rule judge_answers.
        files: The user's files that decide scores, from the campaign's folder.
        node: Whether it computes much by itself: work for a node, not for a host on which people log in.
    """

    environments: tuple[str, ...] = ()
    endpoints: Mapping[str, tuple[Kind, ...]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    node: bool = False

    @property
    def judges(self) -> list[str]:
        """Names of the endpoints that the scorer asks for verdicts."""
        return [name for name, kinds in self.endpoints.items() if "chat" in kinds]


@dataclass(frozen=True)
class JudgeCalls:
    """What a scorer asks of each judge about one answer.

    Attributes:
        calls: How many verdicts.
        chars: Characters of all that is asked, but for the answer.
        answers: How often the answer stands in it.
    """

    calls: int = 0
    chars: int = 0
    answers: int = 0


@dataclass(frozen=True)
class CheckpointResults:
    """The answers, scores and summary of one checkpoint on one task."""

    ckpt: str
    answers: Sequence[Answer]
    scores: Sequence[Score]
    summary: Mapping[str, Any]


class BaseScorer:
    """The interface of all scorers, with defaults that suit most of them.

    A scorer sets `name` and `metrics`, and has `score`. All else is there to be replaced by those that need it.

    Attributes:
        name: Its module or folder.
        metrics: Every number that it reports with the options it was given; the first is its headline, the `score` of
            each Score.
        keeps_calls: Whether it keeps what it asks of models, and so takes its `place`.
        own_options: Options that decide nothing but its own results beside scores.
        prepares: Whether it has `prepare`: a step for a node, once per task, before its own results are made.
        tabulates: Whether it has `tabulate`: a step once per task, when all checkpoints are scored.
    """

    name: ClassVar[str]
    metrics: tuple[Metric, ...]
    keeps_calls: ClassVar[bool] = False
    own_options: ClassVar[frozenset[str]] = frozenset()
    prepares: ClassVar[bool] = False
    tabulates: bool = False

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the scorer's metrics, the headline first."""
        return tuple(metric.name for metric in self.metrics)

    def metrics_of(self, items: Sequence[Prompt]) -> tuple[Metric, ...]:
        """The metrics, and those that there are for parts of the items, such as their categories."""
        del items
        return self.metrics

    @property
    def longest_reply(self) -> int:
        """Tokens that a judge's reply may have at most."""
        return 0

    def expected_calls(self, item: Prompt) -> JudgeCalls:
        """What one answer to an item will be asked of each judge, for a plan's estimate."""
        del item
        return JudgeCalls()

    def needs(self) -> Needs:
        """What the scorer needs besides answers. It must be cheap: it is asked whenever a run is planned."""
        return Needs()

    def check(self, items: Sequence[Prompt]) -> None:
        """Check that all items have what scoring needs; called before a model is asked anything.

        Raises:
            ConfigError: Options that cannot be used, or do not fit each other or the items.
            RecordError: An item that cannot be scored; the message names it.
        """

    def decides(self) -> dict[str, Any]:
        """What decides scores besides options, files and code: the identities of the scorer's endpoints."""
        return {name: find_endpoint(name, f"The scorer {self.name}").identity for name in self.needs().endpoints}

    def sample(self, prompts: PromptSet) -> PromptSet:
        """Choose the items to score; if some are left out, the header of the returned prompts is marked as partial."""
        return prompts

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield one score per answer, in the order of the answers; an answer with an error has a score of null."""
        raise NotImplementedError

    def reduce(self, prompts: Sequence[Prompt], scores: Sequence[Score]) -> Mapping[str, Estimate]:
        """Reduce the scores to an estimate for each metric.

        By default each metric is made of its own samples, as its `reduce` says. A scorer replaces this where a number
        is fitted to all answers at once (`statistics.means.bootstrap_estimate` gives such a number its error).
        """
        del prompts
        return reduce_scores(self.metrics, scores)

    def provenance(self) -> dict[str, Any]:
        """Facts that the numbers rest on besides the options, by name, for the summary's provenance."""
        return {}

    def prepare(self, prompts: Sequence[Prompt], out: Path) -> None:
        """Prepare what `tabulate` needs and what depends on the task alone, in a new folder."""
        raise NotImplementedError

    def tabulate(
        self, title: str, prompts: Sequence[Prompt], results: Sequence[CheckpointResults], prepared: Path, out: Path
    ) -> None:
        """Write the scorer's own tables and figures into a new folder, from the scores of all checkpoints.

        Args:
            title: The task's name for people.
            prompts: The task's items.
            results: Those of every checkpoint, in the campaign's order.
            prepared: The folder of `prepare`; there is none if it does not prepare.
            out: To make.
        """
        raise NotImplementedError


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
    """The files that may define a scorer, by name: a module of this package, or `scorer.py` in a folder of it."""
    here = Path(__file__).parent
    folders = {file.parent.name: file for file in here.glob("[!_]*/scorer.py")}
    return {file.stem: file for file in here.glob("[!_]*.py")} | folders


def load_scorer(spec: Mapping[str, Any], place: CheckpointTask | None = None) -> BaseScorer:
    """Build the scorer that a task asks for.

    Args:
        spec: The task's `scorer`: its `name`, and its options as its schema allows them, which has the defaults.
        place: Whose answers to which task are scored, for one that keeps what it asks of models.

    Raises:
        UnknownScorerError: There is no scorer of this name.
        ConfigError: Options that contradict each other.
    """
    name = spec.get("name")
    known = scorer_names()
    if name not in known:
        raise UnknownScorerError(
            f"There is no scorer {name!r}. Scorers: {', '.join(known)}.{did_you_mean(str(name), known)} "
            "Correct the task's `scorer: {name: …}`, or add scripts/milepost/scorers/ and config/schemas/scorers/ files."
        )
    # A constructor has no defaults of its own: they stand in the schema.
    options = with_defaults(spec, f"scorers/{name}")
    del options["name"]
    made = import_module(scorer_module(name)).Scorer
    if place is not None and made.keeps_calls:
        options["place"] = place
    return cast(BaseScorer, made(**options))


def check_scoring(scorer: BaseScorer, items: Sequence[Prompt], where: str, metrics: Iterable[str] = ()) -> None:
    """Check that a task can be scored, before a model is asked anything.

    Args:
        scorer: The task's.
        items: Its items.
        where: Its file, for messages.
        metrics: The numbers that the task names, as its headline or beside it.

    Raises:
        ConfigError: An unknown metric, an endpoint that is not there or of another kind, or options that do not fit.
        RecordError: An item that cannot be scored.
    """
    for name in metrics:
        check_metric(scorer, items, name, where)
    for name, kinds in scorer.needs().endpoints.items():
        spec = find_endpoint(name, f"{where}, scorer")
        if spec.kind not in kinds:
            raise ConfigError(
                f"{where}: the scorer {scorer.name} asks the endpoint {name!r}, which is of kind {spec.kind}. Name one of "
                f"kind {' or '.join(kinds)}, or write `kind: {kinds[0]}` beside it in config/endpoints.yaml."
            )
    try:
        scorer.check(items)
    except (ConfigError, RecordError) as error:
        raise type(error)(f"{where}: {error}") from None


def judges_itself(scorer: BaseScorer, identity: Mapping[str, Any]) -> list[str]:
    """The judges of a scorer that are the model judged: the same weights, or the same name at the same address.

    Args:
        scorer: The task's.
        identity: Who the checkpoint is, as its file in results/models says.
    """
    served = identity.get("endpoint", {})
    found = []
    for name in scorer.needs().judges:
        judge = find_endpoint(name, f"The scorer {scorer.name}").identity
        address = [(one.get("url") or one.get("host"), one.get("model")) for one in (served, judge)]
        weights = identity.get("model") if isinstance(judge.get("model"), dict) else None
        if (served and address[0] == address[1]) or (weights and weights == judge["model"]):
            found.append(name)
    return found


def check_metric(scorer: BaseScorer, items: Sequence[Prompt], name: str, where: str) -> None:
    """Check that a scorer has the metric that a task names.

    Raises:
        ConfigError: It does not; the message names those that it makes.
    """
    known = [metric.name for metric in scorer.metrics_of(items)]
    if name not in known:
        raise ConfigError(
            f"{where} asks for metric {name!r}, which its scorer {scorer.name} does not make with these options. It "
            f"makes: {', '.join(known)}.{did_you_mean(name, known)}"
        )

"""What all judged benchmarks share: judges by name, alone and as an ensemble, each asked the same about every answer.

A scorer says what is asked about one answer (`questions`), and which numbers follow from one judge's verdicts
(`measures`). The verdicts of all judges stand in each score line; what cannot be read is counted and is never a number.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from milepost.endpoints.open import open_endpoint
from milepost.endpoints.specs import EndpointSpec, find_endpoint
from milepost.errors import ConfigError
from milepost.judges.asking import Judge, Judgement, Opens, Question, ask_judges, kept_calls
from milepost.records import Answer, Estimate, JudgedVerdict, Prompt, Score
from milepost.scorers import BaseScorer, CheckpointResults, CheckpointTask, JudgeCalls, Needs
from milepost.scorers.judges_compared import write_comparison
from milepost.scorers.responses import Response, read_responses
from milepost.statistics.metrics import Metric, mean_of, reduce_scores

Value = float | bool | str
# By what was asked, the verdict; None if it cannot be read.
Values = Mapping[str, Value | None]

UNREADABLE = Metric("unreadable_verdicts", "lower", reduce=mean_of)


@dataclass(frozen=True)
class Measured:
    """The numbers that follow from one judge's verdicts on one answer, and what each weighs where it is a ratio of sums."""

    metrics: Mapping[str, float | None] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)


class JudgedScorer(BaseScorer):
    """The base of scorers whose numbers are judges' verdicts.

    A scorer sets `name`, `prompt_version` and `own_metrics`, and has `questions` and `measures`.

    Attributes:
        prompt_version: Version of what judges are asked.
        published: The judge of the benchmark's published numbers, as models of this kind are named.
        own_metrics: The scorer's numbers, the headline first; with several judges, each has its own of them as well.
        fact_metrics: What is known of an answer without a judge.

    Args:
        judges: Names of endpoints.
        ensemble: Those whose mean is the headline; all of them if None.
        ask_again: How often a judge is asked again, with the reason, whose reply cannot be read.
        max_tokens: Longest reply.
        temperature: Of the judges' replies.
        seed: Sent to the judges.
        place: What is scored: it names where calls are kept.
        opens: Opens an endpoint.
    """

    keeps_calls = True
    prompt_version: ClassVar[int]
    published: ClassVar[str]
    own_metrics: tuple[Metric, ...]
    fact_metrics: tuple[Metric, ...] = ()

    def __init__(
        self,
        *,
        judges: Sequence[str],
        ensemble: Sequence[str] | None = None,
        ask_again: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        place: CheckpointTask | None = None,
        opens: Opens = open_endpoint,
    ) -> None:
        self.judges = list(judges)
        self.ensemble = list(ensemble or judges)
        self._again = ask_again
        self._sampling = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
        self._place = place
        self._opens = opens
        if strangers := [name for name in self.ensemble if name not in self.judges]:
            raise ConfigError(
                f"The ensemble of the scorer {self.name} names {strangers[0]!r}, which is none of its judges: "
                f"{', '.join(self.judges)}. Add it to `judges`, or take it out of `ensemble`."
            )
        self.metrics = self.by_judge(self.own_metrics)
        # One judge alone compares with nobody.
        self.tabulates = len(self.judges) > 1

    # What a benchmark says of itself.

    def questions(self, response: Response) -> dict[str, Question]:
        """What judges are asked about one answer, by what it is about; the same for all judges."""
        raise NotImplementedError

    def measures(self, response: Response, values: Values) -> Measured:
        """The numbers that follow from one judge's verdicts on an answer; a headline of None is an answer without a score."""
        raise NotImplementedError

    def facts(self, response: Response) -> Mapping[str, float]:
        """The values of `fact_metrics` for an answer."""
        del response
        return {}

    def families(self, items: Sequence[Prompt]) -> Sequence[Metric]:
        """Metrics of parts of the items, such as their categories."""
        del items
        return ()

    def why_not(self, prompt: Prompt) -> str | None:
        """Why judges cannot be asked about answers to an item; None if they can."""
        del prompt
        return None

    def forms(self, spec: EndpointSpec) -> Sequence[Mapping[str, Any]]:
        """What holds a reply to its form, the strictest first."""
        del spec
        return ({},)

    def files(self) -> Sequence[str]:
        """The user's files that decide scores."""
        return ()

    # What follows from it.

    @property
    def headline(self) -> str:
        """The name of the first of the metrics."""
        return self.own_metrics[0].name

    @property
    def fact_names(self) -> list[str]:
        """Names of `fact_metrics`."""
        return [metric.name for metric in self.fact_metrics]

    def by_judge(self, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
        """Metrics of the ensemble and, where there are several judges, the same of each judge."""
        several = self.judges if len(self.judges) > 1 else []
        of_judges = [replace(one, name=of_judge(one.name, judge)) for judge in several for one in metrics]
        return (
            *metrics,
            UNREADABLE,
            *self.fact_metrics,
            *of_judges,
            *(replace(UNREADABLE, name=of_judge(UNREADABLE.name, j)) for j in several),
        )

    def metrics_of(self, items: Sequence[Prompt]) -> tuple[Metric, ...]:
        """All metrics, those of parts of the items included."""
        return self.by_judge([*self.own_metrics, *self.families(items)])

    def needs(self) -> Needs:
        """Its judges, and the user's files."""
        return Needs(endpoints=dict.fromkeys(self.judges, ("chat",)), files=tuple(self.files()))

    def provenance(self) -> dict[str, Any]:
        """Who the judges are, how they are asked, and which of them make the headline."""
        who = {}
        for spec in map(self._spec, self.judges):
            digest = hashlib.sha256(json.dumps(spec.identity, sort_keys=True).encode()).hexdigest()
            who[spec.name] = {"model": spec.model, "revision": spec.revision, "digest": digest}
        return {
            "judges": who,
            "judge_prompt": self.prompt_version,
            "judge_sampling": self._sampling,
            **({"ensemble": self.ensemble} if len(self.judges) > 1 else {}),
            **self._comparable(),
        }

    @property
    def longest_reply(self) -> int:
        """As `max_tokens` says."""
        return int(self._sampling["max_tokens"])

    def expected_calls(self, item: Prompt) -> JudgeCalls:
        """What one answer to an item will be asked of each judge."""
        if self.why_not(item):
            return JudgeCalls()
        blank = Response(item, Answer(id=item["id"], sample=0, content=""), "")
        chats = [question.messages for question in self.questions(blank).values()]
        chars = sum(len(message["content"]) for chat in chats for message in chat)
        return JudgeCalls(len(chats), chars, len(chats))

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield one score per answer.

        Raises:
            ConfigError: A judge that is no endpoint.
            EndpointError: A judge cannot be reached.
            CallError: A judge answers nothing, or went away; what it answered is kept.
            JudgeError: A judge has become another one, or has cost what it may cost.
        """
        responses = [
            replace(one, text=None, note=why) if one.text is not None and (why := self.why_not(one.prompt)) else one
            for one in read_responses(prompts, answers)
        ]
        asked = {at: self.questions(one) for at, one in enumerate(responses) if one.text is not None}
        verdicts = asyncio.run(self._judge(asked))
        for at, response in enumerate(responses):
            if response.text is None:
                yield response.unscored([metric.name for metric in self.own_metrics])
            else:
                yield self.scored(response, verdicts[at])

    def scored(self, response: Response, verdicts: Mapping[str, Sequence[JudgedVerdict]]) -> Score:
        """The score that follows from the verdicts of all judges on one answer."""
        values = {judge: {one["about"]: one["value"] for one in said} for judge, said in verdicts.items()}
        # A mean of judges who read different parts would be a mean of different things.
        common = {
            about: all(values[judge].get(about) is not None for judge in self.ensemble)
            for about in next(iter(values.values()), {})
        }
        parts = [
            self.measures(response, {about: value if common[about] else None for about, value in values[judge].items()})
            for judge in self.ensemble
        ]
        whole = mean_measured(parts)
        metrics, weights = {**whole.metrics, **self.facts(response)}, dict(whole.weights)
        metrics[UNREADABLE.name] = _mean([_unreadable(verdicts[judge]) for judge in self.ensemble])
        for judge in self.judges if len(self.judges) > 1 else []:
            own = self.measures(response, values[judge])
            metrics |= {of_judge(name, judge): value for name, value in own.metrics.items()}
            weights |= {of_judge(name, judge): value for name, value in own.weights.items()}
            metrics[of_judge(UNREADABLE.name, judge)] = _unreadable(verdicts[judge])
        score = metrics.get(self.headline)
        problems = [
            f"{judge}, {one['about']}: {one['problem']}"
            for judge, said in verdicts.items()
            for one in said
            if "problem" in one
        ]
        note = "; ".join(problems) or None
        if score is None:
            why = "; ".join(filter(None, (response.note, note or "no number follows from the verdicts")))
            record = response.unscored([], why)
            record["metrics"] = metrics
        else:
            record = response.scored(score, metrics, note)
        if weights:
            record["weights"] = weights
        record["judged"] = {judge: list(said) for judge, said in verdicts.items()}
        return record

    def reduce(self, prompts: Sequence[Prompt], scores: Sequence[Score]) -> Mapping[str, Estimate]:
        """Reduce each metric, those of parts of the items included, as it says."""
        return reduce_scores(self.metrics_of(prompts), scores)

    def _comparable(self) -> dict[str, str]:
        """Which published numbers these may not stand beside; nothing where the judges are those of the benchmark."""
        others = [name for name in self.ensemble if self.published.lower() not in self._spec(name).model.lower()]
        if not others:
            return {}
        return {
            "not_comparable": f"with published numbers: those were judged by {self.published}, these by {', '.join(others)}"
        }

    def tabulate(
        self, title: str, prompts: Sequence[Prompt], results: Sequence[CheckpointResults], prepared: Path, out: Path
    ) -> None:
        """Compare the judges, where there are several: a table of every pair, and a figure."""
        del prompts, prepared
        out.mkdir(parents=True, exist_ok=True)
        several = len(self.judges) > 1
        names = {judge: of_judge(self.headline, judge) if several else self.headline for judge in self.judges}
        write_comparison(out, title, results, names)

    async def _judge(self, asked: Mapping[int, Mapping[str, Question]]) -> dict[int, dict[str, list[JudgedVerdict]]]:
        """The verdicts of every judge on each answer. All judges are asked at the same time."""
        flat = [(at, about, question) for at, questions in asked.items() for about, question in questions.items()]
        found: dict[int, dict[str, list[JudgedVerdict]]] = {at: {judge: [] for judge in self.judges} for at in asked}
        if not flat:
            return found
        place = self._where()
        calls = {
            name: (
                self._judge_of(name),
                [question for *_, question in flat],
                kept_calls(name, str(place.ckpt), place.task),
            )
            for name in self.judges
        }
        for judge, judgements in (await ask_judges(calls, self._opens)).items():
            for (at, about, _), judgement in zip(flat, judgements, strict=True):
                found[at][judge].append(_kept(about, judgement))
        return found

    def _judge_of(self, name: str) -> Judge:
        spec = self._spec(name)
        return Judge(spec, self.forms(spec), self._sampling, again=self._again)

    def _spec(self, name: str) -> EndpointSpec:
        return find_endpoint(name, f"The scorer {self.name}")

    def _where(self) -> CheckpointTask:
        if self._place is None:
            raise ConfigError(
                f"The scorer {self.name} works inside a campaign only, to which its judges belong. Run `snakemake` in the "
                "campaign's folder."
            )
        return self._place


def of_judge(metric: str, judge: str) -> str:
    """The name of a metric as one judge has it.

    >>> of_judge("win_rate", "local-32b")
    'win_rate_local-32b'
    """
    return f"{metric}_{judge}"


def slug(text: str) -> str:
    """A part of the items, as the name of its metric has it.

    >>> slug("Academic & Engineering"), slug("Film/TV Review")
    ('academic_engineering', 'film_tv_review')
    """
    return "_".join(re.findall(r"[^\W_]+", text.lower()))


def mean_measured(parts: Sequence[Measured]) -> Measured:
    """The mean over judges of each number and of its weight; a number that one of them lacks is none.

    >>> mean_measured([Measured({"a": 1.0, "b": None}), Measured({"a": 0.0, "b": 1.0})]).metrics
    {'a': 0.5, 'b': None}
    """
    metrics = {name: _mean([part.metrics.get(name) for part in parts]) for name in parts[0].metrics}
    weights = {name: _mean([part.weights[name] for part in parts]) or 0.0 for name in parts[0].weights}
    return Measured(metrics, weights)


def json_forms(name: str, schema: Mapping[str, Any], output: str) -> list[Mapping[str, Any]]:
    """The forms of a reply that is one JSON object: all to be tried, or the one that is named."""
    forms: dict[str, Mapping[str, Any]] = {
        "json_schema": {
            "response_format": {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
        },
        "json_object": {"response_format": {"type": "json_object"}},
        "free": {},
    }
    return list(forms.values()) if output == "auto" else [forms[output]]


def _kept(about: str, judgement: Judgement) -> JudgedVerdict:
    """What is kept of a judgement in the score line: of an unreadable one, its last words as well."""
    verdict = judgement.verdict
    said = JudgedVerdict(about=about, value=verdict.value)
    if verdict.explanation:
        said["explanation"] = verdict.explanation
    if len(judgement.replies) > 1:
        said["asked"] = len(judgement.replies)
    if verdict.problem:
        said["problem"] = verdict.problem
        if judgement.replies:
            said["reply"] = judgement.replies[-1]["content"]
    return said


def _unreadable(said: Sequence[JudgedVerdict]) -> float | None:
    return sum(one["value"] is None for one in said) / len(said) if said else None


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there and len(there) == len(values) else None

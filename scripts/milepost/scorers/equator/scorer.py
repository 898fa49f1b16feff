"""EQUATOR: is the answer right by the answer key? Small evaluators say so, in the role of a strict teacher.

The key of a question is found by its id in the user's file (keys.py), each evaluator is asked for 0 or 100 (prompt.py) as
judges are asked here (milepost.judges), and its reply is read (verdict.py). What cannot be read, and an answer whose
question has no key, is counted and has no score.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from milepost.endpoints.open import open_endpoint
from milepost.endpoints.specs import EndpointSpec, find_endpoint
from milepost.errors import ConfigError, listed
from milepost.judges.asking import Judge, Judgement, Opens, Question, ask_judges, kept_calls
from milepost.judges.verdict import ChatReply, Verdict
from milepost.records import Answer, EvaluatorVerdict, Message, Partial, Prompt, PromptSet, Score, read_record
from milepost.schemas import defaults
from milepost.scorers import BaseScorer, CheckpointResults, CheckpointTask, Needs
from milepost.scorers.equator.keys import ENVIRONMENT, RETRIEVAL, Key, key_id, prepare_retrieval, read_answer_key
from milepost.scorers.equator.prompt import FORMS, OUTPUTS, PROMPT_VERSION, Output, evaluator_messages
from milepost.scorers.equator.sample import draw_evaluators
from milepost.scorers.equator.verdict import Compat, read_verdict
from milepost.scorers.responses import Response, read_responses
from milepost.statistics.metrics import Metric

Draws = dict[str, tuple[str, ...]]


_DEFAULTS = defaults("scorers/equator")


class Scorer(BaseScorer):
    """Scores answers by an answer key and the verdicts of evaluators.

    Metrics:
        equator: The mean of the evaluators' verdicts, 1 for right and 0 for wrong; the headline. Null if any of those
            that were asked gave no verdict.
        equator_NAME: The verdict of each evaluator, where there are several. Null if it was not asked.

    Args:
        evaluators: Names of endpoints.
        answer_key: The user's file.
        sample: Shares of the matrix that stand for the whole: `questions` of each category, `evaluators` per answer.
        output: The form of reply to ask for; `auto` takes the strictest that the server takes, `regex` only of shared
            endpoints: these are vLLM.
        seed: Sent to the evaluators.
        max_tokens: Longest reply.
        ask_again: How often an evaluator is asked again, with the reason, whose reply cannot be read.
        compat: Read replies as the original does.
        label: Name of the folder with the tables; the task's if None.
        place: What is scored: it names where calls are kept.
        keys: The answer key by id, in place of the file.
        opens: Opens an endpoint.
    """

    name = "equator"
    keeps_calls = True
    own_options = frozenset({"label"})
    prepares = True
    tabulates = True

    def __init__(
        self,
        *,
        evaluators: Sequence[str],
        answer_key: str,
        sample: Mapping[str, Any] | None = None,
        output: Literal["auto"] | Output = _DEFAULTS["output"],
        seed: int = _DEFAULTS["seed"],
        max_tokens: int = _DEFAULTS["max_tokens"],
        ask_again: int = _DEFAULTS["ask_again"],
        compat: Compat | None = None,
        label: str | None = None,
        place: CheckpointTask | None = None,
        keys: Mapping[str, Key] | None = None,
        opens: Opens = open_endpoint,
    ) -> None:
        self._answer_key = answer_key
        self._label = label
        self._evaluators = list(evaluators)
        self._sample = {
            **defaults("scorers/equator", "sample"),
            "evaluators": len(self._evaluators),
            **(sample or {}),
        }
        self._output = output
        self._seed = seed
        self._max_tokens = max_tokens
        self._again = ask_again
        self._compat = compat
        self._keys = keys
        self._opens = opens
        self._draws: Draws | None = None
        self._place = place
        several = self._evaluators if len(self._evaluators) > 1 else []
        self.metrics = (Metric("equator"), *(Metric(f"equator_{name}") for name in several))

    def needs(self) -> Needs:
        """Its evaluators and its key; the environments are those of the search for the nearest question."""
        return Needs(
            environments=("semantic", ENVIRONMENT),
            endpoints=dict.fromkeys(self._evaluators, ("chat",)),
            files=(self._answer_key,),
        )

    def check(self, items: Sequence[Prompt]) -> None:
        """See that the key can be read and has answers to some of the items, and that there are evaluators enough."""
        self._where()
        if self._sample["evaluators"] > len(self._evaluators):
            raise ConfigError(
                f"The scorer equator is to have {self._sample['evaluators']} evaluators mark each answer "
                f"(sample.evaluators), of {len(self._evaluators)}. Lower it, or add evaluators."
            )
        keys = self._answered()
        if not any(key_id(item) in keys for item in items):
            raise ConfigError(
                f"The answer key {self._answer_key} has no answer to any of the {len(items)} items. Its entries are found by "
                f"the item's id, or by `meta.answer_key` of the item: it has {listed(keys)}, and the items have "
                f"{listed(map(key_id, items))}. Correct the ids."
            )

    def sample(self, prompts: PromptSet) -> PromptSet:
        """The items that are drawn to be marked, and all items without a key, because these are counted."""
        draws = self._drawn(prompts.prompts)
        kept = [prompt for prompt in prompts.prompts if prompt["id"] in draws]
        if len(kept) == len(prompts.prompts):
            return prompts
        header = prompts.header.copy()
        whole: int | Literal["?"] = header["partial"]["of"] if "partial" in header else len(prompts.prompts)
        header["partial"] = Partial(limit=len(kept), of=whole)
        return PromptSet(header, kept)

    def provenance(self) -> dict[str, Any]:
        """Who the evaluators are, and how they are asked."""
        who = {}
        for spec in map(self._spec, self._evaluators):
            digest = hashlib.sha256(json.dumps(spec.identity, sort_keys=True).encode()).hexdigest()
            who[spec.name] = {"model": spec.model, "revision": spec.revision, "digest": digest}
        return {"evaluators": who, "evaluator_prompt": PROMPT_VERSION}

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield one score per answer.

        Raises:
            ConfigError: An evaluator that is no endpoint.
            EndpointError: An evaluator cannot be reached.
            CallError: An evaluator answers nothing, or went away; what it answered is kept.
            RecordError: There is no collection of the answer key.
        """
        draws = self._drawn(prompts)
        keys = self._answered()
        responses = list(read_responses(prompts, answers))
        chats: dict[str, dict[int, list[Message]]] = {name: {} for name in self._evaluators}
        for at, response in enumerate(responses):
            key = keys.get(key_id(response.prompt))
            if response.text and key is not None:
                chat = evaluator_messages(key.question, key.answer, response.text)
                for name in draws[response.prompt["id"]]:
                    chats[name][at] = chat
        verdicts = asyncio.run(self._mark(chats))
        for at, response in enumerate(responses):
            ident = key_id(response.prompt)
            if response.text is None:
                yield response.unscored(self.metric_names)
            elif ident not in keys:
                note = f"the answer key has no answer of id {ident!r}: not evaluated"
                yield replace(response, note=note).unscored(self.metric_names)
            elif not response.text:
                asked = {f"equator_{name}" for name in draws[response.prompt["id"]]} | {"equator"}
                metrics = {name: 0.0 if name in asked else None for name in self.metric_names}
                yield response.scored(0.0, metrics, "no text: wrong without an evaluator")
            else:
                yield self._scored(response, verdicts[at])

    def prepare(self, prompts: Sequence[Prompt], out: Path) -> None:
        """Keep the answer key in a Chroma collection, and try how well a search for the nearest question finds it."""
        prepare_retrieval(read_answer_key(self._answer_key), prompts, out)

    def tabulate(
        self, title: str, prompts: Sequence[Prompt], results: Sequence[CheckpointResults], prepared: Path, out: Path
    ) -> None:
        """Write EQUATOR's files: every verdict by pair and round, statistics, tokens, a table and a figure."""
        from milepost.scorers.equator.figure import draw_categories
        from milepost.scorers.equator.tables import Student, write_tables

        keys = {key.id: key for key in read_answer_key(self._answer_key)}
        students = [Student(one.ckpt, one.answers, one.scores) for one in results]
        marks = [one.summary["partial"] for one in results if "partial" in one.summary]
        mark = ", ".join(sorted({f"{partial['limit']}/{partial['of']}" for partial in marks})) or None
        label = self._label or self._where().task
        retrieval = read_record(prepared / RETRIEVAL)
        pooled = bool(self._compat)
        tables, rows = write_tables(
            out / label, title, students, self._evaluators, prompts, keys, retrieval, mark, pooled=pooled
        )
        draw_categories(tables / "by_category", rows, title, mark)

    def _scored(self, response: Response, verdicts: dict[str, EvaluatorVerdict]) -> Score:
        """The score that follows from the verdicts of those that were asked."""
        read = {name: None if kept["score"] is None else kept["score"] / 100 for name, kept in verdicts.items()}
        values = [value for value in read.values() if value is not None]
        # A mean over those that could be read would be another measure for each answer.
        score = math.fsum(values) / len(values) if len(values) == len(read) else None
        metrics = {
            name: score if name == "equator" else read.get(name.removeprefix("equator_")) for name in self.metric_names
        }
        problems = [f"{name}: {kept['problem']}" for name, kept in verdicts.items() if "problem" in kept]
        note = "; ".join(problems) or None
        if score is None:
            record = replace(response, note="; ".join(filter(None, (response.note, note)))).unscored(self.metric_names)
            record["metrics"] = metrics
        else:
            record = response.scored(score, metrics, note)
        record["verdicts"] = verdicts
        return record

    async def _mark(self, chats: Mapping[str, Mapping[int, list[Message]]]) -> dict[int, dict[str, EvaluatorVerdict]]:
        """The verdicts on each answer, by evaluator. All evaluators are asked at the same time."""
        asked = {}
        for name in self._evaluators:
            if chats[name]:
                questions = [Question(chat, self._read) for chat in chats[name].values()]
                place = self._where()
                asked[name] = (self._judge(name), questions, kept_calls(name, str(place.ckpt), place.task))
        judged = await ask_judges(asked, self._opens)
        verdicts: dict[int, dict[str, EvaluatorVerdict]] = defaultdict(dict)
        for name, judgements in judged.items():
            for at, judgement in zip(chats[name], judgements, strict=True):
                verdicts[at][name] = _verdict(judgement)
        return verdicts

    def _judge(self, name: str) -> Judge:
        spec = self._spec(name)
        forms = [FORMS[output] for output in self._outputs(spec)]
        sampling = {"temperature": 0, "seed": self._seed, "max_tokens": self._max_tokens}
        # The original asks once, whatever the reply.
        return Judge(spec, forms, sampling, again=0 if self._compat else self._again)

    def _read(self, reply: ChatReply) -> Verdict:
        read = read_verdict(reply["content"], self._compat)
        return Verdict(read.score, read.evaluation, read.problem)

    def _drawn(self, prompts: Sequence[Prompt]) -> Draws:
        """The evaluators of each item that is drawn."""
        if self._draws is None:
            keys = self._answered()
            categories = {prompt["id"]: keys[key_id(prompt)].category for prompt in prompts if key_id(prompt) in keys}
            self._draws = draw_evaluators(
                categories,
                self._evaluators,
                questions=self._sample["questions"],
                per_answer=self._sample["evaluators"],
                seed=self._sample["seed"],
            )
            self._draws |= {prompt["id"]: () for prompt in prompts if key_id(prompt) not in keys}
        return self._draws

    def _answered(self) -> Mapping[str, Key]:
        """The keys by id, without those that have no answer."""
        if self._keys is None:
            self._keys = {key.id: key for key in read_answer_key(self._answer_key)}
        return {ident: key for ident, key in self._keys.items() if key.answer}

    def _outputs(self, spec: EndpointSpec) -> tuple[Output, ...]:
        """The forms of reply that an evaluator is asked for, the strictest first."""
        if self._output != "auto":
            return (self._output,)
        return OUTPUTS if spec.ours else OUTPUTS[1:]

    def _spec(self, name: str) -> EndpointSpec:
        return find_endpoint(name, "The scorer equator")

    def _where(self) -> CheckpointTask:
        if self._place is None:
            raise ConfigError(
                "The scorer equator works inside a campaign only: its answer key and its evaluators belong to one. Run "
                "`snakemake` in the campaign's folder."
            )
        return self._place


def _verdict(judgement: Judgement) -> EvaluatorVerdict:
    """The record of an evaluator's judgement that stands beside the score."""
    verdict = judgement.verdict
    if not judgement.replies:
        return EvaluatorVerdict(score=None, problem=str(verdict.problem))
    score = None if verdict.value is None else int(verdict.value)
    kept = EvaluatorVerdict(score=score, reply=judgement.replies[-1]["content"], usage=judgement.usage)
    if len(judgement.replies) > 1:
        kept["asked"] = len(judgement.replies)
    if verdict.explanation:
        kept["evaluation"] = verdict.explanation
    if verdict.problem:
        kept["problem"] = verdict.problem
    return kept

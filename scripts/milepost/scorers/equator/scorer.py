"""EQUATOR: is the answer right by the answer key? Small evaluators say so, in the role of a strict teacher.

The key of a question is fetched by its id out of a Chroma collection (equator_keys.py), each evaluator is asked for 0 or
100 (equator_prompt.py, equator_calls.py), and its reply is read (equator_verdict.py). What cannot be read, and an answer
whose question has no key, is counted and has no score.
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
from milepost.errors import CallError, ConfigError
from milepost.records import Answer, EvaluatorVerdict, Message, Partial, Prompt, PromptSet, Score
from milepost.scorers import CheckpointTask
from milepost.scorers.equator.calls import ChatReply, Evaluator, Opens
from milepost.scorers.equator.keys import Key, collection_of, fetch_keys, key_id
from milepost.scorers.equator.prompt import OUTPUTS, PROMPT_VERSION, Output, evaluator_messages
from milepost.scorers.equator.sample import draw_evaluators
from milepost.scorers.equator.verdict import Compat, read_verdict
from milepost.scorers.responses import Response, read_responses

JUDGED = Path("results/judged")

Draws = dict[str, tuple[str, ...]]


class Scorer:
    """Scores answers by an answer key and the verdicts of evaluators.

    Metrics:
        equator: The mean of the evaluators' verdicts, 1 for right and 0 for wrong; the headline. Null if any of those
            that were asked gave no verdict.
        equator_NAME: The verdict of each evaluator, where there are several. Null if it was not asked.

    Args:
        evaluators: Names of endpoints.
        answer_key: The user's file; what is fetched was built of it.
        sample: Shares of the matrix that stand for the whole: `questions` of each category, `evaluators` per answer.
        output: The form of reply to ask for; `auto` takes the strictest that the server takes, `regex` only of shared
            endpoints: these are vLLM.
        seed: Sent to the evaluators.
        max_tokens: Longest reply.
        compat: Read replies as the original does.
        label: Name of the folder with the tables; of no consequence here.
        place: What is scored: it names the collection of the key, and where calls are kept.
        keys: The answer key by id, if it need not be fetched.
        opens: Opens an endpoint.
    """

    name = "equator"
    metric = "equator"
    keeps_calls = True

    def __init__(
        self,
        *,
        evaluators: Sequence[str],
        answer_key: str,
        sample: Mapping[str, Any] | None = None,
        output: Literal["auto"] | Output = "auto",
        seed: int = 0,
        max_tokens: int = 512,
        compat: Compat | None = None,
        label: str | None = None,
        place: CheckpointTask | None = None,
        keys: Mapping[str, Key] | None = None,
        opens: Opens = open_endpoint,
    ) -> None:
        del answer_key, label
        self._evaluators = list(evaluators)
        self._sample = {"questions": 1.0, "evaluators": len(self._evaluators), "seed": 0, **(sample or {})}
        self._output = output
        self._seed = seed
        self._max_tokens = max_tokens
        self._compat = compat
        self._keys = keys
        self._opens = opens
        self._draws: Draws | None = None
        self._place = place
        several = self._evaluators if len(self._evaluators) > 1 else []
        self.metrics: tuple[str, ...] = ("equator", *(f"equator_{name}" for name in several))

    def sample(self, prompts: PromptSet) -> PromptSet:
        """The items that are drawn. Those without a key are all of them: they are to be counted."""
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
        keys = self._fetched(prompts)
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
                yield response.unscored(self.metrics)
            elif ident not in keys:
                note = f"the answer key has no answer of id {ident!r}: not evaluated"
                yield replace(response, note=note).unscored(self.metrics)
            elif not response.text:
                asked = {f"equator_{name}" for name in draws[response.prompt["id"]]} | {"equator"}
                metrics = {name: 0.0 if name in asked else None for name in self.metrics}
                yield response.scored(0.0, metrics, "no text: wrong without an evaluator")
            else:
                yield self._scored(response, verdicts[at])

    def _scored(self, response: Response, verdicts: dict[str, EvaluatorVerdict]) -> Score:
        """The score that follows from the verdicts of those that were asked."""
        read = {name: None if said["score"] is None else said["score"] / 100 for name, said in verdicts.items()}
        values = [value for value in read.values() if value is not None]
        # A mean over those that could be read would be another measure for each answer.
        score = math.fsum(values) / len(values) if len(values) == len(read) else None
        metrics = {
            name: score if name == "equator" else read.get(name.removeprefix("equator_")) for name in self.metrics
        }
        problems = [f"{name}: {said['problem']}" for name, said in verdicts.items() if "problem" in said]
        note = "; ".join(problems) or None
        if score is None:
            record = replace(response, note="; ".join(filter(None, (response.note, note)))).unscored(self.metrics)
            record["metrics"] = metrics
        else:
            record = response.scored(score, metrics, note)
        record["verdicts"] = verdicts
        return record

    async def _mark(self, chats: Mapping[str, Mapping[int, list[Message]]]) -> dict[int, dict[str, EvaluatorVerdict]]:
        """The verdicts on each answer, by evaluator. All evaluators are asked at the same time."""

        async def ask(name: str) -> list[ChatReply | CallError]:
            spec = self._spec(name)
            evaluator = Evaluator(spec, self._outputs(spec), self._seed, self._max_tokens)
            return await evaluator.mark(list(chats[name].values()), self._kept(name), self._opens)

        names = [name for name in self._evaluators if chats[name]]
        results = await asyncio.gather(*map(ask, names), return_exceptions=True)
        found: dict[int, dict[str, EvaluatorVerdict]] = defaultdict(dict)
        for name, replies in zip(names, results, strict=True):
            if isinstance(replies, BaseException):
                # Only now: the others' replies are kept as well.
                raise replies
            for at, reply in zip(chats[name], replies, strict=True):
                found[at][name] = self._verdict(reply)
        return found

    def _verdict(self, reply: ChatReply | CallError) -> EvaluatorVerdict:
        if isinstance(reply, CallError):
            return EvaluatorVerdict(score=None, problem=f"not answered: {reply}")
        verdict = read_verdict(reply["content"], self._compat)
        said = EvaluatorVerdict(score=verdict.score, reply=reply["content"], usage=reply["usage"])
        if verdict.evaluation:
            said["evaluation"] = verdict.evaluation
        if verdict.problem:
            cut = f" (cut off after {self._max_tokens} tokens)" if reply["finish_reason"] == "length" else ""
            said["problem"] = verdict.problem + cut
        return said

    def _drawn(self, prompts: Sequence[Prompt]) -> Draws:
        """The evaluators of each item that is drawn."""
        if self._draws is None:
            keys = self._fetched(prompts)
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

    def _fetched(self, prompts: Sequence[Prompt]) -> Mapping[str, Key]:
        """The keys of the items by id, without those that have no answer."""
        if self._keys is None:
            self._keys = fetch_keys(collection_of(self._where().task), map(key_id, prompts))
        return {ident: key for ident, key in self._keys.items() if key.answer}

    def _outputs(self, spec: EndpointSpec) -> tuple[Output, ...]:
        """The forms of reply to try."""
        if self._output != "auto":
            return (self._output,)
        return OUTPUTS if spec.ours else OUTPUTS[1:]

    def _spec(self, name: str) -> EndpointSpec:
        return find_endpoint(name, "The scorer equator")

    def _kept(self, name: str) -> Path:
        place = self._where()
        return JUDGED / name / place.ckpt / f"{place.task}.jsonl"

    def _where(self) -> CheckpointTask:
        if self._place is None:
            raise ConfigError(
                "The scorer equator works inside a campaign only: its answer key and its evaluators belong to one. Run "
                "`snakemake` in the campaign's folder."
            )
        return self._place

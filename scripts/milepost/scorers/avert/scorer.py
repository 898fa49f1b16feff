"""A-VERT: is a free answer nearer in meaning to the right answer or to a wrong one?

Candidates are written for the right and for the wrong answers of an item (candidates.py), each is compared with the model's
answer (similarity.py), and the highest group decides (verdict.py). A small embedder tells texts on
one subject from texts on another; it does not tell a text from its denial, nor a conclusion from what led to it. So, unless a
reranker compares, an answer's last sentences are read one by one, for what they name and rule out as well (statement.py).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from milepost.embedding.embedders import MINILM_IDENTITY, Embed
from milepost.errors import ConfigError, RecordError
from milepost.records import Answer, Prompt, Score
from milepost.schemas import defaults
from milepost.scorers import BaseScorer, CheckpointTask, Kind, Needs
from milepost.scorers.avert.candidates import REFUSALS, candidate_groups
from milepost.scorers.avert.readings import READINGS, Found, References
from milepost.scorers.avert.settings import BUILT_IN, environment_of, settings_of
from milepost.scorers.avert.similarity import Similarities, TextsToCompare, describe, find_similarities
from milepost.scorers.avert.statement import Options
from milepost.scorers.avert.verdict import CORRECT, WRONG, AvertVerdict, grouping_of, original_verdict_of, verdict_of
from milepost.scorers.responses import Response, read_responses, targets_of
from milepost.statistics.metrics import Metric, constant_of
from milepost.tasks.known import EXACT, ORIGINAL
from milepost.text import normalized, same_text, words

_SEED = 0
# The verdict on an empty answer, the same as the original's.
_EMPTY = AvertVerdict({CORRECT: 0.0, WRONG: 1.0}, match=False, tie=False, winner=WRONG)
_WON = 120  # characters of the winning candidate that a record shows


_DEFAULTS = defaults("scorers/avert")


class Scorer(BaseScorer):
    """Scores answers by meaning.

    Metrics:
        avert_match: 1 if the correct group is higher than all others; the headline.
        avert_correct, avert_wrong: The groups' scores, divided by their sum.
        margin: The correct group's share minus the highest other one, in [-1, 1].
        tie: 1 if the correct group is level with the highest other one; no match.
        exact_match: 1 if the whole answer is a target, but for case, punctuation and white space at its ends.
        semscore: With `semscore`, the cosine of the whole answer with the target.
        truth, avert_agrees, exact_agrees: With `truth`, whether the answer is right by a rule that knows the task, and
            whether the two matches say so too.
        chance: With `chance`, the match of the same answer with another item's candidates.

    Each record names the candidate that won.

    Args:
        wrong: The wrong answers: an item's own `meta.wrong` or its other choices, or the same list of texts for all items.
        extra_wrong: Wrong answers besides, for all items. A target is never a wrong answer.
        refusal: Whether refusals and complaints about the question are groups of their own, which can win.
        reading: `statement`: what the answer's last sentences state decides; `whole`: the answer as a whole. None is
            `whole` for rerankers and with `compat`, else `statement`.
        letters: Whether the prompts show the choices as A, B, C, … in their order, so that an answer may name a letter.
        enhance: Whether candidates are also written as answers would say them.
        grouping: How a group's similarities are reduced: `max`, `mean` or `mean_top_k_K`.
        endpoint: Who compares: an endpoint's name, or `minilm` for the embedder that comes with Milepost. None is what
            the environment variables of the original program name, else `minilm`.
        api: The endpoint's interface: `openai`, `vllm` or `tei`.
        method: `embedding` or `rerank`.
        template: Words around the texts: a known name, or a mapping of `query` and `document`.
        instruction: What a template tells the model to look for.
        compat: Whether to agree with the original program, faults included.
        semscore: Whether to give the SemScore. None does where the method embeds.
        truth: `names_target`: right is an answer that names the target, as a whole word, and no other choice.
        chance: Whether to score each answer with another item's candidates, too. None does where the method embeds.
        place: Whose answers are scored; with None, nothing is kept for the next time.
        embed: Makes vectors of texts, instead of what is named above.

    Raises:
        ConfigError: Options that contradict each other, or an environment variable that cannot be.
    """

    name = "avert"
    keeps_calls = True

    def __init__(
        self,
        *,
        wrong: Literal["choices"] | Sequence[str] = _DEFAULTS["wrong"],
        extra_wrong: Sequence[str] = _DEFAULTS["extra_wrong"],
        refusal: bool = _DEFAULTS["refusal"],
        reading: Literal["statement", "whole"] | None = None,
        letters: bool = _DEFAULTS["letters"],
        enhance: bool | None = None,
        grouping: str | None = None,
        endpoint: str | None = None,
        api: str | None = None,
        method: Literal["embedding", "rerank"] | None = None,
        template: str | Mapping[str, str] | None = None,
        instruction: str | None = None,
        compat: bool = _DEFAULTS["compat"],
        semscore: bool | None = None,
        truth: Literal["names_target"] | None = None,
        chance: bool | None = None,
        place: CheckpointTask | None = None,
        embed: Embed | None = None,
    ) -> None:
        options = {
            **{"endpoint": endpoint, "api": api, "method": method, "template": template, "instruction": instruction},
            **{"grouping": grouping, "enhance": enhance},
        }
        # An embedder that is handed over is asked, whatever the environment says.
        self._settings = settings_of(options, place.task if place else "", **({"environ": {}} if embed else {}))
        embeds = self._settings.method == "embedding"
        chosen = reading or ("statement" if embeds and not compat else "whole")
        if compat and chosen != "whole":
            raise ConfigError("`compat` agrees with a program that reads answers as a whole. Leave out `reading`.")
        if chosen == "statement" and self._settings.grouping != "max":
            raise ConfigError(
                f"`grouping: {self._settings.grouping}` averages over candidates, but a statement is one of them. Add "
                "`reading: whole`, or leave out `grouping`."
            )
        self._reading = READINGS[chosen]
        self._read_as = chosen
        self._positions = letters and chosen == "whole"
        self._wrong = wrong
        self._extra_wrong = extra_wrong
        self._refusal = refusal
        self._letters = letters
        self._compat = compat
        self._truth = truth
        self._chance = embeds if chance is None else chance
        self._semscore = embeds if semscore is None else semscore
        self._place = place
        self._embed = embed
        # The original divides by sums of cosines: with negative ones its shares have no bounds.
        shares = None if compat else (0.0, 1.0)
        margins = None if compat else (-1.0, 1.0)
        self.metrics = (
            Metric("avert_match"),
            Metric("avert_correct", range=shares),
            Metric("avert_wrong", "lower", shares),
            Metric("margin", range=margins),
            Metric("tie", "lower"),
            Metric("exact_match"),
            *((Metric("semscore", range=(-1.0, 1.0)),) if self._semscore else ()),
            *(map(Metric, ("truth", "avert_agrees", "exact_agrees")) if truth else ()),
            *((Metric("chance", "lower", reduce=constant_of),) if self._chance else ()),
        )

    def needs(self) -> Needs:
        """The environment of the built-in embedder, or the endpoint that compares."""
        named = self._settings.endpoint != BUILT_IN and self._settings.address is None
        # A pooling server may do both; which of them it is asked for, `method` says.
        kinds: tuple[Kind, ...] = ("embedding", "reranker")
        if self._settings.method == "rerank":
            kinds = kinds[::-1]
        return Needs(
            environments=("semantic",) if self._uses_built_in else (),
            endpoints={self._settings.endpoint: kinds} if named else {},
            node=True,
        )

    def check(self, items: Sequence[Prompt]) -> None:
        """Check that every item has right and wrong answers, and that letters identify them."""
        for item in items:
            self._texts_of(item)

    def decides(self) -> dict[str, Any]:
        """The model that compares: an endpoint, or what the environment variables of the original program name."""
        return {**super().decides(), **environment_of(self._settings)}

    @property
    def _uses_built_in(self) -> bool:
        if self._embed is not None:
            return False
        return self._settings.endpoint == BUILT_IN or (self._semscore and self._settings.method == "rerank")

    def provenance(self) -> dict[str, Any]:
        """The model and method that compare, and how an answer is read."""
        who: dict[str, str | None] = {"model": "handed over"} if self._embed else describe(self._settings)
        told: dict[str, Any] = {"compared_by": {**who, "method": self._settings.method, "reading": self._read_as}}
        if self._semscore and self._settings.method == "rerank":
            told["semscore_by"] = MINILM_IDENTITY["model"]
        return told

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield one score per answer.

        Raises:
            ConfigError: An item without wrong answers.
            RecordError: An item without a target, or whose target is not among its choices.
            CallError: The endpoint failed for good; what it answered is kept.
            EndpointError: The endpoint does not answer, or not as the model that was named.
            EnvironmentMissingError: The embedder is not installed.
            ServerError: The embedder failed.
        """
        prompts = list(map(self._as_compared, prompts))
        keys = {prompt["id"]: self._key_of(prompt) for prompt in prompts}
        others = other_items({prompt["id"]: targets_of(prompt) for prompt in prompts}) if self._chance else {}
        responses = list(read_responses(prompts, answers))
        found = self._compare(responses, keys, others)
        for response in responses:
            text = response.text
            if text is None:
                yield response.unscored(self.metric_names)
                continue
            reason = self._too_long(text, keys[response.prompt["id"]], found)
            if reason:
                yield response.unscored(self.metric_names, f"not compared: {reason}")
                continue
            yield self._scored(response, text, keys, others, found)

    def _as_compared(self, prompt: Prompt) -> Prompt:
        """The item with the targets that the original has for it, where these are others and `compat` asks for them."""
        original = prompt.get("meta", {}).get(ORIGINAL) if self._compat else None
        if original is None:
            return prompt
        return {**prompt, "target": original["target"], "meta": {**prompt["meta"], "wrong": original["wrong"]}}

    def _too_long(self, text: str, key: References, found: Similarities) -> str | None:
        """What the server says of a text that it could not take, of those that are compared; None if it took all."""
        compared = [*self._reading.queries(text), *self._reading.documents(key)] if text and found.too_long else []
        return next((found.too_long[one] for one in compared if one in found.too_long), None)

    def _scored(
        self,
        response: Response,
        text: str,
        keys: Mapping[str, References],
        others: Mapping[str, str | None],
        found: Similarities,
    ) -> Score:
        item = response.prompt["id"]
        targets = targets_of(response.prompt)
        verdict, comparison = self._verdict(text, keys[item], found)
        metrics: dict[str, float | None] = {
            "avert_match": float(verdict.match),
            "avert_correct": _finite(verdict.shares[CORRECT]),
            "avert_wrong": _finite(verdict.shares[WRONG]),
            "margin": _finite(verdict.margin),
            "tie": float(verdict.tie),
            "exact_match": float(any(same_text(text, one) for one in [*targets, *_meta(response.prompt, EXACT)])),
        }
        note = None
        if self._semscore:
            # The one number that needs the whole answer.
            long = [found.too_long[one] for one in (text, *targets) if one in found.too_long]
            note = f"no SemScore: {long[0]}" if long else None
            metrics["semscore"] = None if long else max(found.plain(text, targets)) if text and found.plain else 0.0
        if self._truth:
            truth = float(names_only(text, targets, self._others_of(response.prompt)))
            metrics["truth"] = truth
            metrics["avert_agrees"] = float(metrics["avert_match"] == truth)
            metrics["exact_agrees"] = float(metrics["exact_match"] == truth)
        if self._chance:
            other = others[item]
            comparable = other is not None and not self._too_long(text, keys[other], found)
            metrics["chance"] = (
                float(self._verdict(text, keys[other], found)[0].match) if comparable and other is not None else None
            )
        score = response.scored(float(verdict.match), metrics, note)
        if comparison is not None:
            score["winner"] = {"group": verdict.winner, "candidate": comparison.best(verdict.winner)[:_WON]}
        return score

    def _compare(
        self, responses: Sequence[Response], keys: Mapping[str, References], others: Mapping[str, str | None]
    ) -> Similarities:
        """Compute all similarities that the verdicts need, at once."""
        documents = {item: self._reading.documents(key) for item, key in keys.items()}
        pairs: dict[str, dict[str, None]] = {}
        plain: dict[str, None] = {}
        for response in responses:
            if not response.text:
                continue
            other = others.get(response.prompt["id"])
            for query in self._reading.queries(response.text):
                wanted = pairs.setdefault(query, {})
                for item in (response.prompt["id"], *(() if other is None else (other,))):
                    wanted.update(dict.fromkeys(documents[item]))
            if self._semscore:
                plain |= dict.fromkeys([response.text, *targets_of(response.prompt)])
        wanted_all = TextsToCompare({query: list(wanted) for query, wanted in pairs.items()}, list(plain))
        return find_similarities(self._settings, wanted_all, self._place, self._embed, double=self._compat)

    def _verdict(self, text: str, key: References, found: Similarities) -> tuple[AvertVerdict, Found | None]:
        comparison = self._reading.read(text, key, found) if text else None
        if comparison is None:
            return _EMPTY, None
        grouping = grouping_of(self._settings.grouping, compat=self._compat)
        reduce = original_verdict_of if self._compat else verdict_of
        return reduce(comparison.similarities, grouping), comparison

    def _key_of(self, prompt: Prompt) -> References:
        """Make the references of an item: its right and wrong answers in all their forms."""
        texts, shown = self._texts_of(prompt)
        targets, wrong = texts[CORRECT], texts[WRONG]
        rest = [text for text in [*targets, *wrong] if text not in shown]
        options = Options(tuple(dict.fromkeys([*shown, *rest])), lettered=len(shown) if self._letters else 0)
        enhance = self._settings.enhance
        if self._positions:
            # What stands beside the options has no symbol, and is said without one.
            listed = {group: [text for text in texts[group] if text in shown] for group in (CORRECT, WRONG)}
            positions = {group: [shown.index(text) for text in members] for group, members in listed.items()}
            candidates = candidate_groups(listed, enhance=enhance, positions=positions, compat=self._compat)
            extra = {
                group: [text for text in members if text not in listed.get(group, ())]
                for group, members in texts.items()
            }
            for group, members in candidate_groups(extra, enhance=enhance).items():
                candidates[group] = candidates.get(group, []) + members
        else:
            candidates = candidate_groups(texts, enhance=enhance)
        forms = {text: candidate_groups({CORRECT: [text]}, enhance=enhance)[CORRECT] for text in [*targets, *wrong]}
        return References(texts, candidates, forms, options)

    def _texts_of(self, prompt: Prompt) -> tuple[dict[str, list[str]], list[str]]:
        """The texts of each group, and those of them that the item shows as its choices, in their order."""
        targets = targets_of(prompt)
        wrong = self._others_of(prompt)
        if not wrong:
            raise ConfigError(
                f"The scorer avert has no wrong answers to hold against the target of item {prompt['id']!r}. Give the "
                "task's items `choices` (texts, the target among them) or `meta.wrong`, or list wrong answers in the "
                "task's `scorer: {name: avert, wrong: [...]}`; a task that has none of them can use the scorer exact_match."
            )
        wrong += _without(self._extra_wrong, [*targets, *wrong])
        shown = [choice for choice in prompt.get("choices", []) if choice in targets or choice in wrong]
        if self._letters and shown != prompt.get("choices"):
            raise RecordError(
                f"The choices of item {prompt['id']!r} are not all different, or not all of them are right or wrong "
                "answers, so a letter does not say which is meant. Correct the task's data, or leave out `letters`."
            )
        return {CORRECT: targets, WRONG: wrong, **(REFUSALS if self._refusal else {})}, shown

    def _others_of(self, prompt: Prompt) -> list[str]:
        """The wrong answers of an item, without the extra ones."""
        targets = targets_of(prompt)
        if self._wrong != "choices":
            return _without(self._wrong, targets)
        choices = prompt.get("choices", [])
        wrong = _without(choices, targets)
        if choices and len(wrong) == len(set(map(normalized, choices))):
            raise RecordError(
                f"The target of item {prompt['id']!r}, {', '.join(targets)}, is not among its choices: "
                f"{', '.join(choices)}. Correct the task's data: the target is the text of a choice, not its letter."
            )
        own = _meta(prompt, "wrong")
        if self._compat and ORIGINAL in prompt.get("meta", {}):
            return list(own)  # the original's very list, even where it holds a right answer
        return wrong + _without(own, [*targets, *wrong])


def _meta(prompt: Prompt, name: str) -> list[str]:
    """A list of texts in an item's `meta`; empty if there is none.

    Raises:
        RecordError: It is something else.
    """
    texts = prompt.get("meta", {}).get(name, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise RecordError(f"`meta.{name}` of item {prompt['id']!r} is not a list of texts. Correct the task's data.")
    return texts


def _finite(number: float) -> float | None:
    """The number, or None if it is infinite or not a number, which JSON cannot hold."""
    return number if abs(number) < float("inf") else None


def names_only(text: str, targets: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a text names a target, as a whole word, and none of the others; upper and lower case are the same.

    >>> names_only("She is in the kitchen.", ["kitchen"], ["garden"])
    True
    >>> names_only("In the kitchen or the garden.", ["kitchen"], ["garden"])
    False
    """
    wanted, unwanted = ([words(one) for one in texts] for texts in (targets, others))
    said = words(text)
    named = unnamed = False
    at = 0
    while at < len(said):
        found = [name for name in [*wanted, *unwanted] if name and said[at : at + len(name)] == name]
        # The longest: the "living room" is not the "room".
        longest = max(found, key=len, default=None)
        named |= longest in wanted
        unnamed |= longest is not None and longest not in wanted
        at += len(longest or " ")
    return named and not unnamed


def other_items(targets: dict[str, list[str]]) -> dict[str, str | None]:
    """Assign to each item another item with other targets, drawn by a fixed seed.

    No two items get the same one, unless more than half of all items share a target. An item gets None if no other
    target exists.

    Args:
        targets: The targets of each item.

    >>> other_items({"a": ["kitchen"], "b": ["garden"]})
    {'a': 'b', 'b': 'a'}
    """
    # By id, so that the draw is the same for every checkpoint and any order of the file.
    draw = random.Random(_SEED)  # noqa: S311 - a draw of items, no secret
    by_target: dict[frozenset[str], list[str]] = defaultdict(list)
    for item in sorted(targets):
        by_target[frozenset(map(normalized, targets[item]))].append(item)
    blocks = list(by_target.values())
    for block in blocks:
        draw.shuffle(block)
    draw.shuffle(blocks)
    # Items of one target stand in one block. Moved on by the length of the longest block, each leaves its own; where
    # one block is longer than all others together, some come back into it and are drawn freely.
    ring = [item for block in blocks for item in block]
    step = max(map(len, blocks), default=0)
    moved = {item: ring[(at + step) % len(ring)] for at, item in enumerate(ring)}
    others: dict[str, str | None] = {}
    for block in blocks:
        own = set(block)
        back = [item for item in block if moved[item] in own]
        outside = [item for item in ring if item not in own] if back else []
        others |= {item: moved[item] for item in block}
        others |= {item: draw.choice(outside) if outside else None for item in back}
    return {item: others[item] for item in targets}


def _without(texts: Sequence[str], excluded: Sequence[str]) -> list[str]:
    """The distinct texts without the excluded ones."""
    seen = set(map(normalized, excluded))
    kept = []
    for text in texts:
        if normalized(text) not in seen:
            seen.add(normalized(text))
            kept.append(text)
    return kept

"""A-VERT: is a free answer nearer in meaning to the right answer or to a wrong one?

Candidates are written for the right and for the wrong answers of an item (avert_candidates.py), each is compared with
the model's answer (embedding.py), and the highest similarity of each group decides (avert_verdict.py). The embedder
tells texts on one subject from texts on another; it does not tell a text from its denial, nor a conclusion from what led
to it. So an answer's last sentences are read one by one, for what they name and rule out as well (statement.py).
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from milepost.errors import ConfigError, RecordError
from milepost.records import Answer, Prompt, Score
from milepost.scorers.avert_candidates import candidate_groups
from milepost.scorers.avert_verdict import Verdict, verdict_of
from milepost.scorers.embedding import CosineSimilarity, Embed, MiniLM
from milepost.scorers.responses import Response, read_responses, targets_of
from milepost.scorers.statement import Options, last_sentences
from milepost.text import normalized

_SEED = 0
# What the original gives an empty answer, too.
_EMPTY = Verdict({"correct": 0.0, "wrong": 1.0}, match=False, tie=False)


@dataclass(frozen=True)
class Key:
    """What the answers to one item are held against.

    Attributes:
        texts: The right and the wrong texts, by group.
        candidates: For each of the texts, by group, how an answer would say it.
        options: The same texts in one row: those that the item shows first, in its order.
    """

    texts: dict[str, list[str]]
    candidates: dict[str, list[list[str]]]
    options: Options


@dataclass(frozen=True)
class Whole:
    """Compares the answer as a whole, as the original does."""

    def queries(self, text: str) -> list[str]:
        """What of an answer is embedded."""
        return [text]

    def similarities(self, queries: Sequence[str], key: Key, cosines: CosineSimilarity) -> dict[str, list[float]]:
        """How similar each text of each group is to the answer."""
        return {
            group: [max(cosines(queries[0], said)) for said in members] for group, members in key.candidates.items()
        }


@dataclass(frozen=True)
class Statement:
    """Reads what the answer's last sentences state."""

    def queries(self, text: str) -> list[str]:
        """What of an answer is embedded."""
        return last_sentences(text)

    def similarities(self, queries: Sequence[str], key: Key, cosines: CosineSimilarity) -> dict[str, list[float]]:
        """How far the answer states each text of each group."""
        said = {
            text: forms
            for group, members in key.texts.items()
            for text, forms in zip(members, key.candidates[group], strict=True)
        }
        options = key.options.texts
        stated = key.options.stated(queries, lambda sentence, at: max(cosines(sentence, said[options[at]])))
        by_text = dict(zip(options, stated, strict=True))
        return {group: [by_text[text] for text in members] for group, members in key.texts.items()}


READINGS: Mapping[str, Whole | Statement] = {"statement": Statement(), "whole": Whole()}


class Scorer:
    """Scores answers by meaning, with embeddings and the maximum over each group.

    Metrics:
        avert_match: 1 if the correct group is higher than all others; the headline.
        avert_correct, avert_wrong: The groups' scores, divided by their sum.
        tie: 1 if the correct group is level with the highest other one; no match.
        exact_match: 1 if the whole answer is a target, but for case, punctuation and white space at its ends.
        truth, avert_agrees, exact_agrees: With `truth`, whether the answer is right by a rule that knows the task, and
            whether the two matches say so too.
        chance: With `chance`, the match of the same answer with another item's candidates.

    Args:
        wrong: The wrong answers: an item's other choices, or the same list of texts for all items.
        extra_wrong: Wrong answers besides, for all items. A target is never a wrong answer.
        reading: `statement`: what the answer's last sentences state decides; `whole`: the answer as a whole.
        letters: Whether the prompts show the choices as A, B, C, … in their order, so that an answer may name a letter.
        enhance: Whether candidates are also written as answers would say them.
        truth: `names_target`: right is an answer that names the target, as a whole word, and no other choice.
        chance: Whether to score each answer with another item's candidates, too.
        embed: Makes vectors of texts; the embedder of envs/semantic if None.
    """

    name = "avert"
    metric = "avert_match"

    def __init__(
        self,
        *,
        wrong: Literal["choices"] | Sequence[str] = "choices",
        extra_wrong: Sequence[str] = (),
        reading: Literal["statement", "whole"] = "statement",
        letters: bool = False,
        enhance: bool = True,
        truth: Literal["names_target"] | None = None,
        chance: bool = True,
        embed: Embed | None = None,
    ) -> None:
        self._wrong = wrong
        self._extra_wrong = extra_wrong
        self._reading = READINGS[reading]
        self._letters = letters
        self._enhance = enhance
        self._truth = truth
        self._chance = chance
        self._embed = embed
        self.metrics: tuple[str, ...] = (
            *("avert_match", "avert_correct", "avert_wrong", "tie", "exact_match"),
            *(("truth", "avert_agrees", "exact_agrees") if truth else ()),
            *(("chance",) if chance else ()),
        )

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield one score per answer.

        Raises:
            ConfigError: An item without wrong answers.
            RecordError: An item without a target, or whose target is not among its choices.
            EnvironmentMissingError: The embedder is not installed.
            ServerError: The embedder failed.
        """
        keys = {prompt["id"]: self._key_of(prompt) for prompt in prompts}
        others = other_items({prompt["id"]: targets_of(prompt) for prompt in prompts}) if self._chance else {}
        responses = list(read_responses(prompts, answers))
        cosines = self._cosines(responses, keys)
        for response in responses:
            text = response.text
            if text is None:
                yield response.unscored(self.metrics)
                continue
            item = response.prompt["id"]
            verdict = self._verdict(text, keys[item], cosines)
            metrics: dict[str, float | None] = {
                "avert_match": float(verdict.match),
                "avert_correct": verdict.shares["correct"],
                "avert_wrong": verdict.shares["wrong"],
                "tie": float(verdict.tie),
                "exact_match": float(normalized(text) in map(normalized, targets_of(response.prompt))),
            }
            if self._truth:
                truth = float(names_only(text, targets_of(response.prompt), self._others_of(response.prompt)))
                metrics["truth"] = truth
                metrics["avert_agrees"] = float(metrics["avert_match"] == truth)
                metrics["exact_agrees"] = float(metrics["exact_match"] == truth)
            if self._chance:
                other = others[item]
                metrics["chance"] = None if other is None else float(self._verdict(text, keys[other], cosines).match)
            yield response.scored(float(verdict.match), metrics)

    def _cosines(self, responses: Sequence[Response], keys: Mapping[str, Key]) -> CosineSimilarity:
        queries = {query for response in responses if response.text for query in self._reading.queries(response.text)}
        # Where no answer has a text, none of the candidates is worth starting a model.
        documents = {
            form for key in keys.values() for members in key.candidates.values() for forms in members for form in forms
        }
        texts = queries | documents if queries else set()
        if self._embed is not None:
            return CosineSimilarity(self._embed, texts)
        with MiniLM() as embed:
            return CosineSimilarity(embed, texts)

    def _verdict(self, text: str, key: Key, cosines: CosineSimilarity) -> Verdict:
        queries = self._reading.queries(text) if text else []
        return verdict_of(self._reading.similarities(queries, key, cosines)) if queries else _EMPTY

    def _key_of(self, prompt: Prompt) -> Key:
        """What the answers to an item are held against."""
        targets = targets_of(prompt)
        wrong = self._others_of(prompt)
        if not wrong:
            raise ConfigError(
                f"The scorer avert has no wrong answers to hold against the target of item {prompt['id']!r}. Give the "
                "task's items `choices` (texts, the target among them), or list wrong answers in the task's `scorer: "
                "{name: avert, wrong: [...]}`; a task that has neither can use the scorer exact_match."
            )
        wrong += _without(self._extra_wrong, [*targets, *wrong])
        texts = {"correct": targets, "wrong": wrong}
        candidates = {
            group: [candidate_groups({group: [text]}, enhance=self._enhance)[group] for text in members]
            for group, members in texts.items()
        }
        shown = [choice for choice in prompt.get("choices", []) if choice in targets or choice in wrong]
        if self._letters and shown != prompt.get("choices"):
            raise RecordError(
                f"The choices of item {prompt['id']!r} are not all different, or not all of them are right or wrong "
                "answers, so a letter does not say which is meant. Correct the task's data, or leave out `letters`."
            )
        rest = [text for text in [*targets, *wrong] if text not in shown]
        options = Options(tuple(dict.fromkeys([*shown, *rest])), lettered=len(shown) if self._letters else 0)
        return Key(texts, candidates, options)

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
        return wrong


def names_only(text: str, targets: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a text names a target, as a whole word, and none of the others; upper and lower case are the same.

    >>> names_only("She is in the kitchen.", ["kitchen"], ["garden"])
    True
    >>> names_only("In the kitchen or the garden.", ["kitchen"], ["garden"])
    False
    """
    # The longest first: the "living room" is not the "room".
    names = sorted({*targets, *others}, key=lambda name: (-len(name), name))
    found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)", text, re.IGNORECASE)
    named = {name.casefold() for name in found}
    return bool(named) and named <= {target.casefold() for target in targets}


def other_items(targets: dict[str, list[str]]) -> dict[str, str | None]:
    """Give each item another one with other targets, drawn by a fixed seed.

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
    """The distinct texts that are none of the excluded ones."""
    seen = set(map(normalized, excluded))
    kept = []
    for text in texts:
        if normalized(text) not in seen:
            seen.add(normalized(text))
            kept.append(text)
    return kept

"""The references of an item, and two ways of reading an answer: as a whole, or by what its last sentences state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from milepost.scorers.avert.sentences import read_sentences
from milepost.scorers.avert.statement import Options, refusal
from milepost.scorers.avert.verdict import CORRECT, WRONG


class Similarity(Protocol):
    """A function that gives the similarity of documents to a query."""

    def __call__(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """Compare a query with documents; one number per document."""
        ...


@dataclass(frozen=True)
class References:
    """The reference answers of one item, right and wrong, that its answers are compared with.

    Attributes:
        texts: The right and the wrong texts, and those of further groups, by group.
        candidates: All that an answer is compared with as a whole, by group.
        forms: For each right and wrong text, how an answer would say it.
        options: The right and wrong texts in one row: those that the item shows first, in its order.
    """

    texts: dict[str, list[str]]
    candidates: dict[str, list[str]]
    forms: dict[str, list[str]]
    options: Options


@dataclass(frozen=True)
class Found:
    """How similar an answer is to each candidate: numbers and what they belong to, by group."""

    similarities: dict[str, list[float]]
    names: Mapping[str, Sequence[str]]

    def best(self, group: str) -> str:
        """The nearest candidate of a group."""
        numbers = self.similarities[group]
        return self.names[group][numbers.index(max(numbers))]


class Reading(Protocol):
    """A way of reading answers."""

    def queries(self, text: str) -> list[str]:
        """The parts of an answer that are compared."""
        ...

    def documents(self, references: References) -> list[str]:
        """The distinct texts of the references that an answer is compared with."""
        ...

    def read(self, text: str, references: References, similarity: Similarity) -> Found | None:
        """Compare an answer with the references; None if the answer has nothing to compare."""
        ...


class Whole:
    """Compares the answer as a whole, as the original does."""

    def queries(self, text: str) -> list[str]:
        """The answer itself, as the only part that is compared."""
        return [text]

    def documents(self, references: References) -> list[str]:
        """All candidates of all groups."""
        return list(dict.fromkeys(one for members in references.candidates.values() for one in members))

    def read(self, text: str, references: References, similarity: Similarity) -> Found | None:
        """Compare the answer with all candidates."""
        return Found(
            {group: list(similarity(text, members)) for group, members in references.candidates.items()},
            references.candidates,
        )


class Statement:
    """Reads what the answer's last sentences state."""

    def queries(self, text: str) -> list[str]:
        """The last sentences, the last one first, and one that declares the answer."""
        said = read_sentences(text)
        return list(dict.fromkeys([*said.last, *filter(None, [said.declared])]))

    def documents(self, references: References) -> list[str]:
        """The right and wrong texts as answers would say them, and those of further groups."""
        others = [
            one for group, members in references.texts.items() if group not in (CORRECT, WRONG) for one in members
        ]
        return list(dict.fromkeys([form for forms in references.forms.values() for form in forms] + others))

    def read(self, text: str, references: References, similarity: Similarity) -> Found | None:
        """How far the answer states each text of each group."""
        said = read_sentences(text)
        if not said.last:
            return None
        options = references.options.texts
        stated = references.options.stated(
            said, lambda sentence, at: max(similarity(sentence, references.forms[options[at]]))
        )
        by_text = dict(zip(options, stated, strict=True))
        found = {}
        for group, members in references.texts.items():
            if group in (CORRECT, WRONG):
                found[group] = [by_text[member] for member in members]
            else:
                found[group] = refusal(said.last, members, similarity, references.options)
        return Found(found, references.texts)


READINGS: Mapping[str, Reading] = {"statement": Statement(), "whole": Whole()}

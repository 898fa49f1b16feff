"""Constraints: does the answer obey instructions that a rule can check?

An item lists them in `meta.constraints`, each one of
- `{"kind": "repeat_word", "word": w, "times": k}`: w stands exactly k times in the answer, as a whole word (no
  letter, digit or underscore beside it), in upper or lower case;
- `{"kind": "end_with", "word": w}`: w is the last word of the answer, in upper or lower case. Words are separated by
  white space; punctuation and symbols after the last word, and around it, do not count;
- `{"kind": "upper_case"}`: the answer has letters, and none of them is lower case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from milepost.errors import RecordError, did_you_mean
from milepost.records import Answer, Prompt, Score
from milepost.scorers.responses import read_responses

Check = Callable[[str], bool]

_KEYS: dict[str, dict[str, type]] = {
    "repeat_word": {"word": str, "times": int},
    "end_with": {"word": str},
    "upper_case": {},
}


class Scorer:
    """Checks an answer against all constraints of its item.

    Metrics: `constraints` (the headline) is 1 if every constraint holds, `instruction` is the share that holds.
    """

    name = "constraints"
    metric = "constraints"
    metrics: tuple[str, ...] = ("constraints", "instruction")

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield 1 for an answer that obeys every constraint, 0 for any other.

        Raises:
            RecordError: An item without constraints, or with one that is unknown or incomplete.
        """
        checks = {prompt["id"]: _checks_of(prompt) for prompt in prompts}
        for response in read_responses(prompts, answers):
            text = response.text
            if text is None:
                yield response.unscored(self.metrics)
                continue
            held = [check(text) for check in checks[response.prompt["id"]]]
            score = float(all(held))
            yield response.scored(score, {"constraints": score, "instruction": sum(held) / len(held)})


def repeats_word(text: str, word: str, times: int) -> bool:
    """Whether the word stands exactly so many times in the text.

    >>> repeats_word("Tea, tea and teapots", "tea", 2)
    True
    """
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)) == times


def ends_with_word(text: str, word: str) -> bool:
    """Whether the word is the last one of the text.

    >>> ends_with_word("That is the **end**.", "End"), ends_with_word("That is a weekend", "end")
    (True, False)
    """
    words = text.split()
    while words and not _bare(words[-1]):
        words.pop()
    return bool(words) and _bare(words[-1]).casefold() == _bare(word).casefold()


def is_upper_case(text: str) -> bool:
    """Whether the text has letters, and none in lower case.

    >>> is_upper_case("ROOM 12!"), is_upper_case("Room 12!"), is_upper_case("12!")
    (True, False, False)
    """
    return any(char.isalpha() for char in text) and not any(char.islower() for char in text)


def _bare(word: str) -> str:
    """The word without what is neither letter nor digit at its ends."""
    inside = [at for at, char in enumerate(word) if char.isalnum()]
    return word[inside[0] : inside[-1] + 1] if inside else ""


def _checks_of(prompt: Prompt) -> list[Check]:
    constraints = prompt.get("meta", {}).get("constraints")
    if not isinstance(constraints, list) or not constraints:
        raise RecordError(
            f"Item {prompt['id']!r} has no constraints to check. Add `meta.constraints` to the task's data: a list with "
            f"one or more of the kinds {', '.join(_KEYS)}."
        )
    return [_check_of(prompt["id"], constraint) for constraint in constraints]


def _check_of(item: str, constraint: Any) -> Check:
    kind = constraint.get("kind") if isinstance(constraint, Mapping) else None
    if not isinstance(kind, str) or kind not in _KEYS:
        raise RecordError(
            f"Item {item!r} has a constraint of an unknown kind: {constraint!r}. Kinds: {', '.join(_KEYS)}."
            f"{did_you_mean(str(kind), _KEYS)}"
        )
    given = {key: value for key, value in constraint.items() if key != "kind"}
    wanted = _KEYS[kind]
    # bool is a kind of int in Python, but `times: true` says nothing.
    if given.keys() != wanted.keys() or any(type(given[key]) is not wanted[key] for key in wanted):
        keys = ", ".join(f"{key} ({'text' if of is str else 'whole number'})" for key, of in wanted.items())
        raise RecordError(f"Item {item!r}: the constraint {kind} takes {keys or 'nothing else'}; it has {given!r}.")
    if "word" in given and not _bare(given["word"]):
        raise RecordError(f"Item {item!r}: the constraint {kind} needs a word with letters or digits, not {given!r}.")
    if kind == "repeat_word":
        return lambda text: repeats_word(text, given["word"], given["times"])
    if kind == "end_with":
        return lambda text: ends_with_word(text, given["word"])
    return is_upper_case

"""The scorer constraints: does the answer obey instructions that a rule can check?

An item lists them in `meta.constraints`, each one of
- `{"kind": "repeat_word", "word": w, "times": k}`: w stands exactly k times in the answer;
- `{"kind": "end_with", "word": w}`: the answer ends with w;
- `{"kind": "upper_case"}`: the answer has letters, and none of them is lower case.

Words are looked for in upper and lower case, one or several in a row; text.py says what a word is: `C++` holds no `C`, `10%` no
`10`, `-5` no `5`, but `tea-tea` holds `tea` twice. Signs behind the last word do not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from milepost.errors import RecordError, did_you_mean
from milepost.records import Answer, Prompt, Score
from milepost.scorers import BaseScorer
from milepost.scorers.responses import read_responses
from milepost.statistics.metrics import Metric
from milepost.text import words

Check = Callable[[str], bool]

_COMPARES = re.compile("!=|[=<>≤≥≠≈]+")
_KEYS: dict[str, dict[str, type]] = {
    "repeat_word": {"word": str, "times": int},
    "end_with": {"word": str},
    "upper_case": {},
}


class Scorer(BaseScorer):
    """Checks an answer against all constraints of its item.

    Metrics: `constraints` (the headline) is 1 if every constraint holds, `instruction` is the share that holds.
    """

    name = "constraints"
    metrics = (Metric("constraints"), Metric("instruction"))

    def check(self, items: Sequence[Prompt]) -> None:
        """Check that every item has constraints, and that each of them can be checked."""
        for item in items:
            _checks_of(item)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield 1 for an answer that obeys every constraint, 0 for any other.

        Raises:
            RecordError: An item without constraints, or with one that is unknown or incomplete.
        """
        checks = {prompt["id"]: _checks_of(prompt) for prompt in prompts}
        for response in read_responses(prompts, answers):
            text = response.text
            if text is None:
                yield response.unscored(self.metric_names)
                continue
            held = [check(text) for check in checks[response.prompt["id"]]]
            score = float(all(held))
            yield response.scored(score, {"constraints": score, "instruction": sum(held) / len(held)})


def repeats_word(text: str, word: str, times: int) -> bool:
    """Whether the word, or several words in a row, stand exactly so many times in the text.

    >>> repeats_word("Tea, tea and teapots", "tea", 2), repeats_word("C++, not C.", "C", 1)
    (True, True)
    """
    text_words, wanted = _words_of(text, word)
    count = at = 0
    while at <= len(text_words) - len(wanted):
        here = text_words[at : at + len(wanted)] == wanted
        count += here
        at += len(wanted) if here else 1
    return count == times


def ends_with_word(text: str, word: str) -> bool:
    """Whether the word, or several words in a row, are the last ones of the text.

    >>> ends_with_word("That is the **end**.", "the end"), ends_with_word("That is a weekend", "end")
    (True, False)
    >>> ends_with_word("The answer = -5.", "-5"), ends_with_word("The answer = -5.", "5")
    (True, False)
    """
    text_words, wanted = _words_of(text, word)
    while text_words and not _is_word(text_words[-1]):
        text_words.pop()
    return text_words[-len(wanted) :] == wanted


def is_upper_case(text: str) -> bool:
    """Whether the text has letters, and none in lower case.

    >>> is_upper_case("ROOM 12!"), is_upper_case("Room 12!"), is_upper_case("12!")
    (True, False, False)
    """
    return any(char.isalpha() for char in text) and not any(char.islower() for char in text)


def _words_of(text: str, word: str) -> tuple[list[str], list[str]]:
    """The words of a text, and those that are looked for. A comparison is one word only where one is looked for."""
    text_words, wanted = words(text), words(word)
    if not any(map(_COMPARES.search, wanted)):
        text_words = [part for one in text_words for part in _COMPARES.split(one) if part]
    return text_words, wanted


def _is_word(text: str) -> bool:
    """Whether a text has letters or digits."""
    return any(map(str.isalnum, text))


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
    if "word" in given and not _is_word(given["word"]):
        raise RecordError(f"Item {item!r}: the constraint {kind} needs a word with letters or digits, not {given!r}.")
    if given.get("times", 0) < 0:
        raise RecordError(
            f"Item {item!r}: the constraint {kind} has times {given['times']}. A word stands 0 times or more."
        )
    if kind == "repeat_word":
        return lambda text: repeats_word(text, given["word"], given["times"])
    if kind == "end_with":
        return lambda text: ends_with_word(text, given["word"])
    return is_upper_case

"""Turns rows of known benchmarks into items: a question, its right answers, and wrong answers to compare with.

The data is the benchmark's own, as JSON Lines with the columns that it has on the hub; the task's `format` names which.
What counts as wrong follows A-VERT's definitions for bAbI, MMLU, MMLU-Pro, GPQA, GSM8K and BIG-Bench Hard.
"""

from __future__ import annotations

import hashlib
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

from milepost.errors import RecordError
from milepost.records import Prompt, read_records
from milepost.text import normalized

ADVICE = "Answer the question, and say why in short."
UNKNOWN = [
    "unknown",
    "it is uncertain",
    "it is impossible to know",
    "not enough information",
    "it's impossible to know",
    "don't know",
]
# bAbI's answers come from closed lists.
_PLACES = ["office", "bathroom", "hallway", "garden", "kitchen", "bedroom", "park"]
_OBJECTS = "nothing apple banana orange pineapple pear melon table milk football pajamas".split()
_LISTS: list[list[str]] = [
    ["bedroom", "kitchen", "school", "office", "cinema"],
    ["yes", "no", "maybe"],
    _PLACES,
    _OBJECTS,
    ["Fred", "Jeff", "Bill", "Mary", "Julie"],
    ["John", "Mary", "Sandra", "Daniel"],
    ["gray", "yellow", "green", "red", "blue", "pink", "white"],
    ["hungry", "thirsty", "tired", "bored"],
    ["wolf", "mouse", "cat", "sheep"],
    ["none", "one", "two", "three", "four", "five"],
]
_MOVES = ["n", "s", "e", "w"]
_BINARY = (["yes", "no"], ["true", "false"], ["valid", "invalid"], ["plausible", "implausible"])

Targets = tuple[list[str], list[str]]
"""Right answers, wrong answers."""


def read_known(path: str, form: str) -> list[Prompt]:
    """Read a benchmark's rows as items.

    Args:
        path: JSON Lines with the benchmark's own columns.
        form: Which benchmark: a key of `FORMATS`.

    Raises:
        RecordError: A row without a column that it needs, or from which no wrong answer can be made; names file and line.
    """
    items: list[Prompt] = []
    ambiguous = 0
    for number, row in enumerate(read_records(path), 1):
        try:
            item = item_of(row, form)
        except RecordError as error:
            raise RecordError(f"{path}, line {number}: {error}") from None
        choices = list(map(normalized, item.get("choices", [])))
        if len(set(choices)) < len(choices):
            ambiguous += 1
            continue
        item["id"] = str(number)
        items.append(item)
    if ambiguous:
        # Options that read alike cannot be told apart by what is said.
        print(
            f"{path}: {ambiguous} of {len(items) + ambiguous} rows with two equal options are left out.",
            file=sys.stderr,
        )
    if not items:
        raise RecordError(f"{path} holds no row that can be asked.")
    return items


def item_of(row: Mapping[str, Any], form: str) -> Prompt:
    """Turn a benchmark's row into an item, whose id is left empty.

    Raises:
        RecordError: A column that is missing, or from which no wrong answer can be made.
    """
    try:
        return FORMATS[form](row)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        what = f"has no column {error}" if isinstance(error, KeyError) else f"is not as expected: {error}"
        raise RecordError(
            f"the row {what}. With `format: {form}` the file holds the benchmark's own columns."
        ) from None


def babi_targets(task: int, question: str, target: str) -> Targets:
    """Right and wrong answers to a question of bAbI.

    Args:
        task: Its number, 1 to 20.
        question: The question, without the story.
        target: The answer.
    """
    words = question.strip().rstrip("?").strip()
    if task == 19 or "," in target:
        return _listed(target)
    members = _LISTS[0] if task == 14 else next((one for one in _LISTS[1:] if target in one), _LISTS[0])
    if target not in members:
        raise ValueError(f"the answer {target!r} is in none of bAbI's lists")
    others = [word for word in members if word != target]
    sentence = _saying(task, words.casefold(), target)
    if task == 10:
        placed = words.casefold().removeprefix("is ")
        forms = {
            "yes": f"yes, the placement: {placed}, is correct",
            "no": f"no, the placement: {placed}, is not correct",
        }
        return [forms.get(target, target)], [forms.get(word, word) for word in others] + UNKNOWN
    wrong = list(others)
    if task == 4:
        wrong += [f"the {one} and the {other}" for one, other in combinations(others, 2)] + ["there is nothing"]
    if sentence is None:
        return [target], wrong + UNKNOWN
    return [target, sentence(target)], wrong + UNKNOWN + [sentence(word) for word in wrong]


def _listed(target: str) -> Targets:
    """Right and wrong answers where the answer is a list: things carried, in any order, or the two steps of a way."""
    parts = target.split(",")
    if set(parts) <= set(_MOVES):
        ways = [f"{one},{other}" for one in _MOVES for other in _MOVES]
        return [target], [way for way in ways if way != target] + UNKNOWN
    right = [",".join(order) for order in permutations(parts)]
    things = [thing for thing in _OBJECTS if thing != "nothing"]
    pairs = [",".join(pair) for pair in combinations(things, len(parts))]
    return right, [pair for pair in pairs if sorted(pair.split(",")) != sorted(parts)] + _OBJECTS + UNKNOWN


def _saying(task: int, question: str, target: str) -> Callable[[str], str] | None:
    """A function that makes a sentence of an answer's word, where the word alone says too little; else None."""
    if task == 3 and (match := re.fullmatch(r"where was the (\w+) before the (\w+)", question)):
        thing, place = match.groups()
        return lambda word: f"the {thing} was in {word} before {place}"
    if task == 4 and (match := re.fullmatch(r"what is (\w+) of the (\w+)", question)):
        side, place = match.groups()

        def at(word: str) -> str:
            if word == "there is nothing":
                return f"there is nothing {side} of the {place}"
            plural = " and " in word
            return f"{'' if plural else 'the '}{word} {'are' if plural else 'is'} {side} of the {place}"

        return at
    if task == 5 and (match := re.fullmatch(r"what did (\w+) give to (\w+)", question)):
        giver, taker = match.groups()
        return lambda word: f"{giver} gave {'nothing' if word == 'nothing' else f'the {word}'} to {taker}"
    if task == 5 and (match := re.fullmatch(r"who (gave|received) the (\w+)(?: to (\w+))?", question)):
        verb, thing, taker = match.groups()
        return lambda word: f"{word} {verb} the {thing}{f' to {taker}' if taker else ''}"
    if task == 5 and (match := re.fullmatch(r"who did (\w+) give the (\w+) to", question)):
        giver, thing = match.groups()
        return lambda word: f"{giver} gave the {thing} to {word}"
    return None


def gsm8k_targets(answer: str) -> Targets:
    """Right and wrong answers to a question of GSM8K, whose solution ends in `#### 42`.

    >>> gsm8k_targets("6 * 7 = 42 #### 42")
    (['42'], ['4', '21', '53', '76'])
    >>> gsm8k_targets("#### 1,200")[0]
    ['1200', '1,200']
    """
    written = answer.rpartition("####")[2].strip()
    number = int(written.replace(",", ""))
    # As floor(.1n), floor(.5n), ceil(1.25n) and ceil(1.8n), without the rounding of fractions.
    near = [number // 10, number // 2, -(-5 * number // 4), -(-9 * number // 5)]
    wrong = [other for other in dict.fromkeys(near) if other != number] or [1, 2, 5, 10]
    return list(dict.fromkeys([str(number), written])), list(map(str, wrong))


def bbh_targets(target: str, choices: Sequence[str], task: str = "") -> Targets:
    """Right and wrong answers to a question of BIG-Bench Hard whose answers are a closed list.

    >>> bbh_targets("no", ["yes", "no"])
    (['no'], ['yes'])
    """
    ways_to_say = {
        "yes": ["yes", "yes, you do return to the starting point"],
        "no": ["no", "no, you don't return to the starting point"],
    }

    def forms(choice: str) -> list[str]:
        return ways_to_say.get(choice.casefold(), [choice]) if task == "navigate" else [choice]

    return forms(target), [form for choice in choices if choice != target for form in forms(choice)]


def _asked(question: str, options: Sequence[str] = ()) -> str:
    shown = "".join(f"\n{chr(ord('A') + at)}. {option}" for at, option in enumerate(options))
    return "\n\n".join([f"{question.strip()}\n{shown}" if options else question.strip(), ADVICE])


def _item(question: str, right: Sequence[str], wrong: Sequence[str], category: str | None = None) -> Prompt:
    meta: dict[str, Any] = {"wrong": list(wrong), **({} if category is None else {"category": category})}
    message = {"role": "user", "content": _asked(question)}
    return Prompt(id="", messages=[message], target=list(right), meta=meta)  # type: ignore[list-item]


def _with_options(question: str, options: Sequence[str], correct: int, category: str | None = None) -> Prompt:
    texts = [str(option).strip() for option in options]
    message = {"role": "user", "content": _asked(question, texts)}
    item = Prompt(id="", messages=[message], target=texts[correct], choices=texts)  # type: ignore[list-item]
    if category is not None:
        item["meta"] = {"category": category}
    return item


def _babi(row: Mapping[str, Any]) -> Prompt:
    task = int(str(row["task"]).removeprefix("qa"))
    story = row.get("passage", row.get("story", ""))
    right, wrong = babi_targets(task, row["question"], row["answer"])
    return _item(f"{str(story).strip()}\n\n{row['question'].strip()}", right, wrong, f"task {task}")


def _mmlu(row: Mapping[str, Any]) -> Prompt:
    return _with_options(row["question"], row["choices"], int(row["answer"]), row.get("subject"))


def _mmlu_pro(row: Mapping[str, Any]) -> Prompt:
    return _with_options(row["question"], row["options"], int(row["answer_index"]), row.get("category"))


def _gpqa(row: Mapping[str, Any]) -> Prompt:
    options = [row["Correct Answer"], *(row[f"Incorrect Answer {n}"] for n in (1, 2, 3))]
    # The same order for every checkpoint; the right one comes first in the data.
    order = list(range(4))
    random.Random(hashlib.sha256(row["Question"].encode()).digest()).shuffle(order)  # noqa: S311 (an order, no secret)
    texts = [options[at] for at in order]
    return _with_options(row["Question"], texts, order.index(0), row.get("High-level domain"))


def _gsm8k(row: Mapping[str, Any]) -> Prompt:
    return _item(row["question"], *gsm8k_targets(row["answer"]))


def _bbh(row: Mapping[str, Any]) -> Prompt:
    question, target = row["input"], row["target"].strip()
    shown, _, listed = question.partition("Options:")
    options = dict(re.findall(r"^\s*\(([A-Z])\)\s*(.+)$", listed, re.MULTILINE))
    if (found := re.fullmatch(r"\(([A-Z])\)", target)) and found[1] in options:
        return _with_options(shown, list(options.values()), list(options).index(found[1]), row.get("task"))
    listed_plain = re.findall(r"^\s*-\s*(.+)$", listed, re.MULTILINE)
    closed = next((words for words in _BINARY if target.casefold() in words), None)
    if closed is not None:
        return _item(question, *bbh_targets(target.casefold(), closed, str(row.get("task", ""))), row.get("task"))
    if target in listed_plain:
        return _item(question, *bbh_targets(target, listed_plain), row.get("task"))
    if re.fullmatch(r"-?[\d,]+", target):
        return _item(question, *gsm8k_targets(target), row.get("task"))
    raise ValueError(f"no wrong answers are known for the answer {target[:60]!r}: score this part by exact_match")


FORMATS: Mapping[str, Callable[[Mapping[str, Any]], Prompt]] = {
    "babi": _babi,
    "mmlu": _mmlu,
    "mmlu_pro": _mmlu_pro,
    "gpqa": _gpqa,
    "gsm8k": _gsm8k,
    "bbh": _bbh,
}

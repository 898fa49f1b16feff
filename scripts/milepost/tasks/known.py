"""Turns rows of known benchmarks into items: a question, and what its answers are compared with or checked against.

The data is the benchmark's own, with the columns that it has on the hub; the task's `format` names which.
What counts as wrong follows A-VERT's definitions for bAbI, MMLU, MMLU-Pro, GPQA, GSM8K and BIG-Bench Hard.
"""

from __future__ import annotations

import hashlib
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from milepost.errors import RecordError
from milepost.records import Prompt
from milepost.tasks.babi import Targets, babi_targets
from milepost.tasks.data_files import read_rows
from milepost.tasks.instructions import instruction_item
from milepost.tasks.judged import alpaca_eval_item, arena_hard_item, healthbench_item, writingbench_item
from milepost.text import normalized

ADVICE = "Answer the question, and say why in short."
# The key of an item's `meta` under which its targets stand as the original program has them, where they are others.
ORIGINAL = "original_targets"
# The key under which right answers stand that say less than the targets, in a word: only a whole answer is compared with them.
EXACT = "exact"
_BINARY = (["yes", "no"], ["true", "false"], ["valid", "invalid"], ["plausible", "implausible"])


def read_known(path: str | Path, form: str) -> list[Prompt]:
    """Read a benchmark's rows as items.

    Args:
        path: JSON Lines with the benchmark's own columns.
        form: Which benchmark: a key of `FORMATS`.

    Raises:
        RecordError: A row without a column that it needs, or from which no wrong answer can be made; names file and line.
    """
    items: list[Prompt] = []
    ambiguous = 0
    for number, row in enumerate(read_rows(path), 1):
        try:
            item = item_of(row, form)
        except RecordError as error:
            raise RecordError(f"{path}, line {number}: {error}") from None
        choices = list(map(normalized, item.get("choices", [])))
        if len(set(choices)) < len(choices):
            ambiguous += 1
            continue
        item["id"] = item["id"] or str(number)
        items.append(item)
    if ambiguous:
        # Options that read alike cannot be told apart by what is said.
        print(
            f"{path}: {ambiguous} of {len(items) + ambiguous} rows with two equal options are left out.",
            file=sys.stderr,
        )
    if not items:
        raise RecordError(f"{path} holds no row that can be asked.")
    _tell_apart(items)
    return items


def _tell_apart(items: Sequence[Prompt]) -> None:
    """Give rows with one key ids of their own. They ask for several things on the same text, so they are no independent items."""
    times = Counter(item["id"] for item in items)
    known, seen = set(times), Counter[str]()
    for item in items:
        key = item["id"]
        if times[key] == 1:
            continue
        item["meta"] = {**item.get("meta", {}), "cluster": key}
        while seen[key] and item["id"] in known:
            seen[key] += 1
            item["id"] = f"{key}.{seen[key]}"
        seen[key] = seen[key] or 1
        known.add(item["id"])


def item_of(row: Mapping[str, Any], form: str) -> Prompt:
    """Turn a benchmark's row into an item, whose id is its key, or empty where it has none.

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
    question, answer = row["question"], row["answer"]
    right, wrong = babi_targets(task, question, answer)
    item = _item(f"{str(story).strip()}\n\n{question.strip()}", right, wrong, f"task {task}")
    if answer not in right:
        item["meta"] = {**item.get("meta", {}), EXACT: [answer]}
    try:
        original = babi_targets(task, question.strip(), answer, compat=True)
    except ValueError:
        return item  # an answer that the original does not know
    if original != (right, wrong):
        # For the scorer's `compat`.
        item["meta"] = {**item.get("meta", {}), ORIGINAL: {"target": original[0], "wrong": original[1]}}
    return item


def _mmlu(row: Mapping[str, Any]) -> Prompt:
    return _with_options(row["question"], row["choices"], int(row["answer"]), row.get("subject"))


def _mmlu_pro(row: Mapping[str, Any]) -> Prompt:
    return _with_options(row["question"], row["options"], int(row["answer_index"]), row.get("category"))


def _arc(row: Mapping[str, Any]) -> Prompt:
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts and {len(labels)} labels of choices")
    question = row.get("question", row.get("question_stem"))
    return _with_options(question, texts, list(labels).index(row["answerKey"]))


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
    "arc": _arc,
    "ifeval": instruction_item,
    "ifbench": instruction_item,
    "healthbench": healthbench_item,
    "writingbench": writingbench_item,
    "arena_hard": arena_hard_item,
    "alpaca_eval": alpaca_eval_item,
}

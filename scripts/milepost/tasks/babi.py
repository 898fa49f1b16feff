"""What is right and wrong to say to a question of bAbI, as A-VERT defines it for all twenty tasks.

bAbI's answers come from closed lists: wrong are the other words of the answer's list, and six ways to say that nobody knows.
Where a word alone says too little, sentences that state it stand beside it or in its place. The original's sentences are
followed but for those that say something else than the answer, or nothing (`compat` has them as well).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations, permutations, product

UNKNOWN = [
    "unknown",
    "it is uncertain",
    "it is impossible to know",
    "not enough information",
    "it's impossible to know",
    "don't know",
]
_SIDES = ["north", "south", "east", "west"]
_WAYS = [*_SIDES, *map(" ".join, product(_SIDES, repeat=2))]
_THINGS = "nothing apple banana orange pineapple pear melon table milk football pajamas".split()
_PAIRS = [*map(",".join, combinations(_THINGS[1:], 2)), *_THINGS]
# An answer that stands in several lists is of the first of them.
_LISTS: list[list[str]] = [
    ["John", "Mary", "Sandra", "Daniel"],
    ["Jason", "Antoine", "Sumit", "Yann"],
    _THINGS,
    ["office", "bathroom", "hallway", "garden", "kitchen", "bedroom", "park"],
    ["hungry", "thirsty", "bored", "tired"],
    ["mouse", "sheep", "wolf", "cat"],
    ["Gertrude", "Winona", "Jessica", "Emily"],
    ["swan", "lion", "frog", "rhino"],
    ["gray", "white", "yellow", "green", "red", "blue", "pink"],
    ["Lily", "Bernhard", "Greg", "Julius", "Brian"],
    _WAYS,
    ["yes", "no", "maybe"],
    ["Fred", "Jeff", "Bill", "Mary", "Julie"],
    ["cinema", "bedroom", "kitchen", "school", "office"],
    ["none", "one", "two", "three", "four", "five", "six"],
    _PAIRS,
]
# The data's own way to write a path.
_LETTERS = {side[0]: side for side in _SIDES}
_NOTHING = "there is nothing"

Targets = tuple[list[str], list[str]]
"""Right answers, wrong answers."""
Say = Callable[[str], str]
"""States an answer's word as a sentence."""


def babi_targets(task: int, question: str, target: str, *, compat: bool = False) -> Targets:
    """Right and wrong answers to a question of bAbI.

    Args:
        task: Its number, 1 to 20.
        question: The question, without the story.
        target: The answer.
        compat: The original's very lists, with the sentences that say something else than the answer.

    Raises:
        ValueError: An answer that is in none of bAbI's lists, or a question that its task does not ask.

    >>> babi_targets(15, "What is gertrude afraid of?", "wolf")[0]
    ['afraid of wolf']
    """
    # The original takes off one character, whatever it is.
    asked = question.lower()[:-1] if compat else question.lower().strip().rstrip("?").strip()
    if task == 8 and "," in target:
        return _carried(target, compat=compat)
    letters = re.fullmatch("([nsew]),([nsew])", target)
    if task == 19 and letters and not compat:
        right, wrong = babi_targets(task, question, f"{_LETTERS[letters[1]]} {_LETTERS[letters[2]]}")
        return [target, *right], wrong
    others = [word for word in _list_of(target) if word != target]
    if task == 4:
        others += [f"the {one} and the {other}" for one, other in combinations(others, 2)] + [_NOTHING]
    if task == 15:
        _must_say("afraid" in asked, task, question)
        return [f"afraid of {target}"], [f"afraid of {word}" for word in others] + UNKNOWN
    if task in (10, 17):
        return _placed(asked, target, others, compat=compat)
    said = _sentences(task, asked, question, compat=compat)
    if said is None:
        return [target], others + UNKNOWN
    of_right, of_wrong = said
    return [target, of_right(target)], others + UNKNOWN + [of_wrong(word) for word in others]


def _list_of(target: str) -> list[str]:
    found = next((words for words in _LISTS if target in words), None)
    if found is None:
        raise ValueError(f"the answer {target!r} is in none of bAbI's lists")
    return found


def _must_say(holds: object, task: int, question: str) -> None:
    if not holds:
        raise ValueError(f"{question!r} is not a question of task {task}")


def _carried(target: str, *, compat: bool) -> Targets:
    """Several things, in any order. The original takes any two of three for right, and so does `compat`."""
    parts = target.split(",")
    size = 2 if compat else len(parts)
    right = [",".join(order) for order in (product(parts, repeat=2) if compat else permutations(parts))]
    if compat:
        right = [pair for pair in right if len(set(pair.split(","))) == 2]
        if not set(right) & set(_PAIRS):
            raise ValueError(f"the answer {target!r} is in none of bAbI's lists")
    larger = [",".join(some) for some in combinations(_THINGS[1:], size)] if size > 2 else []
    return right, [some for some in [*larger, *_PAIRS] if some not in right] + UNKNOWN


def _placed(asked: str, target: str, others: list[str], *, compat: bool) -> Targets:
    """Yes and no as statements on a placement. To the original, `maybe` is a no."""
    placement = asked.rsplit("is the " if "is the " in asked else "is ", maxsplit=1)[-1]
    forms = {
        "yes": f"yes, the placement: {placement}, is correct",
        "no": f"no, the placement: {placement}, is not correct",
    }
    wrong = [forms.get(word, word) for word in others]
    if target == "maybe" and not compat:
        # It is what the ways to say that nobody knows say.
        return [target], wrong
    return [forms["yes" if target == "yes" else "no"]], wrong + UNKNOWN


def _sentences(task: int, asked: str, question: str, *, compat: bool) -> tuple[Say, Say] | None:
    """What states a right answer and a wrong one; None where the word says enough."""
    if task == 3:
        found = re.fullmatch(r".*where was the (.+) before the (.+)", asked)
        _must_say(found, task, question)
        thing, place = found.groups() if found else ("", "")
        return (lambda word: f"the {thing} was in {word} before {place}",) * 2
    if task == 4:
        return _directions(asked, question, compat=compat)
    if task == 5:
        return (_giving(asked, question, compat=compat),) * 2
    if task == 19:
        found = re.fullmatch(r".*how do you go from the (.+) to the (.+)", asked)
        _must_say(found, task, question)
        start, end = found.groups() if found else ("", "")

        def walk(way: str) -> str:
            first, _, then = way.partition(" ")
            steps = f"you first go {first} and then {then}" if then else f"you need to go {first}"
            return f"to go from the {start} to the {end} {steps}"

        return walk, walk
    return None


def _directions(asked: str, question: str, *, compat: bool) -> tuple[Say, Say]:
    if found := re.fullmatch(r".*what is the (\w+) (\w+) of", asked):
        thing, side = found.groups()

        def lies(word: str) -> str:
            if word == _NOTHING and not compat:
                return f"there is nothing that the {thing} is {side} of"
            return f"{thing} is {side} of {word}"

        return (lambda word: f"the {thing} is {side} of the {word}"), lies
    found = re.fullmatch(r".*what is (.+) of the (.+)", asked)
    _must_say(found, 4, question)
    side, place = found.groups() if found else ("", "")

    def at(word: str) -> str:
        if word == _NOTHING and not compat:
            return f"there is nothing {side} of the {place}"
        return f"{word} are {side} of the {place}" if " and the " in word else f"the {word} is {side} of the {place}"

    return at, at


def _giving(asked: str, question: str, *, compat: bool) -> Say:
    if found := re.fullmatch(r".*what did (.+) give to (.+)", asked):
        giver, taker = found.groups()
        return lambda word: (
            f"{giver} gave {'nothing' if word == 'nothing' and not compat else f'the {word}'} to {taker}"
        )
    if found := re.fullmatch(r".*who gave the (.+?)(?: to (.+))?", asked):
        thing, taker = found.groups()
        return lambda word: f"{word} gave the {thing}{f' to {taker}' if taker else ''}"
    if found := re.fullmatch(r".*who did (.+) give the (.+) to", asked):
        giver, thing = found.groups()
        if compat:
            return lambda word: f"{word} gave the {thing} to {giver}"
        return lambda word: f"{giver} gave the {thing} to {word}"
    found = re.fullmatch(r".*who received the (.+)", asked)
    _must_say(found, 5, question)
    thing = found[1] if found else ""
    return lambda word: f"{word} received the {thing}"

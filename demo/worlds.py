"""The small worlds of the demo: what its model is taught, and the questions held out to evaluate it.

Each of the four tasks has one function that draws an example. The held-out items are drawn first, from a stream of
their own; the training stream then draws from the same function and drops whatever shares its `key` with a held-out
item. Everything follows from seeds: the same items on every machine, whatever the seed of the training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

# A number of two digits and one of one digit: the sum needs a carry in half of the cases.
FIRST_OPERANDS = range(10, 90)
SECOND_OPERANDS = range(1, 10)

PEOPLE = ["Ada", "Ben", "Dan", "Eva", "Finn", "Hana", "Kim", "Leo"]
PLACES = ["kitchen", "garden", "school", "office", "station", "library", "park", "museum"]
MOVES = ["{person} entered the {place}.", "{person} reached the {place}.", "{person} visited the {place}."]
WHEREABOUTS = [
    "{person} is in the {place}.",
    "You will find {person} in the {place}.",
    "The {place} is where {person} is.",
    "Look for {person} in the {place}.",
]

# Invented words: a word held out has been read nowhere, while its syllables are known from others.
SYLLABLES = [consonant + vowel for consonant in "bdkmnrtz" for vowel in "aeiou"]
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
CONSTRAINTS = {
    "repeat": ["Say {word} {number} times", "Repeat the word {word} {number} times"],
    "end": ["Tell me about the {topic} and end with the word {word}", "Describe the {topic} with {word} as last word"],
    "plain": ["Tell me about {word}", "What do you know about {word}"],
}
UPPER = ["In capital letters: {request}.", "Use upper case only. {request}."]
TOPICS = {
    "sea": "The sea is calm and wide",
    "moon": "The moon is far and bright",
    "forest": "The forest is dark and old",
    "city": "The city is loud and new",
    "winter": "The winter is cold and long",
    "summer": "The summer is hot and dry",
}

COLOURS = {
    "yellow": ["lemon", "banana", "canary", "sunflower", "duckling", "cornflake"],
    "red": ["tomato", "cherry", "strawberry", "ruby", "brick", "ladybird"],
    "green": ["frog", "cucumber", "cactus", "pickle", "lime", "cricket"],
    "blue": ["sapphire", "cornflower", "kingfisher", "bluebell", "blueberry"],
    "white": ["swan", "snowman", "pearl", "lily", "snowdrop", "egg"],
    "black": ["raven", "panther", "crow", "tyre", "blackbird", "bat"],
    "orange": ["carrot", "pumpkin", "tangerine", "apricot", "goldfish", "fox"],
    "brown": ["chestnut", "walnut", "acorn", "coconut", "potato", "beaver"],
    "grey": ["elephant", "mouse", "donkey", "dolphin", "seal", "koala"],
    "pink": ["flamingo", "piglet", "salmon", "prawn"],
}
COLOUR_QUESTIONS = [
    "What colour is {thing}?",
    "Which colour does {thing} have?",
    "Tell me the colour of {thing}.",
    "Name the colour of {thing}.",
    "What is the usual colour of {thing}?",
    "Say the colour that {thing} has.",
    "If I paint {thing}, which colour do I need?",
    "Picture {thing}. Which colour do you see?",
]


@dataclass(frozen=True)
class Example:
    """A question with one good answer, and what an evaluation of it needs.

    Attributes:
        question: The user's message.
        answer: What the model is taught to say.
        key: What is held out: no training example shares it with a held-out item.
        fields: `target`, `choices` and `meta` of the item's record.
    """

    question: str
    answer: str
    key: Hashable
    fields: Mapping[str, Any] = field(default_factory=dict)


def draw_sum(rng: Random) -> Example:
    """Two numbers to add."""
    a, b = rng.choice(FIRST_OPERANDS), rng.choice(SECOND_OPERANDS)
    question = rng.choice(["What is {a} + {b}?", "Add {a} and {b}."]).format(a=a, b=b)
    return Example(question, str(a + b), (a, b), {"target": str(a + b), "meta": {"operands": [a, b]}})


def draw_where(rng: Random) -> Example:
    """A story of one or two people who move about, and where one of them is at its end, said in one of four ways."""
    people = rng.sample(PEOPLE, rng.choice([1, 1, 2]))
    places = rng.sample(PLACES, rng.randint(2, 4))
    movers = people + rng.choices(people, k=len(places) - len(people))
    rng.shuffle(movers)
    moves = list(zip(movers, places, strict=True))
    story = " ".join(rng.choice(MOVES).format(person=person, place=place) for person, place in moves)
    person = rng.choice(people)
    place = dict(moves)[person]  # a later move replaces an earlier one
    paraphrases = [form.format(person=person, place=place) for form in WHEREABOUTS]
    meta = {"person": person, "people": len(people), "moves": len(moves), "paraphrases": paraphrases}
    # The verbs are no part of the key: a story told in other words is no new story.
    return Example(
        f"Story: {story} Where is {person}?",
        rng.choice(paraphrases),
        (tuple(moves), person),
        {"target": place, "choices": PLACES, "meta": meta},
    )


def draw_constraints(rng: Random) -> Example:
    """An instruction whose obedience a rule can check: repeat a word, end with it, use upper case, or two of these."""
    kind = rng.choice(["repeat", "repeat", "end", "end", "plain"])
    word = rng.choice(SYLLABLES) + rng.choice(SYLLABLES)
    times = rng.choice(list(NUMBERS))
    topic = rng.choice(list(TOPICS))
    request = rng.choice(CONSTRAINTS[kind]).format(word=word, number=NUMBERS[times], topic=topic)
    answer = {
        "repeat": "Sure:" + f" {word}" * times,
        "end": f"{TOPICS[topic]} {word}",
        "plain": f"I have never heard of {word}",
    }[kind]
    checks_of: dict[str, list[dict[str, Any]]] = {
        "repeat": [{"kind": "repeat_word", "word": word, "times": times}],
        "end": [{"kind": "end_with", "word": word}],
        "plain": [],
    }
    checks = checks_of[kind]
    # A plain request has nothing to check but its case.
    if kind == "plain" or rng.random() < 0.4:
        request = rng.choice(UPPER).format(request=request)
        answer = answer.upper()
        checks.append({"kind": "upper_case"})
    else:
        request += "."
    return Example(request, answer, word, {"meta": {"word": word, "constraints": checks}})


def draw_colour(rng: Random) -> Example:
    """The colour of a thing; what is held out is a thing in one way of asking."""
    colour, thing = rng.choice([(colour, thing) for colour, things in COLOURS.items() for thing in things])
    form = rng.choice(COLOUR_QUESTIONS)
    article = "an" if thing[0] in "aeiou" else "a"
    return Example(form.format(thing=f"{article} {thing}"), colour, (form, thing), {"target": colour})


DRAWS: dict[str, Callable[[Random], Example]] = {
    "sums": draw_sum,
    "where": draw_where,
    "constraints": draw_constraints,
    "colours": draw_colour,
}
HELD_OUT = {"sums": 100, "where": 100, "constraints": 100, "colours": 50}


@cache
def held_out(task: str) -> tuple[Example, ...]:
    """The examples that evaluate a task: distinct keys, the same on every machine."""
    rng = Random(f"held out: {task}")  # noqa: S311
    examples: dict[Hashable, Example] = {}
    while len(examples) < HELD_OUT[task]:
        example = DRAWS[task](rng)
        examples.setdefault(example.key, example)
    return tuple(examples.values())


def training_examples(task: str, seed: int) -> Iterator[Example]:
    """An endless stream of examples to train on, none of which shares its key with a held-out one."""
    kept_back = {example.key for example in held_out(task)}
    rng = Random(f"training: {task}, {seed}")  # noqa: S311
    while True:
        example = DRAWS[task](rng)
        if example.key not in kept_back:
            yield example


def items(task: str) -> list[dict[str, Any]]:
    """The held-out examples of a native task as records of its prompts.

    >>> items("sums")[0]["id"]
    'sums-000'
    """
    return [
        {"id": f"{task}-{number:03d}", "messages": [{"role": "user", "content": example.question}], **example.fields}
        for number, example in enumerate(held_out(task))
    ]


def harness_documents(task: str) -> list[dict[str, str]]:
    """The held-out examples as rows for lm-evaluation-harness, whose YAML names the columns."""
    return [
        {"id": f"{task}-{number:03d}", "question": example.question, "target": example.answer}
        for number, example in enumerate(held_out(task))
    ]


def write_items(folder: Path) -> None:
    """Write the held-out items of all tasks as JSON Lines; each file appears whole, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in DRAWS:
        records = harness_documents(task) if task == "colours" else items(task)
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        target = folder / f"{task}.jsonl"
        # A file that is already right keeps its date: nothing that depends on it has to run again.
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        beside = folder / f".{task}.jsonl.{os.getpid()}"
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)

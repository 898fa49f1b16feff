"""Labelled answers for benchmarks/validity.py: read, or generated here."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PLACES = ["kitchen", "garden", "office", "hallway", "bathroom", "bedroom"]

Sayings = Mapping[str, tuple[str, ...]]
"""Ways of saying an answer, by name."""


@dataclass(frozen=True)
class Labelled:
    """One answer and whether it is right."""

    text: str
    options: list[str]
    correct: int
    label: bool
    cluster: str
    group: str
    """What R² is taken over: model and category; of generated answers, the way of saying it."""
    question: str


def read_easy(folder: Path, view: str) -> tuple[list[Labelled], int]:
    """The labelled answers in one view, and how many have no text in it."""
    spec = importlib.util.spec_from_file_location("views", folder / "views.py")
    assert spec is not None
    assert spec.loader is not None
    views = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(views)
    found, blank = [], 0
    for path in sorted(folder.glob("auto_eval-*.json")):
        model = path.stem.removeprefix("auto_eval-")
        questions = {row["index"]: row["question"] for row in json.loads(path.read_text()).values()}
        for row in views.read(path):
            if not row[view].strip():
                blank += 1
                continue
            group, asked = f"{model} {row['category']}", row["question"]
            found.append(
                Labelled(row[view], row["options"], row["correct"], row["label"], str(asked), group, questions[asked])
            )
    return found, blank


SAYINGS: Sayings = {
    "word": ("{said}", "{said}."),
    "sentence": ("{who} is in the {said}.", "You will find {who} in the {said}."),
    "corrected": ("At first {who} was in the {other}. Then {who} went to the {said}, and is there now.",),
    "concluded": (
        "{who} went to the {other}.\n{who} then went to the {said}.\nNobody else went to the {other}.\n\n"
        "Therefore, the answer is the {said}.",
    ),
    "first": ("The {said}. {who} went there last, after leaving the {other}.",),
    "ruled out": ("{who} is in the {said}, not in the {other}.", "Not in the {other}: {who} is in the {said}."),
}
WRONG_SAYINGS: Sayings = {
    "refusal": ("I am sorry, but I cannot say where {who} is.", "It is not possible to know where {who} is."),
    "either": ("{who} is in the {right} or in the {other}.", "The {other} or the {right}."),
    "denied": ("{who} is not in the {right}.", "The {right} is not where {who} is."),
}


OTHER_SAYINGS: Sayings = {
    "word": ("It's the {said}", "{said}!"),
    "sentence": ("Right now, {who} can be found in the {said}.", "I believe that the {said} is where {who} is."),
    "corrected": (
        "I first thought of the {other}. But the last move was to the {said}.",
        "{who} left the {other} and entered the {said}.",
    ),
    "concluded": (
        "Step 1: {who} enters the {other}.\nStep 2: {who} leaves it for the {said}.\n\nFinal answer: {said}",
        "Before, there was a visit to the {other}. That was over soon.\nThis means that {who} is in the {said}.",
    ),
    "first": (
        "In the {said}. That is the last place that the story names; the {other} came before.",
        "Answer: {said}\n\nExplanation: {who} went there from the {other}.",
    ),
    "ruled out": (
        "It can't be the {other}, so it must be the {said}.",
        "{who} has left the {other} and is no longer there; look in the {said}.",
    ),
}
OTHER_WRONG_SAYINGS: Sayings = {
    "refusal": ("The story does not tell.", "As a language model, I have no idea where {who} might be."),
    "either": ("Either the {right} or the {other}.", "Could be the {other}, could be the {right}."),
    "denied": ("Anywhere but the {right}.", "{who} has left the {right}."),
}


def make_places(
    sayings: Sayings = SAYINGS, wrong_sayings: Sayings = WRONG_SAYINGS, seed: int = 0, items: int = 40
) -> Iterator[Labelled]:
    """Answers about who is where, right and wrong ones."""
    draw = random.Random(seed)  # noqa: S311 (a draw of items, no secret)
    for item in range(items):
        right, wrong, other = draw.sample(PLACES, 3)
        who = draw.choice(["Mary", "John", "Sandra", "Daniel"])
        options = draw.sample(PLACES, len(PLACES))
        for label, said in ((True, right), (False, wrong)):
            for name, forms in sayings.items():
                text = draw.choice(forms).format(who=who, said=said, other=other)
                yield Labelled(text, options, options.index(right), label, str(item), name, f"Where is {who}?")
        for name, forms in wrong_sayings.items():
            text = draw.choice(forms).format(who=who, right=right, other=other)
            yield Labelled(text, options, options.index(right), False, str(item), name, f"Where is {who}?")


# Questions of several kinds, each with its options, the right one first.
QUESTIONS: tuple[tuple[str, tuple[str, str, str, str]], ...] = (
    ("Which planet is the largest?", ("Jupiter", "Mars", "Venus", "Saturn")),
    ("How many eggs are in the box?", ("8", "3", "12", "18")),
    ("How many pages did she read?", ("forty-two", "twenty-four", "forty", "two")),
    ("Who wrote the letter?", ("Jane Porter", "Mark Hill", "Jane Hill", "the postman")),
    ("Can penguins fly?", ("No", "Yes", "Only at night", "Only the young ones")),
    ("How long was the trip?", ("1.5 hours", "2 hours", "15 minutes", "150 minutes")),
    ("What happens to the ice?", ("It melts", "It freezes", "It turns to stone", "Nothing happens to it")),
    ("Why is the lamp dark?", ("the power is cut", "the bulb is broken", "somebody switched it off", "it is painted")),
    ("What is the balance?", ("-4", "4", "14", "40")),
    ("Where does the cat sleep?", ("on the sofa", "under the bed", "in the kitchen", "on the roof")),
    ("What should the driver do?", ("stop the car", "turn left", "turn right", "drive on")),
    ("What did it cost?", ("$1,250", "$125", "$12.50", "$1,520")),
)
# How models of other kinds write. These were looked at while the rules of `statement` were written.
STYLES: Sayings = {
    "markdown": (
        "**Answer: {L}) {said}**",
        "### Solution\n\nLet's go through it.\n\n**Final answer:** {said}",
        "The correct answer is **{L}**.",
        "- Some thoughts on {other}\n- More thoughts\n\n*{said}*",
    ),
    "boxed": (
        "We have \\(x\\) and compare.\n\n\\[\n\\boxed{{\\text{{{L}}}}}\n\\]",
        "Hence $\\boxed{{{said}}}$.",
        "The final answer is: $\\boxed{{{L}}}$. I hope it is correct.",
    ),
    "letter": (
        "Answer: {L})",
        "{l})",
        "I would go with option ({l}).",
        "So it must be {L}.",
        "option {l} is the right one",
        "({L})",
        "My choice is {L}, as explained above.",
        '{{"reasoning": "It is not {other}.", "answer": "{L}"}}',
    ),
    "explained": (
        "The answer is {L}. {said}\n\nExplanation: at first one may think of {other}. But that does not follow from what "
        "is said. The question mentions something else. One reads too quickly. And {other} would need more facts. Such "
        "puzzles play on that.",
        "The final answer is {said}. This is because {other} would mean something else entirely, and the facts point the "
        "other way. People often say {other}.",
        "{said}.\n\nReasoning:\n1. We look at what is given.\n2. {other} is what many would say.\n3. It is a trap.",
    ),
    "eliminated": (
        "Let's eliminate options:\n{eliminated}\nThat is how I see it.",
        "It cannot be {other}, since that does not fit. {said} remains.",
        "Options:\n{marked}",
        "Rather than {other}, it is {said}.",
        "{said}, not {other}.",
    ),
    "polite": (
        "The answer is {said}. Let me know if you have any other questions!",
        "I think it's {said}. I hope this helps! Would you like me to explain why it is not {other}?",
        "{L}. {said}\n\nFeel free to ask if you need more details.",
    ),
    "corrected": (
        "The answer is {other}. Wait, I misread that. The answer is {said}.",
        "{other}? No, {said}.",
        "At first glance {other} looks right. Actually, it is {said}.",
    ),
    "quoted": (
        "Die richtige Antwort ist „{said}“.",
        "La réponse est « {said} ».",
        "答え：「{said}」",  # noqa: RUF001 (so models write)
        "It is ‘{said}’.",  # noqa: RUF001 (so models write)
    ),
}
WRONG_STYLES: Sayings = {
    "refusal": (
        "There isn't enough information to answer this.",
        "I'm sorry, I can't help with that question.",
        "That is not stated anywhere.",
        "The answer is unclear from the text.",
    ),
    "either": (
        "It is either {right} or {other}.",
        "Maybe {right}. Or maybe {other}.",
        "The answer might be {R} or {O}.",
        "Both {right} and {other} are possible.",
        "I am torn between {other} and {right}.",
    ),
    "denied": (
        "It is definitely not {right}.",
        "Everything except {right}.",
        "{right} can be ruled out.",
        "Option {R} is incorrect.",
        "{right} - wrong.",
        "The one thing that it isn't is {right}.",
    ),
}


def make_styles(
    questions: Sequence[tuple[str, tuple[str, ...]]] = QUESTIONS,
    styles: Sayings = STYLES,
    wrong_styles: Sayings = WRONG_STYLES,
    seed: int = 0,
) -> Iterator[Labelled]:
    """Answers to questions of several kinds in several styles, each form of each style once for each question."""
    draw = random.Random(seed)  # noqa: S311 (a draw of items, no secret)
    for question, (right, *wrong) in questions:
        options = draw.sample([right, *wrong], len(wrong) + 1)
        for label in (True, False):
            for name, forms in (styles if label else {**styles, **wrong_styles}).items():
                for form in forms:
                    said = right if label or name in wrong_styles else draw.choice(wrong)
                    other = draw.choice([one for one in wrong if one != said])
                    text = form.format(**_places(options, right, said, other))
                    yield Labelled(text, options, options.index(right), label, question, name, question)


def _places(options: Sequence[str], right: str, said: str, other: str) -> dict[str, str]:
    """What stands in the places of a form."""
    letter = {option: chr(ord("A") + at) for at, option in enumerate(options)}
    judged = {option: "✅" if option == said else "❌" for option in options}
    because = {option: "this fits" if option == said else "this does not fit" for option in options}
    return {
        **{"said": said, "other": other, "right": right},
        **{"L": letter[said], "l": letter[said].lower(), "O": letter[other], "R": letter[right]},
        "marked": "\n".join(f"{letter[option]}) {option} {judged[option]}" for option in options),
        "table": "\n".join(f"| {letter[option]}) {option} | {because[option]} |" for option in options),
        "checked": "\n".join(f"{letter[option]}. {option} {judged[option]}" for option in options),
        "eliminated": "\n".join(f"- **{letter[option]}** ({option}): {because[option]}" for option in options),
    }


# The second lot: measured once before they were looked at (docs/validity.md), and then looked at, too.
MORE_QUESTIONS: tuple[tuple[str, tuple[str, str, str, str]], ...] = (
    ("What is the capital of Australia?", ("Canberra", "Sydney", "Melbourne", "Perth")),
    ("How many legs do three spiders have?", ("24", "18", "8", "32")),
    ("What is 7 minus 12?", ("-5", "5", "19", "-19")),
    ("Who came in second?", ("Tom", "Anna", "Tom's brother", "nobody")),
    ("When does the shop open?", ("at 9:30", "at 9:00", "at 10:30", "on Mondays only")),
    ("Is a whale a fish?", ("No, it is a mammal", "Yes, it is a fish", "No, it is a reptile", "It depends")),
    ("What made the alarm ring?", ("smoke from the toaster", "a burglar", "an earthquake", "a broken sensor")),
    ("How much of the cake is left?", ("one quarter", "a half", "three quarters", "nothing")),
    ("Which metal is liquid?", ("mercury", "iron", "lead", "copper")),
    ("What should she wear?", ("a warm coat", "a light coat", "sandals", "a swimsuit")),
)
MORE_STYLES: Sayings = {
    "plain": (
        "{said}",
        "I'd say {said}.",
        "That would be {said}, if I am not mistaken.",
        "After thinking about it, {said} seems most plausible.",
    ),
    "letter": (
        "{L}",
        "**{L}.** {said}",
        "Choice {L} is what I'd pick.",
        "Correct option: ({L})",
        "ANSWER = {L}",
        "Only {L} holds up.",
        "[{L}]",
        "It's {l}.",
    ),
    "latex": (
        "$$\\boxed{{{said}}}$$",
        "Thus the answer is $\\textbf{{({L})}}$ {said}.",
        "\\[ \\text{{Answer}} = \\boxed{{\\mathrm{{{L}}}}} \\]",
    ),
    "argued": (
        "Let me think step by step. First, {other} comes to mind. However, that overlooks a detail. Taking that detail into "
        "account, we arrive at {said}.",
        "## Answer\n{said}\n\n## Why not {other}?\nBecause the facts do not support it. Also, it would contradict what we "
        "were told. It is a common error. Many people fall for {other}.",
        "Many would answer {other}, but they would be wrong; {said} is right.",
        "Although {other} is tempting, I'm settling on {said}. Note that this relies on common knowledge.",
    ),
    "table": (
        "| Option | Verdict |\n|---|---|\n{table}\n",
        "Going through them one by one:\n{checked}\n\nSo there is just one that works.",
    ),
    "chatty": (
        "Great question! The answer is {said}. Is there anything else you'd like to know?",
        "Sure! {said} 😊 If you want, I can explain it in more detail.",
        "{said}. Hope that clears it up! Have a nice day.",
    ),
    "revised": (
        "My first guess was {other}, but on reflection it's {said}.",
        "I'd answer {other}. Hmm, no — {said} is better.",
        "Answer: {other}\n\nCorrection: Answer: {said}",
    ),
}
MORE_WRONG_STYLES: Sayings = {
    "refusal": (
        "I don't think anyone could answer that from the text alone.",
        "Without more context it's anyone's guess.",
        "As an AI language model, I can't make that judgement.",
        "No answer can be given here.",
    ),
    "either": (
        "{right}, or perhaps {other}.",
        "It's a coin flip between {other} and {right}.",
        "{R} or {O}, I can't decide.",
        "Depending on how one reads it, {other} or {right}.",
    ),
    "denied": (
        "Certainly not {right}.",
        "{right} is out of the question.",
        "I would exclude {right}.",
        "{R} doesn't work.",
        "You might think {right}, but that's a mistake.",
    ),
}

# The third: measured once before any look at it. One rule was changed after that: letters that stand alone.
UNSEEN_QUESTIONS: tuple[tuple[str, tuple[str, str, str, str]], ...] = (
    ("What colour is the door?", ("green", "red", "blue", "light blue")),
    ("How many minutes are in two hours?", ("120", "60", "100", "200")),
    ("What is half of minus six?", ("-3", "3", "-12", "12")),
    ("Who plays the violin?", ("the younger sister", "the older sister", "the mother", "no one")),
    (
        "Why was the train late?",
        ("There was snow on the tracks", "The driver was ill", "A signal failed", "It was not late"),
    ),
    ("Which of these is heaviest?", ("a kilogram of feathers and a nail", "a kilogram of iron", "a nail", "a feather")),
    ("Where did they meet?", ("at the station", "at the airport", "in a cafe", "in front of the station")),
    ("How likely is it?", ("25%", "50%", "75%", "5%")),
    ("Does it rain?", ("Yes", "No", "Only in the north", "Only in the evening")),
    ("What comes next in the row?", ("thirty-one", "thirteen", "thirty", "twenty-nine")),
)
UNSEEN_STYLES: Sayings = {
    "plain": ("It has to be {said}.", "My answer would be: {said}", "Clearly {said}.", "<answer>{said}</answer>"),
    "letter": (
        "The right choice here is ({L}).",
        "Letter {L}",
        "{L} – {said}",  # noqa: RUF001 (so models write)
        "=> {L}",
        "Final Answer: Option {L}",
        "The best of the four is {L}, because it matches the description.",
    ),
    "latex": ("\\(\\boxed{{{L}}}\\)", "So, \\[ \\boxed{{\\text{{{said}}}}} \\] as was to be shown."),
    "argued": (
        "**Short answer:** {said}\n\n**Long answer:** One could argue for {other}. Yet a closer look shows a gap in that "
        "argument. The wording is what matters. In such cases {other} would need to be mentioned. It is not.",
        "{other} was my first thought. But then I noticed the wording. With it in mind, only {said} makes sense.",
        "Comparing {other} and {said}, the latter is supported by the facts.",
        "We can dismiss {other} right away. That leaves us with {said}.",
        "To conclude: {said}. (Not {other}, as one might expect.)",
    ),
    "list": (
        "1. {other}: no\n2. {said}: yes",
        "Pros and cons:\n* {other} – contradicts the text\n* {said} – in line with the text\n\nHence {said}.",  # noqa: RUF001 (so models write)
    ),
    "chatty": (
        "Happy to help! I believe it is {said}. Do you have another one for me?",
        "Okay, so... {said}! That was fun.",
        "The answer: {said}. I'm fairly confident, but feel free to double-check.",
    ),
}
UNSEEN_WRONG_STYLES: Sayings = {
    "refusal": (
        "Nothing in the question lets us decide that.",
        "I do not have access to that kind of information.",
        "Sorry, I have to pass on this one.",
    ),
    "either": (
        "Possibly {right}, possibly {other}.",
        "I see good reasons for {right} and equally good ones for {other}.",
        "Option {O} or option {R}.",
    ),
    "denied": (
        "The answer is anything other than {right}.",
        "I am sure that {right} is false.",
        "{R} is definitely wrong.",
        "No way it's {right}.",
    ),
}


def generated() -> dict[str, list[Labelled]]:
    """All that is generated, by name."""
    return {
        "places": list(make_places()),
        "places, in other words": list(make_places(OTHER_SAYINGS, OTHER_WRONG_SAYINGS)),
        "styles": [*make_styles(), *make_styles(MORE_QUESTIONS, MORE_STYLES, MORE_WRONG_STYLES)],
        "styles, unseen": list(make_styles(UNSEEN_QUESTIONS, UNSEEN_STYLES, UNSEEN_WRONG_STYLES)),
    }

"""Readers of the forms in which judges are asked for verdicts: rubrics in JSON, labels in brackets, single letters.

Each reads one verdict or none. `compat` reads as the original program does where that differs by a fault of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from milepost.judges.objects import find_objects, number_of, value_of
from milepost.judges.plain import object_standing, unfenced
from milepost.judges.verdict import ChatReply, Reader, Verdict, only, unreadable
from milepost.reasoning import strip_reasoning

# Of Arena-Hard: by how much one side is better, written from either side.
PREFERENCES = ("A>>B", "A>B", "A=B", "B>A", "B>>A", "B<<A", "B<A", "B=A", "A<B", "A<<B")
_DENIED = re.compile(
    r"(?:\b(?:not|never|cannot|neither)|n['\u2019]t|\brather\s+than|\binstead\s+of)(?:\W+\w+){0,3}\W*$", re.IGNORECASE
)
_WEIGHED = re.compile(r"\W{0,6}(?:if|would|unless)\b", re.IGNORECASE)
# A line that names one letter as the better one.
_CHOICE = re.compile(
    r"(?:(?:so|therefore|thus|hence|overall|finally),?\s+)?"
    r"(?:(?:(?:the|my)\s+)?(?:(?:final|best|better|preferred)\s+)*(?:model|output|response|answer|verdict|choice|preference)?(?:\s+identifier)?\s*(?:is|:|=)?\s*(?:model\s+|output\s+)?(?P<one>[{0}])|"
    r"i\s+(?:prefer|choose|pick|select)\s+(?:model\s+|output\s+|response\s+)?(?P<two>[{0}])|"
    r"(?:model\s+|output\s+)?(?P<three>[{0}])\s+is\s+(?:(?:clearly|much|slightly)\s+)?(?:better|best|preferred)(?:\s+than\s+(?:model\s+|output\s+)?[{0}])?)",
    re.IGNORECASE,
)
_TIE = re.compile(r"(?:it\s+is\s+|it['\u2019]s\s+)?(?:an?\s+)?(?:tie|draw)", re.IGNORECASE)


def of_text(read: Callable[[str], Verdict]) -> Reader:
    """A reader of replies, made of one of texts: the reasoning is cut off first, and one that does not end is unreadable."""

    def reads(reply: ChatReply) -> Verdict:
        text, unclosed = strip_reasoning(reply["content"])
        if unclosed:
            return unreadable("the reasoning does not end")
        return read(text) if text.strip() else unreadable("the reply is empty")

    return reads


def read_number(text: str, low: float, high: float, *, key: str = "score", explained: str | None = "reason") -> Verdict:
    """The number under a key of the one JSON object that a reply gives.

    Args:
        text: The reply, without its reasoning.
        low: The lowest number that is a verdict, and
        high: the highest.
        key: Under which it stands.
        explained: Under which the judge has to give its reason; None if it need not.

    >>> read_number('{"score": 7, "reason": "clear"}', 1, 10)
    Verdict(value=7.0, explanation='clear', problem=None)
    >>> read_number('{"score": 11, "reason": "clear"}', 1, 10).problem
    'score is not a number from 1 to 10: 11'
    """

    def value(said: Any) -> float | None:
        number = number_of(said)
        return number if number is not None and low <= number <= high else None

    return _read_object(text, key, explained, value, f"a number from {low:g} to {high:g}")


def read_boolean(text: str, *, key: str = "criteria_met", explained: str | None = "explanation") -> Verdict:
    """The truth value under a key of the one JSON object that a reply gives.

    >>> read_boolean('{"criteria_met": true, "explanation": "named"}').value
    True
    >>> read_boolean('{"criteria_met": "Met", "explanation": "named"}').problem
    "criteria_met is not true or false: 'Met'"
    """
    return _read_object(text, key, explained, lambda said: said if isinstance(said, bool) else None, "true or false")


def read_label(text: str, labels: Sequence[str] = ("A", "B", "C")) -> Verdict:
    """The one label in double brackets: [[A]]. Two different ones are no verdict.

    >>> read_label("Assistant A is better: [[A]]").value, read_label("[[A]] or [[B]]").problem
    ('A', 'the reply contradicts itself: A, B')
    """
    labelled = [match for match in re.finditer(r"\[\[\s*([^\[\]\s]{1,20})\s*\]\]", text) if match[1].upper() in labels]
    given = [(match[1].upper(), match[1]) for match in labelled if _is_given(text, match)]
    if labelled and not given:
        return unreadable(f"no verdict is plainly given: {labelled[0][0]}")
    if not labelled:
        return unreadable(f"none of the labels {', '.join(f'[[{label}]]' for label in labels)} in the reply")
    return only(given)


def read_preference(text: str) -> Verdict:
    """By how much one side is better: the last label in double brackets, else the last in single ones.

    What the last brackets hold must be a label: an earlier one is what the judge has thought before.

    >>> read_preference("[[A>B]] at first, but finally [[B>A]]").value
    'B>A'
    >>> read_preference("[[=]]").problem
    "the last label is none of A>>B, A>B, A=B, B>A, B>>A: '='"
    """
    text = text.upper()
    for form in (r"\[\[([AB<>=]+)\]\]", r"\[([AB<>=]+)\]"):
        if labelled := list(re.finditer(form, text)):
            last = labelled[-1]
            if last[1] not in PREFERENCES:
                return unreadable(f"the last label is none of {', '.join(PREFERENCES[:5])}: {last[1][:20]!r}")
            return Verdict(last[1]) if _is_given(text, last) else unreadable(f"no verdict is plainly given: {last[0]}")
    return unreadable(f"none of the labels {', '.join(f'[[{label}]]' for label in PREFERENCES[:5])} in the reply")


def read_letter(text: str, letters: str = "mM", *, compat: bool = False) -> Verdict:
    """The letter of the side that a reply prefers, or `tie`; letters of both cases are two letters.

    Args:
        text: The reply, without its reasoning.
        letters: The letter of each side.
        compat: Take the first letter that stands alone anywhere, as llm-eval-framework does.

    >>> read_letter("I prefer m").value, read_letter("I'm not sure").value, read_letter("m or M: M").value
    ('m', None, None)
    """
    if compat:
        if match := re.search(rf"\b([{letters}])\b", text):
            return Verdict(match[1])
        tie = re.search(r"\b(tie|equal|both|same)\b", text, re.IGNORECASE)
        return Verdict("tie") if tie else unreadable("no letter in the reply")
    choice = re.compile(_CHOICE.pattern.replace("{0}", letters), re.IGNORECASE)
    given: list[tuple[float | bool | str, str]] = []
    for line in re.split(r"\n+|(?<=[.!?])\s+", text):
        bare = line.strip(" \t*_`\"'.!()[]\u201c\u201d")
        match = choice.fullmatch(bare)
        letter = next((part for part in match.groups() if part), None) if match else None
        if letter is not None and letter in letters:
            given.append((letter, letter))
        elif _TIE.fullmatch(bare):
            given.append(("tie", bare))
    if not given:
        return unreadable(f"neither {' nor '.join(letters)} is plainly given")
    return only(given)


def share_of(logprobs: Sequence[dict[str, float]], letters: str = "mM") -> float | None:
    """The probability of the first of two letters where only the two are possible; None if it cannot be told.

    Args:
        logprobs: Alternatives of each token of the reply, with their log-probabilities.
        letters: The two letters.

    A letter that is not among the alternatives is taken to be as probable as the least of them, as in alpaca_eval.

    >>> round(share_of([{"m": -0.1, "M": -2.4}]), 3)
    0.909
    >>> share_of([{"The": -0.1}]) is None
    True
    """
    if not logprobs or not logprobs[0]:
        return None
    # Of the reply's first token: what comes after it is another question.
    first = logprobs[0]
    known = {letter: [value for token, value in first.items() if token.strip() == letter] for letter in letters}
    if not any(known.values()):
        return None
    least = min(first.values())
    weights = [math.fsum(map(math.exp, known[letter] or [least])) for letter in letters]
    return weights[0] / sum(weights) if sum(weights) else None


def read_share(letters: str = "mM") -> Reader:
    """A reader of how probable the first letter is: from log-probabilities where the judge gives them, else 1, .5 or 0."""

    def reads(reply: ChatReply) -> Verdict:
        share = share_of(reply.get("logprobs", []), letters)
        if share is not None:
            return Verdict(share)
        read = of_text(lambda text: read_letter(text, letters))(reply)
        values = {letters[0]: 1.0, letters[1]: 0.0, "tie": 0.5}
        return Verdict(values[str(read.value)], read.explanation) if read.value is not None else read

    return reads


def _read_object(text: str, key: str, explained: str | None, value: Callable[[Any], Any], what: str) -> Verdict:
    text = unfenced(text)
    given: list[tuple[float | bool | str, str]] = []
    reason: str | None = None
    spoken_of = False
    for reply_object in find_objects(text):
        entries = value_of(reply_object.content, key)
        if not entries:
            continue
        standing = object_standing(text, reply_object.begin, reply_object.end)
        if standing == "dismissed":
            spoken_of = True
            continue
        if standing == "unclear":
            return unreadable(f"no verdict is plainly given: {text[reply_object.begin : reply_object.end][:60]}")
        if explained is not None:
            explanations = value_of(reply_object.content, explained)
            if not explanations or not isinstance(explanations[0], str):
                return unreadable(f"{key} stands without a text under {explained}")
            reason = reason or explanations[0].strip() or None
        for entry in entries:
            verdict = value(entry)
            if verdict is None:
                return unreadable(f"{key} is not {what}: {entry!r}"[:200], reason)
            given.append((verdict, f"{entry}"))
    if not given:
        return unreadable("no verdict is plainly given" if spoken_of else f"no JSON object with {key} in the reply")
    return only(given, reason)


def _is_given(text: str, match: re.Match[str]) -> bool:
    """Whether a label is not denied or weighed by the words around it."""
    before, after = text[max(0, match.start() - 60) : match.start()], text[match.end() : match.end() + 20]
    clause = re.split(r"[.,;:!?\n]|\b(?:but|so|thus|hence|therefore)\b", before, flags=re.IGNORECASE)[-1]
    return not _DENIED.search(clause) and not _WEIGHED.match(after)

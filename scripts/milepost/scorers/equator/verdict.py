"""What an evaluator's reply says: right (100), wrong (0), or nothing that can be read.

Every score in the reply counts, and all must agree: a reply that contradicts itself is no verdict. Anything but 0 and
100 is none either. `compat` reads as the original does, faults included.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from milepost.reasoning import strip_reasoning

Compat = Literal["extract_strings", "equator_classes"]

RIGHT, WRONG = 100, 0
# The keys under which evaluators put their score.
_KEYS = ("score", "grade")
_EXPLAINED = ("evaluation", "explanation", "reason")
_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:%|/\s*(\d+)|\s+out\s+of\s+(\d+))?\s*", re.IGNORECASE)
# "Score: 100", "a score of **0%**", "Grade: A (100%)", "You received a score of 0 out of 10", "$\boxed{100}$".
_SAID = re.compile(
    r"(?:\b(?:score|grade)d?\b[^\w\n-]{0,8}(?:\b(?:assigned|given|is|of|be|as|at)\b[^\w\n-]{0,8}){0,3}(?:[A-F][^\w\n-]{1,3})?"
    r"|\\boxed\{\s*)"
    r"(-?\d+(?:\.\d+)?\s*(?:%|/\s*\d+|\s*out\s+of\s+\d+)?)",
    re.IGNORECASE,
)
# What turns a score that is named into none that is given: "does not earn a score of 100", "a score of 0 or 100".
_CLAUSE = re.compile(r"[.,;:!?\n]|\b(?:and|but|so|thus|hence|therefore|because|since|as)\b", re.IGNORECASE)
_BEFORE = re.compile(
    r"\b(?:not|cannot|never|no|nor|neither|instead|if|unless|rather|either)\b|n['\u2019]t\b", re.IGNORECASE
)
_AFTER = re.compile(
    r"\W{0,4}(?:would|could|should|if|or|to|unless|only|cannot|(?:is|was)(?:\s+not|n['\u2019]t))\b", re.IGNORECASE
)
_BARE = re.compile(r"[^\w-]*(-?\d+\s*%?)[^\w]*")

# The forms that the original (equator-qa 0.0.7, MIT) tries one after the other, without those that an earlier one always
# forestalls. The first of its two lists has the last three as well.
_COMPAT_FORMS = (
    r'"score"\s*:\s*(\d+)',
    r"'score':\s*(\d+)",
    r"'grade':\s*(\d+)",
    r"Grade:\s*(\d+)",
    r"score\s*is\s*(\d+)%",
    r"score\s*of\s*\*\*(\d+)%\*\*",
    r"the\s*score\s*assigned\s*is\s*(\d+)%",
    r"Grade:\s*A\s*\(\s*(\d+)%\)",
    r"Grade:\s*F\s*\(\s*(\d+)/\d+\)",
    r"\*\*Grade:\*\*\s*(\d+)/\d+",
    r"\*\*Grade:\*\*\s*F\s*\(\s*(\d+)/\d+\)",
    r"Grade:\s*\*\*(\d+)/\d+\*\*",
    r"Grade:\s*F\s*\(\s*(\d+)\s*out\s*of\s*\d+\)",
    r"You\s*received\s*a\s*score\s*of\s*(\d+)\s*out\s*of\s*\d+",
    r"\*\*(\d+)/100\s*score\*\*",
    r"would\s*earn\s*a\s*score\s*of\s*(\d+)",
    r"return\s*a\s*score\s*of\s*(\d+)",
)
_COMPAT: dict[str, tuple[str, ...]] = {
    "equator_classes": _COMPAT_FORMS,
    "extract_strings": (
        *_COMPAT_FORMS,
        r"\$\\boxed{([^}]+)}\$",
        r'"student_answer"\s*:\s*"([^"]+)"',
        r"'student_answer'\s*:\s*'([^']+)'",
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What a reply says.

    Attributes:
        score: 100 or 0 (with `compat`, any whole number); None if it cannot be read.
        evaluation: The evaluator's explanation, if it gave one where it was asked for.
        problem: Why there is no score.
    """

    score: int | None
    evaluation: str | None = None
    problem: str | None = None


def read_verdict(reply: str, compat: Compat | None = None) -> Verdict:
    """Read the verdict in an evaluator's reply.

    Args:
        reply: What the evaluator wrote, its reasoning trace included.
        compat: Read as one of the original's two lists of patterns does.

    >>> read_verdict('{"evaluation": "It matches.", "score": 100}')
    Verdict(score=100, evaluation='It matches.', problem=None)
    >>> read_verdict("Score: 100, no, the score is 0").problem
    'the reply contradicts itself: 100, 0'
    >>> read_verdict("Grade: 7/10").problem
    'the score is neither 0 nor 100: 7/10'
    """
    if compat is not None:
        return _read_as_the_original(reply, compat)
    text, unclosed = strip_reasoning(reply)
    if unclosed:
        return Verdict(None, problem="the reasoning does not end")
    objects, rest = _split_objects(text)
    evaluation = next(filter(None, map(_explanation, objects)), None)
    found = [value for one in objects for key, value in one.items() if str(key).strip().lower() in _KEYS]
    found += [match[1].strip() if _is_given(match) else match[0].strip() for match in _SAID.finditer(rest)]
    if not found and (bare := _BARE.fullmatch(rest)):
        found = [bare[1]]
    if not found:
        return Verdict(None, evaluation, "no score in the reply" if text.strip() else "the reply is empty")
    scores = list(dict.fromkeys(map(_percent, found)))
    if len(scores) > 1:
        return Verdict(None, evaluation, f"the reply contradicts itself: {', '.join(str(one)[:40] for one in found)}")
    if scores[0] not in (RIGHT, WRONG):
        return Verdict(None, evaluation, f"the score is neither 0 nor 100: {str(found[0])[:40]}")
    return Verdict(int(scores[0]), evaluation)


def _is_given(match: re.Match[str]) -> bool:
    """Whether a score is given, not denied, weighed or asked for."""
    before, after = match.string[: match.start()], match.string[match.end() :]
    return not _BEFORE.search(_CLAUSE.split(before)[-1]) and not _AFTER.match(after)


def _read_as_the_original(reply: str, compat: Compat) -> Verdict:
    for form in _COMPAT[compat]:
        match = re.search(form, reply, re.IGNORECASE)
        if match:
            try:
                return Verdict(int(match[1]))
            except ValueError:
                # The original ends here with an exception.
                return Verdict(None, problem=f"not a number: {match[1][:40]}")
    return Verdict(None, problem="no score in the reply")


def _split_objects(text: str) -> tuple[list[dict[Any, Any]], str]:
    """The outermost objects in a text, as JSON or as Python writes a dictionary, and the text around them."""
    objects, rest, at = [], [], 0
    for begin, end, found in _objects(text):
        objects.append(found)
        rest.append(text[at:begin])
        at = end
    return objects, " ".join([*rest, text[at:]])


def _objects(text: str) -> Iterator[tuple[int, int, dict[Any, Any]]]:
    decoder, at = json.JSONDecoder(strict=False, object_pairs_hook=_joined), 0
    while (begin := text.find("{", at)) >= 0:
        at = begin + 1
        try:
            found, end = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            match = re.compile(r"\{[^{}]*\}").match(text, begin)
            if match is None:
                continue
            end = match.end()
            try:
                found = ast.literal_eval(match[0])
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
        if isinstance(found, dict):
            yield begin, end, found
            at = end


def _joined(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands twice with two values has both, so that neither is taken for its word."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = [found[key], value] if key in found and found[key] != value else value
    return found


def _explanation(found: dict[Any, Any]) -> str | None:
    said = (found.get(key) for key in _EXPLAINED)
    return next((text.strip() for text in said if isinstance(text, str) and text.strip()), None)


def _percent(value: Any) -> float | str:
    """A score in per cent; anything that is no number stays as it was written.

    >>> _percent("0/10"), _percent("100%"), _percent(100.0), _percent(True)
    (0.0, 100.0, 100.0, 'True')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return str(value)
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match is None:
            return value
        total = match[2] or match[3]
        if total:
            return 100 * float(match[1]) / float(total) if float(total) else value
        return float(match[1])
    try:
        number = float(value)
    except OverflowError:
        return str(value)[:40]
    return number if math.isfinite(number) else str(value)

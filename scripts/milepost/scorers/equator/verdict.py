"""What an evaluator's reply says: right (100), wrong (0), or nothing that can be read.

Every score that the reply plainly gives counts, and all must agree: a reply that contradicts itself is no verdict.
Anything but 0 and 100 is none either. `compat` reads as the original does, faults included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from milepost.judges.objects import find_objects, text_of, value_of
from milepost.judges.plain import HOLE, Standing, find_scores, object_standing, unfenced
from milepost.reasoning import strip_reasoning

Compat = Literal["extract_strings", "equator_classes"]

RIGHT, WRONG = 100, 0
# The keys under which evaluators put their score.
_KEYS = ("score", "grade")
_EXPLAINED = ("evaluation", "explanation", "reason")
_NUMBER = re.compile(
    r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*(?:%|percent|/\s*([0-9]+(?:\.[0-9]+)?)|\s+out\s+of\s+([0-9]+))?\s*", re.IGNORECASE
)
_BARE = re.compile(r"[^\w-]*(-?[0-9]+\s*%?)[^\w]*")
# An object that is none, because quotation marks within its texts are not escaped: its score is its first or last entry.
_BROKEN = re.compile(
    r"\{\s*[\"'](?:score|grade)[\"']\s*:\s*[\"']?([0-9]+%?)[\"']?\s*,[^{}]*\}|\{[^{}]*,\s*[\"'](?:score|grade)[\"']\s*:\s*[\"']?([0-9]+%?)[\"']?\s*\}",
    re.IGNORECASE,
)

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
class EvaluatorReading:
    """What a reply says.

    Attributes:
        score: 100 or 0 (with `compat`, any whole number); None if it cannot be read.
        evaluation: The evaluator's explanation, if it gave one where it was asked for.
        problem: Why there is no score.
    """

    score: int | None
    evaluation: str | None = None
    problem: str | None = None


def read_verdict(reply: str, compat: Compat | None = None) -> EvaluatorReading:
    """Read the verdict in an evaluator's reply.

    Args:
        reply: What the evaluator wrote, its reasoning trace included.
        compat: Read as one of the original's two lists of patterns does.

    >>> read_verdict('{"evaluation": "It matches.", "score": 100}')
    EvaluatorReading(score=100, evaluation='It matches.', problem=None)
    >>> read_verdict("Score: 100, no, the score is 0").problem
    'the reply contradicts itself: 100, 0'
    >>> read_verdict("Grade: 7/10").problem
    'the score is neither 0 nor 100: 7/10'
    >>> read_verdict("A correct answer earns a score of 100. This is incorrect.").problem
    'neither 0 nor 100 is plainly given: 100'
    """
    if compat is not None:
        return _read_as_the_original(reply, compat)
    text, unclosed = strip_reasoning(reply)
    if unclosed:
        return EvaluatorReading(None, problem="the reasoning does not end")
    evaluation, named = _find(unfenced(text))
    if not named and (bare := _BARE.fullmatch(text)):
        named = [("given", bare[1])]
    given = [words for standing, words in named if standing == "given"]
    # A score that may have been given is none, and contradicts another one.
    counted = [words for standing, words in named if standing != "dismissed"]
    if not given:
        if named:
            shown = _said([words for _, words in named])
            return EvaluatorReading(None, evaluation, f"neither {WRONG} nor {RIGHT} is plainly given: {shown}")
        return EvaluatorReading(None, evaluation, "no score in the reply" if text.strip() else "the reply is empty")
    if len(set(map(_percent, counted))) > 1:
        return EvaluatorReading(None, evaluation, f"the reply contradicts itself: {_said(counted)}")
    score = _percent(given[0])
    if score not in (RIGHT, WRONG):
        return EvaluatorReading(None, evaluation, f"the score is neither {WRONG} nor {RIGHT}: {_said(given[:1])}")
    return EvaluatorReading(int(score), evaluation)


def _said(words: Iterable[Any]) -> str:
    return ", ".join(str(one)[:40] for one in words)


def _find(text: str) -> tuple[str | None, list[tuple[Standing, Any]]]:
    """The explanation in a reply, and every score that it names, with how it stands there."""
    evaluation, prose, at = None, "", 0
    named: list[tuple[int, Standing, Any]] = []
    for reply_object in find_objects(text):
        standing = object_standing(text, reply_object.begin, reply_object.end)
        if standing != "dismissed":
            evaluation = evaluation or text_of(reply_object.content, *_EXPLAINED)
        named += [(reply_object.begin, standing, score) for score in value_of(reply_object.content, *_KEYS)]
        prose += text[at : reply_object.begin] + HOLE
        at = reply_object.end
    prose += text[at:]
    broken = _BROKEN.fullmatch(prose.strip())
    if broken and len(re.findall("score|grade", prose, re.IGNORECASE)) == 1:
        named.append((0, "given", broken[1] or broken[2]))
    else:
        named += [(len(text), mention.standing, mention.words.strip()) for mention in find_scores(prose)]
    return evaluation, [(standing, words) for _, standing, words in sorted(named, key=lambda one: one[0])]


def _read_as_the_original(reply: str, compat: Compat) -> EvaluatorReading:
    for form in _COMPAT[compat]:
        match = re.search(form, reply, re.IGNORECASE)
        if match:
            try:
                return EvaluatorReading(int(match[1]))
            except ValueError:
                # The original ends here with an exception.
                return EvaluatorReading(None, problem=f"not a number: {match[1][:40]}")
    return EvaluatorReading(None, problem="no score in the reply")


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

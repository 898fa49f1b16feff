"""Finds out which of the things that a sentence names are ruled out by its denials."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from milepost.scorers.avert.sentences import lower

_DENIES = re.compile(
    r"\b(?:not|never|no|cannot|\w+n't|neither|nor|none|incorrect|wrong|eliminat\w+|false|invalid|untrue|fails?|"
    r"impossible|unnecessary|without|unlikely|implausible|exclud\w+|rul(?:e|es|ed|ing) (?:\w+ )?out|dismiss\w*|reject\w*|"
    r"discard\w*|cross(?:ed)? (?:\w+ )?out|out of the question|hardly|doubt\w*|far from|fall(?:s|ing)? for|mistak\w+|"
    r"misconceptions?|misleading|tempting|trap)\b"
)
# Phrases that only sound like a denial.
_AFFIRMS = re.compile(
    r"\b(?:no|without(?: a| any)?|not a|beyond(?: a| any)?) (?:doubt|question|wonder)\b|\bnot (?:only|just|merely)\b|"
    r"\b(?:nothing|no one|nobody|none) (?:other than|but)\b|\bno other\b"
)
# Denials of the one option that follows, and of nothing else.
_DENIES_NEXT = re.compile(
    r"\b(?:not|rather than|instead of|except(?: for)?|other than|apart from|aside from|besides|unlike|no longer|"
    r"(?:has|have|had|just|already) left|left|leaves|leaving|than)(?:\s+(?:in|at|on|to|by|for|with|from|option|answer|"
    r"choice|the|a|an))*\s*[\"'(\[]*$"
)
# What says of a list that follows that it was not chosen, and what stands between it and each entry.
_OTHERS = re.compile(r"\b(?:other|remaining|rest of the) (?:options|choices|answers)\b")
_LISTED = re.compile(r"(?:[\s,(:&]|\b(?:and|or|options?|such as|like)\b)*")
# A clause that passes judgement on what the one before it names.
_JUDGES = re.compile(
    r"^\W*(?:(?:and|but|so|as|which|that|this|it|would be|is|was|are|'s|an?|also|clearly|obviously|therefore)\b\W*)*"
    r"(?:(?:incorrect|wrong|mistake|error|trap|misleading|false|invalid|eliminated|ruled out|excluded|impossible|unlikely|"
    r"not (?:correct|right|possible|true|it|the answer))\b|(?:isn't|wasn't) (?:correct|right|possible|true|it|the answer)\b|(?:does not|doesn't|cannot|can't|"
    r"do not|don't) (?:fit|work|match|apply|make sense|be (?:right|correct|true|it))\b|(?:no|not)\W*$)"
)
_CLAUSE = re.compile(
    r"[,;:](?!\d)|[.!?]\s|\((?!\w\))|(?<!\(\w)\)(?!\s*\w)|\s[-\u2013\u2014]+\s|"
    r"\b(?:but|because|so|since|as|while|although|however|though|that|which|who|where)\b"
)
# Before an option that a sentence equates with something: "the only one that does not fit is B" rules nothing out.
_EQUATES = re.compile(
    r"(?<!\bnot )(?<!\bnever )(?<!\bcannot )(?<!n't )(?<!\bto )\b(?:is|are|was|were|be)\s+(?:\w+ly\s+)?"
    r"(?:(?:the|a|an|option|answer|choice)\s+)*[\"'(\[]*$"
)


def denies(text: str) -> bool:
    """Whether a text denies anything.

    >>> denies("She is not there."), denies("No doubt that she is there.")
    (True, False)
    """
    return bool(_find_denials(lower(text)))


def ruled_out(text: str, places: Sequence[tuple[int, int]], denying: Sequence[bool]) -> list[bool]:
    """Whether a sentence rules out what it names, for each place.

    Args:
        text: The sentence, in lower case.
        places: The characters [begin, end) of each place, in order.
        denying: Whether it is a text that denies something by itself: such a one is not ruled out by its own words.
    """
    starts = [0]
    for split in _CLAUSE.finditer(text):
        if re.search(r"\w", text[starts[-1] : split.start()]):
            starts.append(split.start())
    starts.append(len(text))
    clauses = [bisect_right(starts, end - 1) - 1 for _, end in places]
    next_denied = [bool(_DENIES_NEXT.search(text[:begin])) for begin, _ in places]
    # Denials that are left when those of a single option are taken out, and the options themselves.
    left = text
    for (begin, end), taken in zip(places, next_denied, strict=True):
        match = _DENIES_NEXT.search(left[:begin]) if taken else None
        first = match.start() if match else begin
        left = left[:first] + "," * (end - first) + left[end:]
    others = _OTHERS.search(text)
    found = []
    for place, clause in enumerate(clauses):
        begin, end = places[place]
        own = [at for at, other in zip(places, clauses, strict=True) if other == clause]
        start = min(starts[clause], begin)
        denials = [start + match.start() for match in _find_denials(left[start : starts[clause + 1]])]
        if next_denied[place] or (others and begin > others.end() and _LISTED.fullmatch(left[others.end() : begin])):
            denied = True
        elif denying[place] and denials:
            denied = False
        elif denials:
            # Behind some options and before others, a denial is of those behind it.
            before = any(denial < begin for denial in denials) and not _EQUATES.search(text[:begin])
            denied = before or (max(denials) >= end and all(other <= max(denials) for _, other in own))
        else:
            following = next((starts[other] for other in clauses if other > clause), len(text))
            denied = (begin, end) == own[-1] and bool(_JUDGES.search(text[starts[clause + 1] : following]))
        found.append(denied)
    return found


def _find_denials(text: str) -> list[re.Match[str]]:
    return list(_DENIES.finditer(_AFFIRMS.sub(lambda match: " " * len(match[0]), text)))

r"""Where a reply plainly gives a verdict, and where it only speaks of one.

A judge that explains itself speaks of verdicts that it does not give: it quotes the text under judgement, repeats the
rules, says what it would have taken. So each place at which a verdict is named has a *standing*. It is `given` where the
words have the form of a verdict that is given; `dismissed` where they plainly speak of another (a condition, a denial,
a quotation, a rule, an example); and `unclear` otherwise. What is dismissed does not count. What is unclear is no
verdict, and contradicts any other one: the judge is asked again rather than guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Standing = Literal["given", "dismissed", "unclear"]

_COLONS = ":\uff1a"
_ENDS = ".!?;}\u3002\uff01\uff1f\uff1b"

# What stands where something was taken out: no form of a verdict contains it.
HOLE = "\u2026"
# How many characters before and after a verdict are looked at.
NEAR, FAR = 600, 4000
MOST = 100  # scores that one sentence may name
# A number as a score: "100", "0%", "7/10", "10 out of 10", "100 points"; what goes on after it would be another one.
NUMBER = (
    r"(?P<number>[-+\u2212\u2013]?[0-9]+(?:\.[0-9]+)?(?:\s*%|\s*percent\b|\s*/\s*[0-9]+(?:\.[0-9]+)?|\s+out\s+of\s+[0-9]+)?)"
    r"(?:\s*(?:points?|marks?)\b)?(?![\w%/]|[.,:][0-9]|\s*[-\u2013\u2014]\s*[0-9]|\s*(?:or|to|vs|versus|percent|von|sur|de)\b)"
)
_WORD = r"(?:scores?|grades?|marks?|verdict|rating)"
_OF = r"(?:\s*(?:\(\s*)?(?:out\s+of|of|/)\s*100\b\s*\)?|\s*\(\s*(?:0\s*(?:-|\u2013|to|or|/)\s*100|0-100%?)\s*\))?"
_OWN = r"(?:(?:the|my|this|its|his|her|their|your|final|overall|total|assigned|resulting|corresponding|student['\u2019]?s|answer['\u2019]?s|response['\u2019]?s)\s+){0,4}"
_WHOSE = (
    r"(?:(?:therefore|thus|hence|accordingly)\s+)?(?:(?:i\s+)?(?:assigned|given|awarded|earned|assign|give)\s+)?"
    r"(?:(?:for|of|to)\s+(?:the|this|his|her|their|your)\s+(?:student['\u2019]?s?\s+)?(?:final\s+)?(?:student|answer|response|submission)\s+)?"
)
_THUS = r"(?:(?:therefore|thus|hence|accordingly|clearly|simply|only)\s+){0,2}"
_LETTER = r"(?:(?P<letter>[A-F])[+-]?\s*(?=\())?\(?\s*"
_SUBJECT = (
    r"(?:(?:the|this|that|his|her|your|its|their)\s+(?:student['\u2019]?s?\s+)?(?:final\s+)?(?:answer|response|submission|student)|"
    r"it|this|you|he|she|they|i|we)\s+"
)
_VALUE = rf"{_LETTER}\[?['\"\u201c]?{NUMBER}['\"\u201d]?\]?\)?"
# Where a clause may begin.
_BEGIN = r"(?:^|(?<=[,:(])\s*|(?<=\s)[-\u2013\u2014]\s+|\b(?:so|and|but|thus|therefore|hence|accordingly|consequently|overall|finally)\b,?\s+)"
# The forms in which a score is given, each as the whole of a clause.
_FORMS = [
    re.compile(rf"{_BEGIN}(?P<form>(?:i\s+(?:think|believe|conclude|find|judge)\s+(?:that\s+)?)?{form})", re.IGNORECASE)
    for form in (
        # "Score: 100", "Final grade (0-100) = 0"
        rf"{_OWN}{_WORD}{_OF}\s*(?:[:=]|\s[-\u2013\u2014]\s|\s)\s*{_VALUE}",
        # "the score is therefore 0", "my verdict for this answer must be 100"
        rf"{_OWN}{_WORD}{_OF}\s+{_WHOSE}(?:is|was|must\s+be|has\s+to\s+be)\s*:?\s*{_THUS}(?:an?\s+|exactly\s+)?{_VALUE}",
        # "I give this answer a score of 0", "we assign 100"
        rf"(?:(?:i|we)\s+)(?:will\s+|must\s+|have\s+to\s+|hereby\s+|am\s+|can\s+only\s+)?{_THUS}"
        r"(?:give|assign|award|grade|score|mark|rate|giving|assigning|awarding)\s+"
        r"(?:(?:it|this|that|him|her|them|you|the|your|student['\u2019]?s?|final|answer|response|submission)\s+){0,5}"
        rf"(?:with\s+)?(?:an?\s+|the\s+)?(?:final\s+)?(?:{_WORD}\s+)?(?:of\s+|as\s+|at\s+|:\s*)?{_VALUE}",
        # "The answer earns a score of 0", "gets a score of 0%", "is given a grade of 100"
        rf"(?:{_SUBJECT})?{_THUS}(?:receives?|received|gets?|got|earns?|earned|deserves?|merits|"
        rf"(?:is|was|has\s+been)\s+(?:given|awarded|assigned|marked)|has\s+(?:earned|received))\s+(?:an?\s+|the\s+)?(?:final\s+)?{_WORD}\s*(?:of|:)\s*{_VALUE}",
        # "is graded 0"
        rf"{_SUBJECT}{_THUS}(?:is|was)\s+(?:scored|graded|marked|rated)\s+(?:as\s+|with\s+|at\s+)?(?:an?\s+)?{_VALUE}",
    )
]
_BOXED = re.compile(r"\$?\\boxed\{\s*(-?[0-9]+(?:\.[0-9]+)?\s*\\?%?)\s*\}\$?")
# Where it may end.
_END = re.compile(
    r"\s*(?:[.!;,]?\s*$|\)\s*[.!]?\s*$|,?\s+(?:because|since|as|due\s+to|given\s+that|for\s+(?:the|this|that|his|her|its|your|being|having|saying|giving))\b|\s*\(|\s+[-\u2013\u2014]\s|"
    r",?\s+(?:and\s+not|not|rather\s+than|instead\s+of)\s+[0-9]+%?\s*[.!]?\s*$)",
    re.IGNORECASE,
)
# A score that is named, in whatever words.
_NAMED = re.compile(
    rf"\b{_WORD}d?\b[^.!?\n{HOLE}]{{0,40}}?(?<![\w.,])(?P<number>[-+\u2212\u2013]?[0-9]+(?:\.[0-9]+)?(?:\s*%|/[0-9]+)?)",
    re.IGNORECASE,
)

_IF = re.compile(
    r"\b(?:if|unless|whether|would|could|might|may|suppose|supposing|assuming|provided|otherwise|in\s+case|were\s+it|"
    r"had\s+(?:he|she|it|they|you|the)|whenever|when\s+(?:an?|the)\s+\w+)\b|['\u2019]d\s+(?:be|get|give|have)\b",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"\b(?:not|cannot|never|no|nor|neither|instead|rather|without|refuse|hardly|wrongly|incorrectly)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_NOT_THAT = re.compile(
    r"(?:\b(?:not|never|cannot)|n['\u2019]t)\b(?:\s+\w+){0,3}\s+(?:that|whether)\b|"
    r"\b(?:doubt|deny|disagree|wrong|false|untrue|incorrect|mistaken|pretend)\w*\s+(?:that|to\s+(?:say|claim|give|assign))\b",
    re.IGNORECASE,
)
_TOLD = re.compile(
    r"\b(?:say|says|said|saying|write|writes|wrote|written|writing|state[sd]?|stating|claim\w*|assert\w*|argu\w+|insist\w*|ask|asks|asked|asking|"
    r"demand\w*|request\w*|want\w*|tell|tells|told|telling|suggest\w*|believe\w*|think|thinks|thought|expect\w*|quot\w+|beg|begs|begged|"
    r"instruct\w*|repl(?:y|ies|ied)|contain\w*|includ\w+|propos\w+|mention\w*|pretend\w*|try|tries|trying|tried|inject\w*|"
    r"according\s+to|allegedly|supposedly|in\s+the\s+(?:words|text|answer|response)|reads?)\b",
    re.IGNORECASE,
)
# What is told after a colon goes on to the end of its sentence, whatever follows from what in it.
_TOLD_SO = re.compile(rf"(?:{_TOLD.pattern})\s*:", re.IGNORECASE)
_MINE = re.compile(r"^\W*(?:i|we)\s+(?:\w+\s+)?(?:say|think|believe|state|conclude|reply|ask)\b", re.IGNORECASE)
_RULE = re.compile(
    r"\b(?:examples?|e\.g|formats?|templates?|for\s+instance|such\s+as|scales?|criteri(?:a|on)|rubrics?|rules?|"
    r"possible|options?|range|expected|desired|requested|required|sample|target|previous\s+version|max(?:imum)?|min(?:imum)?|highest|lowest|between|means?|either|placeholder|previous|earlier|"
    r"schema|should\s+(?:look|be)|must\s+be\s+(?:either|one|in))\b|"
    r"(?:^|\b(?:for|to|when|that|where)\s+)(?:an?|any|every|each|all|only|no|such|other|correct|right|wrong|incorrect|matching|full|partial)\s",
    re.IGNORECASE,
)
_RESULT = re.compile(
    r"[,;]\s*(?:and\s+)?(?:so|therefore|thus|hence|but|however|accordingly|consequently)\b", re.IGNORECASE
)
_CLAUSE = re.compile(r"[.,;:!?\n]|\b(?:and|but|so|thus|hence|therefore|because|since|as)\b", re.IGNORECASE)
_TAIL = re.compile(
    r"\b(?:if|unless|provided|assuming|otherwise|in\s+case|or|says?\s+so|only\s+when|demand\w*|request\w*|asks?|asked|told|instruct\w*)\b",
    re.IGNORECASE,
)
# A sentence that takes back what stood before it.
_ANAPHOR = r"(?:that|this|it|which|the\s+(?:above|line|object|json|text|score|verdict|grade)(?:\s+above)?)"
_BACK = re.compile(
    r"^\W*(?:(?:but|and|or)\s+)?(?:no\b\W*(?:$|[,.!])|wait\b|hold\s+on\b|scratch\b|correction\b|edit\b|update[ds]?\b|actually\b|sorry\b|oops\b|"
    r"on\s+(?:second\s+thought|reflection)|just\s+kidding|i\s+(?:take|change|revise|retract|withdraw|was\s+wrong|made\s+a\s+mistake|misread)\b|"
    r"my\s+(?:mistake|bad|apologies)\b|let\s+me\s+(?:re|correct|change)|(?:ignore|disregard|forget)\b|"
    rf"{_ANAPHOR}\s*(?:is|was|['\u2019]s|would\s+be|should\s+be|came|comes|stood|stands)\s+"
    r"(?:(?:not|only|just|merely|exactly|probably)\s+)*"
    r"(?:what\b|how\b|written|quot\w+|copied|taken|claimed|said|the\s+student|from\s+the|in\s+the|part\s+of\s+the|ignored?\b|nonsense\b|fake\b|invalid\b|"
    r"an?\s+(?:quot|example|injection|fake|trick|joke|instruction)\w*|(?:my|the|an?)\s+(?:real\s+|final\s+|actual\s+)?(?:verdict|score|grade|judge?ment)\b)|"
    rf"{_ANAPHOR}\s+(?:isn|wasn|does|do|did)['\u2019]?(?:n['\u2019])?t\s+(?:my|the|an?|what|count|apply)\b|"
    r"not\s+(?:really|my|that|deserved|justified|valid|earned)\b|the\s+student\s+(?:wrote|said|claims?|asks?|wants)\s+(?:that|this|so|it)\b)",
    re.IGNORECASE,
)
# After full marks, this takes them back; after none, it explains them.
_WRONG = re.compile(
    rf"^\W*(?:but\s+)?{_ANAPHOR}\s*(?:(?:is|was|['\u2019]s)\s+(?:\w+\s+)?(?:wrong|incorrect|false|untrue|not\s+(?:right|correct|true))|(?:isn|wasn)['\u2019]?t\s+(?:right|correct|true))\b",
    re.IGNORECASE,
)
# How a clause before a verdict may begin: others ("once corrected, ...", and those of other languages) are conditions, for
# all that can be seen from here.
_LEADS = re.compile(
    r"^\W*(?:since|because|given|based\s+on|considering|after|overall|finally|in\s+(?:conclusion|summary|short|total|the\s+end)|therefore|thus|hence|"
    r"consequently|accordingly|as\s+a\s+result|so|and|but|however|yet|for\s+(?:this|that)\s+reason|the|both|it|this|that|these|they|he|she|his|her|their|"
    r"its|your|you|i|we|my|student|answer|yes|no|correct|incorrect|right|wrong|also|although|though|while|despite|score|grade|verdict|[0-9]+)\b",
    re.IGNORECASE,
)
_LABELS = frozenset(
    "verdict result results score scores grade grades mark marks evaluation judgement judgment output json reply conclusion "
    "decision rating assessment follows below teacher evaluator judge no yes earns gets receives "
    "bewertung ergebnis urteil r\u00e9sultat \u00e9valuation resultado evaluaci\u00f3n veredicto valutazione risultato "
    "\u043e\u0446\u0435\u043d\u043a\u0430 \u0440\u0435\u0437\u0443\u043b\u044c\u0442\u0430\u0442 "
    "\u8bc4\u5206 \u8bc4\u4ef7 \u8bc4\u4f30 \u7ed3\u679c \u5224\u65ad \u5f97\u5206 \u6253\u5206 \u8bc4\u4f30\u7ed3\u679c \u8bc4\u5206\u7ed3\u679c".split()
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|(?<=[.!?;][)\"*'\u201d])\s+|\n+|(?<=[\u3002\uff01\uff1f\uff1b])")
_QUOTES = re.compile(
    r"\"[^\"]{1,2000}\"|\u201c[^\u201c\u201d]{1,2000}\u201d|\u201e[^\u201c\u201d\u201e]{1,2000}[\u201c\u201d]|\u00ab[^\u00ab\u00bb]{1,2000}\u00bb|"
    r"\u300c[^\u300c\u300d]{1,2000}\u300d|\u2018[^\u2018\u2019\n]{1,300}\u2019(?!\w)|(?<![\w'])'(?:[^'\n]|(?<=\w)'(?=\w)){1,300}'(?!\w)|`[^`\n]{1,300}`"
)
_MARKUP = re.compile(r"\*+|(?<!\w)_+|_+(?!\w)|^[^\S\n]*#+[^\S\n]+|\$(?=\S)|(?<=\S)\$|\\[()\[\]]", re.MULTILINE)


_ITEM = re.compile(r"^[^\S\n]*(?:[-+*]|[0-9]+[.)])[^\S\n]+", re.MULTILINE)
_BULLET = "\u2022"
_STRUCK = re.compile(r"~~[^~\n]+~~|<(del|s|strike)>.{0,2000}?</\1>|<!--.{0,2000}?-->", re.DOTALL | re.IGNORECASE)
# A heading, and the number alone on a line below it.
_BELOW = re.compile(
    rf"^(?P<head>{_OWN}{_WORD}{_OF})\s*:?[^\S\n]*\n+[^\S\n]*(?=-?[0-9][0-9.]*\s*%?[^\S\n]*$)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Mention:
    """A score that a reply names: the words of the number, and how it stands there."""

    words: str
    standing: Standing
    at: int = 0


def unfenced(text: str) -> str:
    r"""A text without the marks of its code blocks, and without those blocks and quotations that it speaks about.

    >>> unfenced("Sure!\n```json\n{}\n```")
    'Sure!\n{}'
    >>> unfenced("The student wrote:\n```\n{}\n```\nThat is wrong.")
    'The student wrote:\n…\nThat is wrong.'
    """
    kept: list[str] = []
    fence, hidden = "", False
    for line in text.split("\n"):
        bare = line.strip()
        if fence:
            closes = bare.endswith(fence)
            inside = bare.removesuffix(fence) if closes else line
            if not hidden and not (closes and not inside):
                kept.append(inside)
            fence = "" if closes else fence
        elif bare.startswith(("```", "~~~")):
            fence, rest = bare[:3], bare.lstrip(bare[0])
            hidden = speaks_of_another("\n".join(kept[-5:]))
            if hidden:
                kept.append(HOLE)
            if rest.endswith(fence):
                # A block on one line.
                rest, fence = re.sub(r"^\w+\s+(?=[{\[])", "", rest.rstrip(bare[0])), ""
            if not hidden and not re.fullmatch(r"\s*\w*\s*", rest):
                kept.append(rest.strip())
        else:
            kept.append(HOLE if bare.startswith(">") else line)
    return "\n".join(kept)


def speaks_of_another(before: str) -> bool:
    """Whether the words that lead up to something say that it is somebody else's, a rule, or a case that is not given.

    >>> speaks_of_another("It matches. The student wrote: "), speaks_of_another("The student is wrong. My verdict: ")
    (True, False)
    """
    before = before[-NEAR:].rstrip(" \n\t`*_\"'[(>\u201c")
    # What ends in a full stop leads up to nothing.
    if not before or before[-1] in ".!?;\u3002":
        return False
    lead = [part for part in _SENTENCE.split(before) if part.strip()][-1:]
    return any(_dismisses(sentence) for sentence in lead)


def object_standing(text: str, begin: int, end: int) -> Standing:
    """How an object stands in a text: by itself, or after words that lead up to it as a verdict.

    Args:
        text: The reply, without the marks of code blocks.
        begin: Where the object begins, and
        end: ends.
    """
    before, after = text[max(0, begin - NEAR) : begin], text[end : end + FAR]
    if speaks_of_another(before):
        return "dismissed"
    lead = before.rstrip(" \n\t`*_[(")
    on_its_line = before.rstrip(" \t`*_[(").endswith("\n") or not lead
    last = _SENTENCE.split(lead)[-1]
    if lead and lead[-1] not in _ENDS and not (on_its_line and lead[-1] not in _COLONS) and not _introduces(last):
        return "unclear"
    rest = after.partition("\n")[0].lstrip(" \t`*_]),")
    if rest and not re.match(r"[.;!{(]|[-\u2013\u2014]\s|because\b|since\b|as\s+the\s+(?:answer|key)|[A-Z]", rest):
        return "unclear"
    return "unclear" if takes_back(after) else "given"


def takes_back(after: str, *, full: bool = False) -> bool:
    """Whether a sentence after a verdict takes it back.

    Args:
        after: What follows the verdict.
        full: The verdict is not the lowest one: "this is wrong" speaks of the verdict, not of the answer.

    >>> takes_back("That is what the student wrote."), takes_back("The key says Rome.")
    (True, False)
    """
    sentences = [part for part in _SENTENCE.split(after.lstrip(" \t\n`*_].,;!(-\u2013\u2014")) if part]
    return any(_BACK.search(one) or (full and _WRONG.search(one)) for one in sentences)


def find_scores(text: str) -> list[Mention]:
    """Every score that a text in prose names, in order.

    >>> [(one.words, one.standing) for one in find_scores("A right answer earns a score of 100. So the score is 0.")]
    [('100', 'dismissed'), ('0', 'given')]
    """
    text = _STRUCK.sub("", text)
    text = _BOXED.sub(lambda match: match[1].replace("\\", "") if not _alone(match) else f"Score: {match[1]}", text)
    text = _MARKUP.sub("", _without_quotations(_ITEM.sub(f"{_BULLET} ", text)))
    text = _BELOW.sub(lambda match: f"{match['head']}: ", text)
    found: list[Mention] = []
    led: Standing | None = None
    sentences = [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]
    last_back = max((at for at, one in enumerate(sentences) if _BACK.search(one)), default=-1)
    last_wrong = max((at for at, one in enumerate(sentences) if _WRONG.search(one)), default=-1)
    for number, sentence in enumerate(sentences):
        # What introduces a list introduces all of it.
        if number and not (led and sentence.startswith(_BULLET) and sentences[number - 1].startswith(_BULLET)):
            led = _led(sentences[number - 1])
        found += _scores_of(sentence.lstrip(f"{_BULLET} "), led, back=number < last_back, wrong=number < last_wrong)
    return found


def _led(before: str) -> Standing | None:
    """How a sentence that ends in a colon introduces what follows: as somebody else's, or in unknown words; None if it is a verdict's."""
    if before[-1] not in _COLONS:
        return None
    if _dismisses(before):
        return "dismissed"
    return None if _introduces(before) else "unclear"


def _scores_of(sentence: str, led: Standing | None, *, back: bool, wrong: bool) -> list[Mention]:
    """The scores that one sentence names; later ones may take them `back`, or call them `wrong`."""
    asked = sentence.endswith("?")
    mentions: list[Mention] = []
    spans: list[tuple[int, int]] = []
    for form in _FORMS:
        for match in form.finditer(sentence):
            if any(begin < match.end() and match.start("form") < end for begin, end in spans):
                continue
            before, after = sentence[: match.start("form")][-NEAR:], sentence[match.end() :][:NEAR]
            full = not re.match(r"0(?![.,0-9])", match["number"])
            if led == "dismissed" or asked or _dismisses(before, match["form"]):
                standing: Standing = "dismissed"
            elif (
                (
                    led
                    or match.start("form") > NEAR
                    or not _leads_up(before)
                    or not _END.match(after)
                    or _TAIL.search(after)
                )
                or back
                or (wrong and full)
                or takes_back(after, full=full)
                or _contradicts(match)
            ):
                standing = "unclear"
            else:
                standing = "given"
            mentions.append(Mention(match["number"], standing, match.start("number")))
            spans.append((match.start("form"), match.end()))
    for match in _NAMED.finditer(sentence):
        if len(mentions) > MOST:
            # A reply of nothing but scores gives none.
            return [*mentions, Mention("", "unclear", len(sentence))]
        if any(begin <= match.start("number") < end for begin, end in spans):
            continue
        rest = re.split("[,;:]", sentence[match.end() :][:NEAR])[0]
        other = (
            led == "dismissed"
            or asked
            or _dismisses(sentence[: match.end()][-NEAR:])
            or _IF.search(rest)
            or _NOT.search(rest)
        )
        mentions.append(Mention(match["number"], "dismissed" if other else "unclear", match.start("number")))
    return sorted(mentions, key=lambda one: one.at)


def _introduces(lead: str) -> bool:
    """Whether a few words, the last of them a name for a verdict, introduce one: "Here is my verdict:"."""
    words = re.findall(r"[^\W_]+", lead.lower())
    if words[-1:] == ["is"]:
        words.pop()
    return 0 < len(words) <= 14 and words[-1] in _LABELS and (len(words) <= 4 or lead.isascii())


def _leads_up(before: str) -> bool:
    """Whether the words that stand before a verdict, in its sentence, are known to lead up to one."""
    scope = _RESULT.split(before)[-1].strip()
    if not scope:
        return True
    return bool(
        _introduces(scope) if scope[-1] in _COLONS else _LEADS.search(scope) or len(scope) < len(before.strip())
    )


def _contradicts(match: re.Match[str]) -> bool:
    """Whether a letter and its per cent say two things: "F (100%)"."""
    return match["letter"] is not None and (match["letter"].upper() in "DEF") == match["number"].startswith("100")


def _dismisses(before: str, form: str = "") -> bool:
    """Whether words that stand before a verdict, in its sentence, say that it is not given."""
    if _NOT_THAT.search(before) or _IF.search(form) or _TOLD_SO.search(before):
        return True
    scope = _RESULT.split(before)[-1]
    clause = _CLAUSE.split(scope)[-1] if form else scope
    told = _TOLD.search(scope) and not _MINE.search(scope)
    return bool(_IF.search(scope) or _NOT.search(clause) or _RULE.search(scope) or told)


def _without_quotations(text: str) -> str:
    stripped = text.strip()
    whole = _QUOTES.fullmatch(stripped)
    if whole:
        return stripped[1:-1]
    # A bare number in quotation marks is a way of writing it.
    return _QUOTES.sub(
        lambda match: HOLE if re.search(r"[^\W\d]", match[0]) else match[0].strip("`\"'\u201c\u201d"), text
    )


def _alone(match: re.Match[str]) -> bool:
    before, after = match.string[: match.start()], match.string[match.end() :]
    return not before.rpartition("\n")[2].strip(" $*") and not after.partition("\n")[0].strip(" $*.")

"""Finds the sentences of an answer that state it: the last ones, one that declares the answer, and the first.

Marks of Markdown, LaTeX and JSON are taken off, numbers are read as numbers, and what models append out of politeness is
left out. The lists of words are English ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from milepost.text import canonical

# Sentences from the end that are looked at.
SENTENCES = 4
# Characters of a sentence from its end: a model that repeats itself without end must not cost minutes.
LONGEST = 1000

_QUOTES = str.maketrans(
    dict.fromkeys("\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}", '"')
    | dict.fromkeys("«»‹›「」『』", '"')  # noqa: RUF001 (so models write)
    | dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}", "'")
    | dict.fromkeys("\N{MINUS SIGN}\N{NON-BREAKING HYPHEN}\N{HYPHEN}", "-")
    | dict.fromkeys("✅✓✔☑", " (correct) ")
    | dict.fromkeys("❌✗✘✖", " (incorrect) ")
    | {"\N{FRACTION SLASH}": "/", "\N{VARIATION SELECTOR-16}": ""}
)
_MARKUP = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"~~[^~\n]+~~", " "),  # struck out
        (r"</?answer>", "\nanswer: "),
        (r"</?[A-Za-z][^<>\n]*>", " "),
        (r"```\w*|\*\*|__|`", ""),
        (r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])", r"\1"),
        (r"(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)", r"\1"),
        (r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2"),
        (r"\\(?:text\w*|math\w+|operatorname|emph)\s*\{([^{}]*)\}", r"\1"),
        (r"\\f?box(?:ed)?\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r" answer: \1"),
        (r"\{,\}", ","),
        (r"\\[()\[\],;!% ]|\\[A-Za-z]+|\$", " "),
        (r'"(\w+)"\s*:', r"\1:"),
        (r"[{}]", "\n"),
        (r"\b[Nn]o\.\s*(?=\d)", "number "),
        # The clause that follows says what is left out, and no contrast.
        (r"(?i)\b((?:any|every|all)(?:where|thing|one|body| of (?:them|these))?) but\b", r"\1 except"),
    )
)
_BULLET = re.compile(r"^\s*(?:[-*•>#]+\s+)+")
_NUMBERED = re.compile(r"^[ \t]*\d+[.)][ \t]+", re.MULTILINE)
_HEADING = re.compile(r"^(?:the |my |final |correct )*(?:answer|conclusion|verdict|result)$", re.IGNORECASE)
# The end of a sentence, but not behind an abbreviation.
_END = re.compile(
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bvs\.)(?<!\bNo\.(?=\s\d))(?<!\be\.g\.)(?<!\bi\.e\.)(?<!^[A-Z]\.)"
    r"(?<=[.!?])[\"')\]]*\s+(?![a-zß-öø-ÿ])|(?<=[。！？])"  # noqa: RUF001 (so models write)
)
_POLITE = re.compile(
    r"^(?:please )?(?:let me know|(?:i )?hope (?:this|that|it)|feel free|would you like|do you (?:want|have|need|agree)|"
    r"is there anything|(?:i'm |i am |i'd be )?(?:happy|glad) to|shall i|should i|want me to|don't hesitate|"
    r"thank(?:s| you)\b|(?:good|best of) luck|have a (?:nice|great|good)|cheers\b|you're welcome|any (?:other|more|further) questions|if you (?:have|need|want|would|'d|"
    r"'re|are)\b.*\b(?:questions?|help|explanation|details?|clarification|ask|know)\b|(?:my )?confidence\b)",
    re.IGNORECASE,
)
_DECLARES = re.compile(
    r"\b(?:answer|choice|option|solution)\s*[:=→]"
    r"|\b(?:answer|solution|(?:choice|option)(?!\s+[\"'(]*[A-Z]\b))(?! (?:choices|options))\b[^.;:=]{0,40}?"
    r"\b(?:is|was|be|becomes)\b|\b(?:answer|solution)\b(?! (?:choices|options))[^.;:=]{0,40}?(?::|->)"
    r"|\b(?:is|was|be|seems|looks)\s+(?:\w+ly\s+)?(?:the\s+)?(?:only\s+)?(?:correct|right|best)\b|\(correct\)"
    r"|[-\u2013\u2014:]\s*(?:correct|right|true|(?:this|that|it|which) (?:\w+ly )?(?:fits|works|matches|applies))\b[^,;]{0,20}$"
    r"|^(?:correct|right)\b.{0,10}:"
    r"|\bi(?:'d| would|'ll| will|'m)? (?:answer|choose|pick|select|(?:go|going) with|chose|picked)\b",
    re.IGNORECASE,
)
# Of all of them, not of one.
_EACH = re.compile(
    r"\b(?:each|every|all|per|these|following|given|provided|the) (?:\w+ )?(?:options?|choices?|answers)\s*:",
    re.IGNORECASE,
)
_TAKES_BACK = re.compile(
    r"^(?:(?:but|oh|hmm|ah)\b,? )?(?:no,? )?(?:wait|actually|correction|sorry|no\b|on second thought|scratch that|"
    r"let me (?:re|correct))|\b(?:my mistake|made a mistake|was wrong|correction)\b",
    re.IGNORECASE,
)
_GUESSES = re.compile(
    r"^(?:or\b|maybe|perhaps|possibly|alternatively|(?:but )?(?:(?:it|this|that|the answer) )?(?:could|might|may) (?:also )?be\b)",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"\b(?:i|we)(?:'m| am| are|'re)? (?:(?:really|just|simply|honestly) )?(?:sorry|afraid|cannot|can't|can not|"
    r"could not|couldn't|unable|not able|not sure|not certain|unsure|have no (?:idea|way|information)|"
    r"(?:do not|don't) (?:know|have)|(?:would|'d) rather not|won't|will not|refuse|must decline)\b"
    r"|\b(?:not possible|impossible|no way|hard|difficult) (?:to|of) (?:know|say|tell|determin|decid|answer)\w*"
    r"|\b(?:cannot|can't|can not|could not) (?:be|really be) (?:known|determined|answered|said|told|inferred|decided)\b"
    r"|\b(?:not enough|insufficient|too little|lacks?) (?:\w+ )?(?:information|context|data|evidence|details?)\b"
    r"|\b(?:does not|doesn't|do not|don't|did not|didn't|never|nowhere) (?:\w+ )?(?:tells?|says?|said|states?|stated|"
    r"mentions?|mentioned|specif\w+|indicates?|reveals?|gives? (?:us )?(?:any|enough)|provide\w*|contain)\b"
    r"|\b(?:is|are|was|were)(?: not|n't) (?:\w+ )?(?:stated|mentioned|specified|given|clear|told|said|indicated|provided)\b"
    r"|\b(?:is|remains|it's|that's) (?:\w+ )?(?:unclear|unknown|undetermined|uncertain|unspecified)\b|^unknown\b"
    r"|\b(?:anyone|anybody|nobody|no one|one) (?:can|could|cannot|can't) (?:\w+ )?(?:know|say|tell|answer|determine)\b"
    r"|\bno (?:\w+ )?answer\b|\b(?:anyone|anybody)'s guess\b|\bwho knows\b|\bno idea\b|\b(?:question|prompt|story|problem|text) (?:makes no sense|is (?:flawed|unanswerable))\b"
    r"|\bnot (?:\w+ly )?(?:listed|stated|provided|given|mentioned|included|offered|among)\b[^.]*\b(?:options|choices|answers)\b"
    r"|\b(?:options?|choices?) not (?:\w+ly )?(?:listed|stated|provided|given|mentioned|included|offered)\b"
    r"|\bnone of (?:the|these|those|them)\b.*\b(?:options?|choices?|answers?|above|correct|right|fits?|apply|applies)\b"
)
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_UNITS = {word: number for number, word in enumerate(_NUMBERS)}
_TENS = {
    word: 10 * n
    for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}  # fmt: skip
_POWERS = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
# The same for texts of which some are told apart by their signs only, such as C, C++ and C#, or 5 and 5%.
_EXACT_WORD = re.compile(
    r"\d+(?:st|nd|rd|th)\b|\d+[:/]\d+|(?:(?<![\w)\]])-)?[$¢-¥₠-₿]?\d+(?:[.,]\d+)*[%‰]?|(?<![\w.])-?\.\d+|\^-?\d+"
    r"|(?:(?<![\w)\]])-)?[^\W\d_]+(?:'[^\W\d_]+)?(?:[+#]+|[*-](?=[\s.,;:!?)]|$))?"
)
_WORD = re.compile(
    r"\d+(?:st|nd|rd|th)\b|\d+[:/]\d+|(?:(?<![\w)\]])-)?\d+(?:\.\d+)?|(?<![\w.])-?\.\d+|[^\W\d_]+(?:'[^\W\d_]+)?"
)


@dataclass(frozen=True)
class Sentences:
    """The sentences of an answer that are looked at.

    Attributes:
        last: Its last sentences, the last one first.
        declared: The last sentence before those that declares an answer, unless it is taken back.
        first: The first sentence of an answer that has others.
    """

    last: tuple[str, ...]
    declared: str | None = None
    first: str | None = None


class Word(NamedTuple):
    """A word as it is compared, and the characters [begin, end) of the lower-case text that it was read from."""

    text: str
    begin: int
    end: int


def lower(text: str) -> str:
    """Bring a text to the form in which words are searched: lower case, plain apostrophes, no commas within numbers."""
    text = canonical(text).casefold()
    return re.sub(r"(?<=\d),(?=\d{3}\b)|(?<=\d) (?=[%‰])", "", text)


def words(text: str, *, exact: bool = False) -> list[str]:
    """The words of a text, as they are compared: numbers as digits, without upper case and punctuation.

    Args:
        text: Any text.
        exact: Whether signs at a word are part of it.

    >>> words("Twenty-one crossings, 1,200.0 kg at -5 - don't")
    ['21', 'crossings', '1200', 'kg', 'at', '-5', "don't"]
    >>> words("C, C++ or C#: 5 % of -x", exact=True)
    ['c', 'c++', 'or', 'c#', '5%', 'of', '-x']
    """
    return [word.text for word in find_words(lower(text), exact=exact)]


@lru_cache(maxsize=4096)
def find_words(text: str, *, exact: bool = False) -> tuple[Word, ...]:
    """The words of a text in lower case, and where they stand."""
    found: list[Word] = []
    number, below = 0, 0  # what the last words say, and what a number must be below to go on with it
    for match in (_EXACT_WORD if exact else _WORD).finditer(text):
        word, begin = match[0], match.start()
        value = _UNITS.get(word, _TENS.get(word))
        if found and text[found[-1].end : begin].strip(" -"):
            number, below = 0, 0  # "one hundred, five"
        if number and number < _POWERS.get(word, 0):
            number, below = number * _POWERS[word], _POWERS[word]
            begin = found.pop().begin
        elif value is not None and 0 < value < below:
            if found[-1].text == "and":
                found.pop()
            number, below = number + value, 10 if word in _TENS else 0
            begin = found.pop().begin
        elif value is not None:
            number, below = value, 10 if word in _TENS else 0
        else:
            if word != "and" or below <= 10:
                number, below = int(word) if word.isdecimal() and len(word) < 10 else 0, 0
            found.append(Word(_number(word), begin, match.end()))
            continue
        found.append(Word(str(number), begin, match.end()))
    return tuple(found)


def _number(word: str) -> str:
    """A number without superfluous zeros; any other word as it is."""
    if not word[-1:].isdecimal() or "." not in word:
        return word
    return re.sub(r"^(-?)\.", r"\g<1>0.", word).rstrip("0").rstrip(".")


def plain(text: str) -> str:
    r"""Remove the marks of Markdown, LaTeX, HTML and JSON from a text, and make its quotes plain.

    >>> plain(r"**So** \(\boxed{\text{B}}\)").split()
    ['So', 'answer:', 'B']
    """
    text = canonical(text.translate(_QUOTES)).translate(_QUOTES)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=4096)
def read_sentences(text: str) -> Sentences:
    r"""Read the sentences of an answer that are looked at.

    >>> read_sentences("**One.** Two!\n- Three: 1.5 km").last
    ('Three: 1.5 km', 'Two!', 'One.')
    >>> read_sentences("It is ten. Because five and five are ten. Let me know if you need help!").last[0]
    'Because five and five are ten.'
    """
    text = plain(text)
    if len(_NUMBERED.findall(text)) > 1:  # a list: one number alone may be the answer
        text = _NUMBERED.sub("", text)
    found = [part[-LONGEST:] for part in _joined([part for line in text.splitlines() for part in _split(line)])]
    kept = len(found)
    while kept > 1 and _POLITE.match(found[kept - 1]):
        kept -= 1
    said = [one for one in found[:kept] if not one.endswith("?")] or found[:kept]
    earlier = said[:-SENTENCES]
    declared = next((at for at in range(len(earlier) - 1, -1, -1) if declares(earlier[at])), None)
    if declared is not None and any(map(takes_back, earlier[declared + 1 :])):
        declared = None
    return Sentences(
        tuple(reversed(said[-SENTENCES:])),
        None if declared is None else earlier[declared],
        said[0] if len(said) > 1 else None,
    )


def _split(line: str) -> list[str]:
    line = _BULLET.sub("", line).strip()
    return [part for part in map(str.strip, _END.split(line)) if re.search(r"\w", part)]


def _joined(sentences: list[str]) -> list[str]:
    """Join sentences that belong together: a declaration with what it announces, and successive guesses."""
    joined: list[str] = []
    for sentence in sentences:
        before = joined[-1] if joined else ""
        if _HEADING.match(before) or (before.endswith(":") and declares(before)):
            joined[-1] = f"{before.rstrip(':')}: {sentence}"
        elif _GUESSES.match(before) and _GUESSES.match(sentence):
            joined[-1] = f"{before.rstrip('.!?')} or {sentence}"
        else:
            joined.append(sentence)
    return joined


def declares(sentence: str) -> bool:
    """Whether a sentence says which answer is right, or is given.

    >>> declares("So the final answer is ten."), declares("Ten is what I get.")
    (True, False)
    """
    return bool(_DECLARES.search(_EACH.sub(" ", sentence)))


def takes_back(sentence: str) -> bool:
    """Whether a sentence takes back what was said before.

    >>> takes_back("Wait, that was not all."), takes_back("She did not wait.")
    (True, False)
    """
    return bool(_TAKES_BACK.search(sentence))


def refuses(text: str) -> bool:
    """Whether a text says that it does not answer, or that nobody could.

    >>> refuses("I'm sorry, but I cannot say."), refuses("He cannot swim.")
    (True, False)
    """
    return bool(_REFUSES.search(lower(text)))

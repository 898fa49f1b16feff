r"""What a person would call the same text: the one form in which texts are compared.

Ways of writing are folded that a reader does not see, or does not mind: how letters are composed, full-width and bold
letters, ligatures, the digits of other scripts, kinds of dashes, quotation marks and spaces, marks of no width. What changes
what is said stays: accents, signs, powers (x² is x^2 and not x2), fractions (½ is 1/2 and not 12).

Without punctuation, a text is its words. A mark is dropped at the ends of a word, and parts two words in between; but it stays
where it is part of what is meant: in numbers (-5, 1/2, 12:30, 2024-05-01), with them (5%, $5), and in C++, C#, A-, f(x), a_b.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\u05be\u2796\u2043", "-")
_QUOTES = dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u02b9\u02bc", "'") | dict.fromkeys(
    "\u201c\u201d\u201e\u201f\u2033", '"'
)
_SIGNS = {
    **{"\u066a": "%", "\u066b": ".", "\u066c": ",", "\u060c": ",", "\u061b": ";", "\u061f": "?"},
    **{"\u3001": ",", "\u3002": ".", "\u2044": "/", "\u2215": "/", "\u2217": "*", "\u2236": ":", "\u22c5": "·"},
    **{"\u2795": "+", "\u00aa": "a", "\u00ba": "o", "\u2028": "\n", "\u2029": "\n", "\u0085": "\n", "\u2116": "No. "},
}
_PLAIN = _DASHES | _QUOTES | _SIGNS
# Marks that nobody sees: of no width, of the direction of writing, soft hyphens, variants of one sign, Arabic's long line;
# and control characters that are no white space.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0100-\U000e01ef\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"
)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₕₖₗₘₙₚₛₜ", "0123456789+-=()aeoxhklmnpst", strict=True))
_POWER = re.compile(f"[{''.join(_RAISED)}]+")
# A number of mass stands before a letter, and is read in line: ¹⁴C is 14C.
_ISOTOPE = re.compile(r"(?<![\w)\]^])[⁰¹²³⁴-⁹]+(?=[A-Z])")
_INDEX = re.compile(f"(?<=([^\\W\\d_]|[)\\]]))?[{''.join(_LOWERED)}]+(?=(\\d)?)")
# The charge of an ion, which is also written without a sign of power: Ca²⁺ is Ca2+.
_CHARGE = re.compile(r"(?<=[A-Za-z\d)\]])\^\{?(\d*[+-])\}?(?![\w(^{])")
_FRACTION = re.compile("(\\d ?)?([\u00bc-\u00be\u2150-\u215e\u2189])")
# Kinds of compatibility that change nothing of what is said. Powers, indices and fractions are not among them.
_SAFE = frozenset(
    "<wide> <narrow> <noBreak> <initial> <medial> <final> <isolated> <vertical> <small> <compat> <font> <square> <circle>".split()
)
_FOREIGN = re.compile(r"[^\x00-\x7f]")

# Spaces that typesetters put between groups of three digits, and that never part two numbers.
_GROUPED_BY_SPACE = re.compile(
    r"(?<![\w.,])\d{1,3}(?:[\u00a0\u2007\u2008\u2009\u200a\u202f][\d\uff10-\uff19]{3})+(?!\d)"
)
_GROUPED = re.compile(
    r"(?<![\w.,'])(?:"
    r"(?P<plain>[1-9]\d{0,2}(?P<by>[,'_])\d{3}(?:(?P=by)\d{3})*)(?P<rest>\.\d+)?"  # 1,200.50
    r"|(?P<indian>[1-9]\d?(?:,\d{2})+,\d{3})(?P<rest2>\.\d+)?"  # 12,34,567
    r"|(?P<dots>[1-9]\d{0,2}(?:\.\d{3})+)(?P<comma>,\d+)"  # 1.200,50
    r"|(?P<dots2>[1-9]\d{0,2}(?:\.\d{3}){2,})"  # 1.200.000
    r"|(?P<spaced>[1-9]\d{0,2}(?: \d{3})+)(?P<rest3>[.,]\d+)?"  # 1 200
    r")(?!\d|[.,']\d|[_-]\w)"
)
_DECIMAL_COMMA = re.compile(r"(?<![\w.,])(\d+),(\d+)(?!\d|[.,]\d|-[^\W\d_])")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)(?: ([-/:]) |([-/:]))(?=\d)")
_MEANT_WITH_NUMBER = re.compile(r"(?<=\d) (?=[%‰°])")
_PRICE = re.compile(r"(?<![\w.,])(-?)(\d(?:[\d.,]*\d)?) ?([$¢-¥₠-₿])(?!\d)")
_PRICED = re.compile(r"(-?)([$¢-¥₠-₿]) ?(-?)(?=\.?\d)")
_POINT = re.compile(r"(?<![\w.])\.(?=\d)")
_OPERATOR = re.compile(r" ?(!=|[=<>^\u00d7÷≈≤≥≠±]) ?| ([+*/]) ")
_PERCENT = re.compile(r"(?<=\d) ?per ?cent(?!\w)", re.IGNORECASE)
_LATEX = re.compile(r"\s*\$+([^$]+)\$+\W*")
_RAISED_GROUP = re.compile(r"\^\{([^{}^]*)\}")
_BULLET = re.compile(r"^[ \t]*(?:[*+•◦▪‣]|#{1,6}|>|-(?! *\.?\d)) +", re.MULTILINE)
_ABBREVIATED = re.compile(r"(?<![\w.])(?:[A-Z][a-z]?\.){2,}[A-Z]?(?![\w])|(?<![\w.])(?:[ap]\.m|i\.e|e\.g)\.?(?!\w)")
# Abbreviations in lower case, which may as well be a name with a point, and the end of a sentence.
_INITIALS = re.compile(r"(?<![\w.])(?:[a-z]\.){2,}(?!\w)")
_PARTS = re.compile(
    r"[,;:«»“”—―・]+|\"(?!$)"
    # A dash between words. Between digits, behind an operator and in 1e-5 it is a sign.
    r"|(?<=[^\W\d_])(?<!\d[eE])-(?=\w)|(?<=\d[eE])-(?!\d)|(?<=[\d%)\]])-(?=[^\W\d_])|(?<=[)\]])-(?=\d)"
)
_SENTENCES = re.compile(r"(?<=[^\W\d_]{2})[.!?](?=[^\W\d_]{2}|$)")


@lru_cache(maxsize=65536)
def canonical(text: str) -> str:
    """A text as it is read: everything folded that a reader does not see.

    >>> canonical("\N{MINUS SIGN}5 ﬁsh, １２ m², 1½ cafe\N{COMBINING ACUTE ACCENT}s")
    '-5 fish, 12 m^2, 1 1/2 cafés'
    >>> canonical("H₂O, Ca²⁺, log₂8")
    'H2O, Ca2+, log_2 8'
    """
    text = _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = _FRACTION.sub(_as_fraction, text)
        text = _ISOTOPE.sub(lambda run: "".join(map(_RAISED.__getitem__, run[0])), text)
        text = _POWER.sub(lambda run: "^" + "".join(map(_RAISED.__getitem__, run[0])), text)
        text = _INDEX.sub(_as_index, text)
        text = unicodedata.normalize("NFC", _FOREIGN.sub(_as_plain, text))
    return _CHARGE.sub(r"\1", text)


def normalized(
    text: str, *, ignore_case: bool = True, ignore_punctuation: bool = True, strip_whitespace: bool = True
) -> str:
    """Bring a text to the form in which it is compared as a whole.

    Args:
        text: Any text.
        ignore_case: Fold upper and lower case.
        ignore_punctuation: Only the words count, and what belongs to them.
        strip_whitespace: Leave out white space at both ends, and more than one space in a row but for indentation.

    >>> normalized(" The  Kitchen. "), normalized("(-1.5)"), normalized("well-known; C++ or C#?")
    ('the kitchen', '-1.5', 'well known c++ or c#')
    >>> normalized("1,200") == normalized("1200"), normalized("1/2") == normalized("12")
    (True, False)
    """
    return _form(text, ignore_case, ignore_punctuation, strip_whitespace)


def readings(
    text: str, *, ignore_case: bool = True, ignore_punctuation: bool = True, strip_whitespace: bool = True
) -> frozenset[str]:
    """All forms that a text may have: `2,3` is a list of two numbers, or one with a decimal comma.

    Two texts are the same where they have a form in common.

    >>> sorted(readings("2,3"))
    ['2 3', '2.3']
    >>> bool(readings("2,3") & readings("2, 3")), bool(readings("2,3") & readings("23"))
    (True, False)
    """
    forms = {_form(text, ignore_case, ignore_punctuation, strip_whitespace)}
    if ignore_punctuation:
        forms.add(_form(text, ignore_case, ignore_punctuation, strip_whitespace, other=True))
    return frozenset(forms)


def same_text(one: str, other: str) -> bool:
    """Whether a person would call two texts the same, upper and lower case and punctuation aside.

    >>> same_text("−5", "-5."), same_text("-5", "5")
    (True, False)
    """
    return bool(readings(one) & readings(other))


def words(text: str, *, ignore_case: bool = True) -> list[str]:
    """The words of a text, in lower case unless case counts, each with what belongs to it.

    >>> words("Tea-time: 5 % of C++, or -5?")
    ['tea', 'time', '5%', 'of', 'c++', 'or', '-5']
    """
    as_written = _words(text, other=False)
    return [_folded(word) for word in as_written] if ignore_case else as_written


@lru_cache(maxsize=65536)
def _form(text: str, ignore_case: bool, ignore_punctuation: bool, strip: bool, other: bool = False) -> str:
    if ignore_punctuation:
        found_words = _words(text, other=other)
        # "5km" and "5 km" are the same.
        plain = re.sub(r"(?<=\d)(?=[^\W\d_])", " ", " ".join(found_words)) if found_words else canonical(text).strip()
        if not strip:
            plain = text[: len(text) - len(text.lstrip())] + plain + text[len(text.rstrip()) :] if plain else text
    else:
        plain = canonical(text)
        if strip:
            plain = re.sub(r"[ \t]+$", "", re.sub(r"(?<=\S)[ \t]+", " ", plain), flags=re.MULTILINE).strip()
    return _folded(plain) if ignore_case else plain


def _folded(text: str) -> str:
    """Lower case; the dotted capital I of Turkish is an i, too."""
    return unicodedata.normalize("NFC", text.casefold().replace("i\u0307", "i"))


def _as_plain(found: re.Match[str]) -> str:
    plain = _plain(found[0])
    before = found.string[: found.start()][-1:] if plain[:1].isdigit() and not found[0].isdecimal() else ""
    # "1①" is not 11.
    return f" {plain}" if before.isdigit() else plain


@lru_cache(maxsize=65536)
def _plain(char: str) -> str:
    """One character as it is read."""
    if char in _PLAIN:
        return _PLAIN[char]
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if char.isspace():
        return " "
    kind, *parts = unicodedata.decomposition(char).split() or [""]
    # A mark on a space is no mark and a space.
    if kind not in _SAFE or parts[0] == "0020":
        return char
    return "".join(_plain(chr(int(part, 16))) for part in parts).translate(
        {ord(raised): f"^{digit}" for raised, digit in _RAISED.items()}
    )


def _as_fraction(found: re.Match[str]) -> str:
    digits = [chr(int(part, 16)) for part in unicodedata.decomposition(found[2]).split()[1:]]
    fraction = "".join("/" if digit == "\u2044" else digit for digit in digits)
    return f"{found[1].strip()} {fraction}" if found[1] else fraction


def _as_index(found: re.Match[str]) -> str:
    index = "".join(map(_LOWERED.__getitem__, found[0]))
    if found[1] and not found[2]:
        return index
    return f"_{index} " if found[2] else f"_{index}"


def _words(text: str, *, other: bool) -> list[str]:
    """The words of a text, each with what belongs to it; numbers as they are, without separators of thousands.

    Args:
        text: Any text.
        other: The other of two readings: a comma between digits parts two numbers, where it may also be a decimal one,
            and u.s. is us.
    """
    text = _GROUPED_BY_SPACE.sub(lambda number: re.sub(r"\s", "", number[0]), text)
    text = _BULLET.sub("", canonical(text))
    formula = _LATEX.fullmatch(text)
    text = _RAISED_GROUP.sub(r"^\1", formula[1] if formula else text)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"^- (?=\.?\d)", "-", text)
    text = re.sub(r"^\+(?=\.?\d)", "", text)
    text = _BETWEEN_DIGITS.sub(lambda mark: mark[1] or mark[2], text)
    text = _GROUPED.sub(lambda number: _ungrouped(number, other), text)
    half_open = _is_half_open(text)
    if not other and not half_open:
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    text = _MEANT_WITH_NUMBER.sub("", _PERCENT.sub("%", text))
    text = _PRICED.sub(lambda price: f"{price[2]}{price[1] or price[3]}", _PRICE.sub(r"\3\1\2", text))
    text = _POINT.sub("0.", text)
    text = _ABBREVIATED.sub(lambda letters: letters[0].replace(".", ""), text)
    if other:
        text = _INITIALS.sub(lambda letters: letters[0].replace(".", ""), text)
    text = _OPERATOR.sub(lambda mark: mark[1] or mark[2], text)
    opened = {
        mark for mark in "'\"*_" if re.search(rf"(?:^|[\s(\[{{'\"*_]){re.escape(mark)}[^\s{re.escape(mark)}]", text)
    }
    opened -= {mark for mark in "*_" if not re.search(rf"[^\s{re.escape(mark)}]{re.escape(mark)}+(?:[^\w*]|$)", text)}
    parts = [word for chunk in text.split() for word in _bared(chunk, opened)]
    # [0, 1) holds other numbers than (0, 1].
    return [text[0] + parts[0], *parts[1:], text[-1]] if half_open and parts else parts


def _is_half_open(text: str) -> bool:
    """Whether a text is an interval with one end, such as [0, 1)."""
    ends = text[:1] + text[-1:]
    return ends in ("(]", "[)", "][", "]]", "[[") and bool(re.fullmatch(r"[^()\[\],;]*[,;][^()\[\],;]*", text[1:-1]))


def _ungrouped(number: re.Match[str], other: bool) -> str:
    parts = number.groupdict()
    if parts["spaced"] and other:
        return number[0]
    whole = next(parts[name] for name in ("plain", "indian", "dots", "dots2", "spaced") if parts[name])
    rest = parts["rest"] or parts["rest2"] or parts["rest3"] or parts["comma"] or ""
    return re.sub(r"[^\d]", "", whole) + rest.replace(",", ".")


def _bared(chunk: str, opened: set[str]) -> list[str]:
    """The words in what stands between two spaces.

    Args:
        chunk: What stands there.
        opened: Quotation marks and marks of emphasis that open somewhere in the text, and so close as well.
    """
    begin, end = 0, len(chunk)
    while begin < end and _is_dropped_before(chunk, begin, opened):
        begin += 1
    while begin < end and _is_dropped_behind(chunk, end - 1, opened):
        end -= 1
    chunk = chunk[begin:end]
    parts = []
    at = 0
    for mark in _PARTS.finditer(chunk):
        if (
            mark[0] == ":"
            and chunk[mark.start() - 1 : mark.start()].isdigit()
            and chunk[mark.end() : mark.end() + 1].isdigit()
        ):
            continue
        parts.append(chunk[at : mark.start()])
        at = mark.end()
    parts.append(chunk[at:])
    pieces = [part for piece in parts for part in _SENTENCES.split(piece)]
    return [_without_apostrophe(part) for part in pieces if any(not _is_mark(char) for char in part) or part == "&"]


def _without_apostrophe(word: str) -> str:
    return re.sub(r"(?<=[^\W\d_])'(?=[^\W\d_])", "", word)


def _is_mark(char: str) -> bool:
    return char == "`" or unicodedata.category(char).startswith("P")


def _is_dropped_before(chunk: str, at: int, opened: set[str]) -> bool:
    """Whether a mark at the beginning of a word is no part of it."""
    char, after = chunk[at], chunk[at + 1 : at + 2]
    if not _is_mark(char) or char in "@\\%/&":
        return False
    if char == "-":  # a sign, or an option of a program
        return not (after.isalnum() or (after in "$€£(-." and chunk[at + 2 : at + 3].isalnum()))
    if char == "*":  # *args
        return "*" in opened or chunk[-1] == "*"
    if char == "_":
        return "_" in opened and "_" not in (after, chunk[at - 1 : at])
    return True


def _is_dropped_behind(chunk: str, at: int, opened: set[str]) -> bool:
    """Whether a mark at the end of a word is no part of it."""
    char, before = chunk[at], chunk[at - 1 : at] if at else ""
    if not _is_mark(char) or char in "%‰" or (char == "&" and at == 0):
        return False
    if char == "#":  # C#
        return not before.isalnum()
    if char == "-":  # A-, Cl-
        return not (before.isalnum() or (before in ")]" and before))
    if char in "'\"" and before.isdigit():  # feet and inches
        return char in opened
    if char == "'":  # f'
        return char in opened or len(chunk[:at].strip("'")) != 1
    if char == "*":  # A*
        return "*" in opened or not (before.isalnum() or before == "*")
    if char == "_":
        return "_" in opened and before != "_"
    return True

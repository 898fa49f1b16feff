"""Numbers as people and programs write them: read exactly, with their unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from milepost.text import words

# Longer ones are no numbers that anybody wrote.
_LONGEST = 200
_HIGHEST_POWER = 400
_SCALES: dict[str, Fraction | int] = {
    **{"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12},
    **{"%": Fraction(1, 100), "percent": Fraction(1, 100), "per cent": Fraction(1, 100), "\u2030": Fraction(1, 1000)},
}
_LATEX = (
    (r"\\[dt]?frac\{?(\d+)\}?\{(\d+)\}", r" \1/\2"),
    (r"\\(?:boxed|text|mathrm)\{([^{}]*)\}", r"\1"),
    (r"\\[,;!%$]", " "),
)
_NUMBER = re.compile(
    r"(?:[a-z]\w{0,9}=|=)?(?P<minus>minus |negative )?(?P<money>[$¢-¥₠-₿])?(?P<sign>[-+])?(?P<money2>[$¢-¥₠-₿])?"
    r"(?:(?P<whole>\d+) )?(?P<over>\d+)/(?P<under>\d+)|"
    r"(?:[a-z]\w{0,9}=|=)?(?P<minus_>minus |negative )?(?P<money_>[$¢-¥₠-₿])?(?P<sign_>[-+])?(?P<money2_>[$¢-¥₠-₿])?"
    r"(?P<digits>\d+(?:\.\d+)?)(?:e(?P<ten>[-+]?\d{1,3})|\^(?P<power>-?\d{1,3})| ?[x\u00d7*·] ?10\^(?P<times>-?\d{1,3}))?",
    re.IGNORECASE,
)
_UNIT = re.compile(r"[^\d,;:=]*(?:\^-?\d)?")
# What makes two numbers of one, or a number that is not given.
_NO_UNIT = frozenset("or and to of than minus plus times".split())


@dataclass(frozen=True)
class Number:
    """A number and its unit, if one is given: `km`, `€`. Per cent is no unit, but a hundredth."""

    value: Fraction
    unit: str = ""

    def is_near(self, target: Number, tolerance: Fraction = Fraction(0), relative: Fraction = Fraction(0)) -> bool:
        """Whether this number is within the larger of both tolerances of a target, and of no other unit."""
        if self.unit and target.unit and self.unit != target.unit:
            return False
        return abs(self.value - target.value) <= max(tolerance, relative * abs(target.value))


def read_number(text: str) -> Number | None:
    """The number that a text is; None for one that holds anything else but a unit.

    >>> read_number("1 1/2 km"), read_number("5 %").value, read_number("−$1,200.50").value
    (Number(value=Fraction(3, 2), unit='km'), Fraction(1, 20), Fraction(-2401, 2))
    >>> read_number("3 or 4") is None, read_number("2024-05-01") is None
    (True, True)
    """
    if len(text) > _LONGEST:
        return None
    text = re.sub(r"^\s*\$(.*)\$\W*$", r"\1", text)
    for pattern, plain in _LATEX:
        text = re.sub(pattern, plain, text)
    plain_text = " ".join(words(text, ignore_case=False))
    number = _NUMBER.match(plain_text)
    if number is None:
        return None
    value = _value(number)
    rest = plain_text[number.end() :]
    if value is None or re.match(r"[.,/:^'\"-]|\w*\d", rest):
        return None
    unit, scale = rest.strip(), Fraction(1)
    for name, factor in _SCALES.items():
        match = re.match(rf"{name}s?(?!\w)", unit, re.IGNORECASE)
        if match:
            unit, scale = unit[match.end() :].strip(), scale * factor
    if not _UNIT.fullmatch(unit) or _NO_UNIT & set(unit.casefold().split()) or len(unit.split()) > 3:
        return None
    money = next((number[name] for name in ("money", "money2", "money_", "money2_") if number[name]), "")
    # "apple" and "apples" are one unit, and so is anything longer; "mm" and "Mm" are two.
    plain_unit = unit if len(unit) < 3 else unit.casefold().removesuffix("s")
    return Number(value * scale, " ".join(filter(None, (money, plain_unit))))


def _value(found: re.Match[str]) -> Fraction | None:
    """The value of what was matched; None for a fraction of zero, or a power that is too high."""
    negative = (found["sign"] or found["sign_"]) == "-" or bool(found["minus"] or found["minus_"])
    if found["digits"] is None:
        if int(found["under"]) == 0:
            return None
        value = int(found["whole"] or 0) + Fraction(int(found["over"]), int(found["under"]))
    else:
        value = Fraction(found["digits"])
        ten = int(found["ten"] or found["times"] or 0)
        power = int(found["power"] or 1)
        if max(abs(ten), abs(power)) > _HIGHEST_POWER or (value == 0 and power < 0):
            return None
        value = value**power * Fraction(10) ** ten
    return -value if negative else value

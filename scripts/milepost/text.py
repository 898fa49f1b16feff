"""What is done to the text of an answer before it is scored."""

from __future__ import annotations

import re
import unicodedata

_TRACE = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_OPEN, _CLOSE = "<think>", "</think>"


def strip_reasoning(content: str) -> tuple[str, bool]:
    """Remove reasoning traces from an answer.

    A closing tag without an opening one ends a trace whose opening tag stood in the chat template. An opening tag
    without a closing one begins a trace that was cut off: nothing after it is an answer.

    Args:
        content: The answer as the model wrote it.

    Returns:
        The text outside all traces, and whether a trace was left unclosed: such an answer is truncated.

    >>> strip_reasoning("<think>2 and 2</think>It is 4.")
    ('It is 4.', False)
    >>> strip_reasoning("2 and 2</think>It is 4.")
    ('It is 4.', False)
    >>> strip_reasoning("<think>2 and")
    ('', True)
    """
    text = _TRACE.sub("", content)
    before, close, after = text.rpartition(_CLOSE)
    if close:
        text = after.lstrip()
    before, opening, _ = text.partition(_OPEN)
    return (before, True) if opening else (text, False)


def normalized(
    text: str, *, ignore_case: bool = True, ignore_punctuation: bool = True, strip_whitespace: bool = True
) -> str:
    """Bring a text to the form in which it is compared as a whole.

    The sign and the decimal point of a number are no punctuation: without them it would be another number.

    Args:
        text: Any text.
        ignore_case: Fold upper and lower case.
        ignore_punctuation: Leave out punctuation (Unicode categories P), but for that of numbers.
        strip_whitespace: Leave out white space at both ends.

    >>> normalized(" The Kitchen. ")
    'the kitchen'
    >>> normalized("(-1.5)")
    '-1.5'
    """
    if ignore_punctuation:
        text = "".join(
            char
            for at, char in enumerate(text)
            if not unicodedata.category(char).startswith("P") or _in_number(text, at)
        )
    if ignore_case:
        text = text.casefold()
    return text.strip() if strip_whitespace else text


def _in_number(text: str, at: int) -> bool:
    """Whether the character is the sign or the decimal point of a number."""
    before, after = text[max(at - 1, 0) : at], text[at + 1 : at + 3]
    if text[at] == ".":
        return after[:1].isdigit() and (before.isdigit() or not before.isalpha())
    return text[at] == "-" and not before.isalnum() and after.removeprefix(".")[:1].isdigit()

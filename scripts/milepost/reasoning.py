"""What is done to the text of an answer before it is scored."""

from __future__ import annotations

import re

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

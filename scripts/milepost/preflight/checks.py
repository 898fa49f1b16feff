"""A table of checks: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["ok", "warning", "failed", "skipped"]
SHOWN = 5  # names of a list


@dataclass(frozen=True)
class Check:
    """One line of the table: what was looked at, how it is, what was found, and what to do about it."""

    what: str
    state: State
    found: str
    advice: str = ""


def write_probe(folder: Path, what: str, advice: str) -> Check:
    """Whether a file can be written to a folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Check(what, "failed", f"{folder} cannot be written: {error.strerror}", advice)
    return Check(what, "ok", f"{folder} can be written")


def join(words: Iterable[str]) -> str:
    """A list for people; a long one is cut.

    >>> join("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    words = list(words)
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


def render(checks: list[Check], width: int | None = None) -> str:
    """The checks as a table, with what to do below each that is not well."""
    width = width or max(80, min(160, shutil.get_terminal_size((120, 24)).columns))
    left = max(len(check.what) for check in checks) + 2
    lines = []
    for check in checks:
        text = (
            check.found
            if check.state in ("ok", "skipped")
            else f"{check.found}\n-> {check.advice}"
            if check.advice
            else check.found
        )
        head = f"{check.state:<9}{check.what:<{left}}"
        pieces = [
            piece
            for part in text.splitlines()
            for piece in textwrap.wrap(part, width - len(head), break_long_words=False, break_on_hyphens=False)
        ]
        lines += [f"{head}{pieces[0] if pieces else ''}".rstrip(), *(" " * len(head) + piece for piece in pieces[1:])]
    return "\n".join(lines)


def sentence(checks: list[Check]) -> str:
    """What the table comes to."""
    failed, warned = (sum(check.state == state for check in checks) for state in ("failed", "warning"))
    if failed:
        return f"{failed} of {len(checks)} checks failed: do what stands behind the arrows, and look again."
    return f"Ready, with {warned} warning(s)." if warned else "Ready."

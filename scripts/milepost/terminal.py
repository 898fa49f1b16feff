"""Tables and times for people who read them in a terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Sequence

GAP = "  "


def columns(rows: Iterable[Sequence[str]], *, right: Collection[int] = (), width: int | None = None) -> list[str]:
    """The lines of a table: cells side by side, each column as wide as its widest cell.

    Args:
        rows: Cells, as many in each row. Only the last cell of a row may have several lines.
        right: Columns whose cells are set to the right, as numbers are.
        width: Of a line in characters; the last column is wrapped to it. None wraps nothing.

    >>> columns([("name", "n"), ("a", "10"), ("日本", "9")], right=[1])
    ['name   n', 'a     10', '日本   9']
    >>> columns([("disk", "is full: free some"), ("gpu", "ok")], width=15)
    ['disk  is full:', '      free some', 'gpu   ok']
    """
    rows = list(rows)
    widths = [max(map(_width, column)) for column in list(zip(*rows, strict=True))[:-1]]
    indent = sum(widths) + len(GAP) * len(widths)
    last = max((_width(line) for row in rows for line in row[-1].splitlines()), default=0)
    lines = []
    for row in rows:
        cells = [_set(cell, size, at in right) for at, (cell, size) in enumerate(zip(row[:-1], widths, strict=True))]
        parts = row[-1].splitlines() or [""]
        if width:
            parts = [piece for part in parts for piece in _wrapped(part, max(8, width - indent))] or [""]
        parts = [_set(part, last, len(row) - 1 in right) for part in parts]
        lines += [GAP.join([*cells, parts[0]]).rstrip(), *(" " * indent + part.rstrip() for part in parts[1:])]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    # Whole words: a path that is broken in two cannot be copied.
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _set(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: two for a Chinese character, none for an accent that is added."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )


def duration(seconds: float | None) -> str:
    """A duration in words, from seconds; `?` where it is not known.

    >>> duration(42), duration(3000), duration(9000), duration(None)
    ('42 s', '50 min', '2 h 30 min', '?')
    """
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"

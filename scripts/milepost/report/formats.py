"""Writes tables for readers as Markdown, as plain text for a terminal, and as LaTeX; names and titles are escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from milepost.report.legend import notes
from milepost.report.tables import ScoreRow, score_cell
from milepost.report.tables_to_read import Table, coverage_table, score_table
from milepost.terminal import columns

LATEX_HEAD = """\
% Made by Milepost from results/tables/scores.csv; made anew when scores change, so copy it into your paper.
% Needs \\usepackage{booktabs} and \\usepackage{graphicx}; names in other scripts than Latin need LuaLaTeX and a font.
"""
LATEX_SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # \textquotedbl is an error in LaTeX's default encoding, and a plain one is drawn as a closing quote.
    '"': r"{\ttfamily\char34}",
    "'": r"{'}",
    "`": r"\textasciigrave{}",
    # After a line's end these would be read as its options.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    # Two of them would be drawn as a dash.
    "-": "{-}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
}


def markdown(tables: Sequence[Table]) -> str:
    """Write tables with their legends as Markdown; the first table's title is the heading of the page."""
    parts = []
    for level, table in enumerate(tables):
        parts += [f"{'##' if level else '#'} {_escape_markdown(table.title)}"]
        parts += ["\n".join(_markdown_lines(table)), *map(_escape_markdown, table.notes)]
    return "\n\n".join(parts) + "\n"


def latex(tables: Sequence[Table], caption: str) -> str:
    """Write tables as LaTeX floats with booktabs' rules; each caption is the given one and the table's title."""
    return LATEX_HEAD + "".join(_latex_table(table, caption) for table in tables)


def text(rows: Sequence[ScoreRow], width: int = 120) -> str:
    """Write the summary for a terminal: a line for each checkpoint, or one for each score where that is too wide."""
    table = score_table(rows, score_cell)
    lines = columns([table.header, *table.lines])
    if max(map(len, lines)) > width:
        tasks = list(dict.fromkeys(row.task for row in rows))
        table = coverage_table(sorted(rows, key=lambda row: tasks.index(row.task)))
        lines = columns([line[:5] for line in [table.header, *table.lines]])
    return "\n".join([*lines, "", *notes(rows)]) + "\n"


def escape_latex(words: str) -> str:
    r"""Escape a text for LaTeX, as one line; control characters are left out.

    >>> escape_latex("100 % of_A & B")
    '100 \\% of\\_A \\& B'
    """
    composed = unicodedata.normalize("NFC", words)
    printable = "".join(sign if sign.isprintable() else " " for sign in composed)
    return "".join(LATEX_SIGNS.get(sign, sign) for sign in " ".join(printable.split()))


def _markdown_lines(table: Table) -> list[str]:
    escaped = [f"| {' | '.join(map(_escape_markdown, line))} |" for line in [table.header, *table.lines]]
    ruler = [":--"] * table.left + ["--:"] * (len(table.header) - table.left)
    return [escaped[0], f"| {' | '.join(ruler)} |", *escaped[1:]]


def _escape_markdown(words: str) -> str:
    # Only where Markdown would read it as a mark: an underscore inside a word, or a number in brackets, is none.
    escaped = re.sub(r"[\\`*|~]|<(?=[A-Za-z/!?])|&(?=[\w#])|(?<!\w)_|_(?!\w)|(?<=\])\(", r"\\\g<0>", words)
    return " ".join(escaped.split())


def _latex_table(table: Table, caption: str) -> str:
    columns = "l" * table.left + "r" * (len(table.header) - table.left)
    label = re.sub("[^A-Za-z0-9]+", "-", table.name)
    lines = [" & ".join(map(escape_latex, line)) + r" \\" for line in table.lines]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}: {escape_latex(table.title)}}}",
            rf"\label{{tab:{label}}}",
            # As wide as the text at most.
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(escape_latex, table.header)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            *(rf"\par\smallskip\footnotesize {escape_latex(note)}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )

"""The legends of tables with scores: what a reader has to know."""

from __future__ import annotations

from collections.abc import Iterable

from milepost.report.tables import ScoreRow

INTERVALS = "In brackets: the 95 % interval over items."
SHORT = (
    "0.742(35): the mean 0.742 with its standard error over items, 0.035; without brackets, the error is 0 or unknown."
)
LETTERS = "Within a task, checkpoints that share a letter could not be told apart (all pairs together at 5 %)."
HARNESS = "harness: an external harness's own standard error and a normal interval, without the answers behind them."
PARTIAL = "PARTIAL: only so many of the task's items were asked. Good for a smoke test, not for a conclusion."
MARKED = "!: the number is not what it seems, and should not be quoted without its reason."
SHARES = (
    "Truncated, empty, unreadable, failed: shares of all answers. Failed and unreadable ones have no score. Reasoning cut: "
    "reasoning that did not end, so that no answer follows. In place of text: a refusal, what a content filter left, "
    "reasoning only, or calls of tools. Identical: one text to whatever item."
)


def notes(rows: Iterable[ScoreRow]) -> list[str]:
    """The legend of the summary table: what a reader has to know."""
    rows = list(rows)
    legend = [INTERVALS]
    legend += [PARTIAL] * any(row.partial for row in rows)
    legend += [HARNESS] * any(row.harness for row in rows)
    return [*legend, *reasons(rows)]


def short_notes(rows: Iterable[ScoreRow]) -> list[str]:
    """The legend of tables with scores in the short form: what a reader has to know."""
    rows = list(rows)
    references = {row.reference for row in rows if row.reference}
    legend = [SHORT]
    if any(row.change for row in rows):
        what = f"than {references.pop()}" if len(references) == 1 else "than the first step of its run that has scores"
        legend.append(
            f"↑ ↓: better or worse {what}, both together at 5 %, corrected for all that were compared with it."
        )
    legend += [LETTERS] * any(row.letters for row in rows)
    return [*legend, *notes(rows)[1:]]


def reasons(rows: Iterable[ScoreRow], most: int = 40) -> list[str]:
    """Why numbers are marked, a line for each: the legend of `!`."""
    marked = [row for row in rows if row.marks]
    lines = [f"! {row.ckpt}, {row.title}: {row.reasons}" for row in marked[:most]]
    more = [f"! {len(marked) - most} more numbers are marked: see the columns `marks` and `reasons` of scores.csv."]
    return [*[MARKED] * bool(marked), *lines, *more * (len(marked) > most)]

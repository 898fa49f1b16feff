"""The figure of EQUATOR's scores: categories, a dot for each model with its interval, a panel for each evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milepost.scorers.equator.tables import ALL, CategoryRow
from milepost.style import LABEL, MARKERS, SMALL, TITLE, colours, lay_out, save, theme, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, NAMES_WIDTH = 3.4, 2.4  # of a plot and of the categories' names, in inches
MODEL_HEIGHT = 0.13


def draw_categories(stem: Path, rows: Sequence[CategoryRow], title: str, partial: str | None = None) -> None:
    """Write a figure as SVG and PNG. The same rows give the same bytes.

    Args:
        stem: Path without the suffix.
        rows: The table; `CategoryRow`s without a mean are left out.
        title: The task's.
        partial: What of the task was asked, where it is not all.
    """
    from matplotlib.figure import Figure

    evaluators = list(dict.fromkeys(row.evaluator for row in rows))
    students = list(dict.fromkeys(row.student for row in rows))
    categories = [ALL, *sorted({row.category for row in rows} - {ALL})]
    with theme():
        names = [wrap(name, NAMES_WIDTH, SMALL) for name in categories]
        lines = max(name.count("\n") + 1 for name in names)
        size = WIDTH, max(1.2, len(categories) * max(0.15 + 0.15 * lines, 0.1 + MODEL_HEIGHT * len(students)))
        figure = Figure()
        grid = [figure.add_axes((0, 0, 1, 1), label=evaluator) for evaluator in evaluators]
        legend: dict[Any, tuple[Any, str]] = {}
        for axes, evaluator in zip(grid, evaluators, strict=True):
            own = [row for row in rows if row.evaluator == evaluator]
            legend |= _draw(axes, own, categories, students)
            axes.set_yticks(range(len(categories)), names)
            axes.set_xlabel(wrap("right answers (%), 95 % interval over questions", WIDTH, LABEL))
            over = "all evaluators" if evaluator == ALL else f"marked by {evaluator}"
            axes.set_title(wrap(over, WIDTH, TITLE, "bold"))
        head = f"{title}: answers that agree with the answer key", f"PARTIAL: {partial} items" if partial else ""
        lay_out(grid, min(3, len(grid)), [size] * len(grid), {name: legend[name] for name in students}, head)
        save(figure, stem)


def _draw(
    axes: Axes, rows: Sequence[CategoryRow], categories: Sequence[str], students: Sequence[str]
) -> dict[str, tuple[Any, str]]:
    drawn = {}
    for number, (student, colour) in enumerate(zip(students, colours(len(students)), strict=True)):
        own = [row for row in rows if row.student == student and row.mean_score is not None]
        # Side by side within the category's line, the first model on top.
        shift = (number + 0.5) / len(students) * 0.8 - 0.4
        places = [categories.index(row.category) + shift for row in own]
        means = [row.mean_score or 0.0 for row in own]
        lows = [mean - (mean if row.ci95_low is None else row.ci95_low) for mean, row in zip(means, own, strict=True)]
        highs = [
            (mean if row.ci95_high is None else row.ci95_high) - mean for mean, row in zip(means, own, strict=True)
        ]
        # The interval's middle is not the mean: near 0 and 100 an end may lie on its other side.
        errors = [[max(0.0, low) for low in lows], [max(0.0, high) for high in highs]]
        look: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4, "color": colour}
        drawn[student] = axes.errorbar(means, places, xerr=errors, linestyle="", **look), student
    axes.set_ylim(len(categories) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    return drawn

"""The figure of EQUATOR's scores: categories, a dot for each model with its interval, a panel for each evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from milepost.scorers.equator.tables import ALL, CategoryRow
from milepost.style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 8  # models that colours of a list tell apart


def draw_categories(stem: Path, rows: Sequence[CategoryRow], title: str, partial: str | None = None) -> None:
    """Write a figure as SVG and PNG. The same rows give the same bytes.

    Args:
        stem: Path without the suffix.
        rows: The table; `CategoryRow`s without a mean are left out.
        title: The task's.
        partial: What of the task was asked, where it is not all.
    """
    import seaborn as sns
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    evaluators = list(dict.fromkeys(row.evaluator for row in rows))
    students = list(dict.fromkeys(row.student for row in rows))
    categories = [ALL, *sorted({row.category for row in rows} - {ALL})]
    with rc_context():
        sns.set_theme(context="paper", style="whitegrid", font="DejaVu Sans", font_scale=1.1, rc=STYLE)
        palette = sns.color_palette("colorblind" if len(students) <= FEW else "viridis", len(students))
        height = 1.8 + len(categories) * max(0.35, 0.13 * len(students))
        figure = Figure(figsize=(max(6.4, 1.5 + 3.6 * len(evaluators)), min(height, 60.0)))
        grid = figure.subplots(1, len(evaluators), sharey=True, squeeze=False)[0]
        for axes, evaluator in zip(grid, evaluators, strict=True):
            own = [row for row in rows if row.evaluator == evaluator]
            _draw(axes, own, categories, students, palette)
            axes.set_title("all evaluators" if evaluator == ALL else f"marked by {evaluator}", fontsize="medium")
        mark = f" · PARTIAL {partial}" if partial else ""
        figure.suptitle(f"{title}: answers that agree with the answer key{mark}", fontweight="bold")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))))
        figure.savefig(stem.with_name(f"{stem.name}.svg"), metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")
        figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=160, metadata={"Software": None})


def _draw(
    axes: Axes,
    rows: Sequence[CategoryRow],
    categories: Sequence[str],
    students: Sequence[str],
    palette: Sequence[tuple[float, float, float]],
) -> None:
    for number, student in enumerate(students):
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
        axes.errorbar(means, places, xerr=errors, fmt="o", markersize=4, color=palette[number], label=student)
    axes.set_yticks(range(len(categories)), categories)
    axes.set_ylim(len(categories) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.set_xlabel("right answers (%), 95 % interval over questions")

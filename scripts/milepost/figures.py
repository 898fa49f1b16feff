"""From the tables to figures: one for each task, as SVG and PNG with the data drawn beside it, and a sheet of all.

Scores stand over the training step, a line for each run with its 95 % interval; checkpoints without a step stand as
dots beside their names. The same tables give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from milepost.errors import ConfigError, UnknownTaskError, did_you_mean
from milepost.tables import MetricRow, Row, ScoreRow

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Nine of them beside ten colours: runs look alike from the ninety-first on.
MARKERS = "osD^vPX<>"
# None is dotted: chance is.
DASHES = ((4, 2), (6, 2, 1, 2), (2, 1), (6, 2, 1, 2, 1, 2))
GREY, RED = "0.4", "#b3261e"

# Words of metrics that are yes or no for each answer.
YES_OR_NO = ("acc", "match", "correct", "wrong", "agree", "exact", "strict", "loose", "pass", "truth")

STYLE = {
    "svg.hashsalt": "milepost",
    "svg.fonttype": "none",  # small files, text that can be searched, and any script that the reader's fonts know
    "text.parse_math": False,  # a $ in a title is a $
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.92",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}


@dataclass(frozen=True)
class Panel:
    """What the figure of one task shows.

    `rows` are all checkpoints in their order, those without a score too; `beside` holds further metrics to draw thinly,
    with a row for each checkpoint likewise; `runs` are the runs of the whole campaign and `outside` its checkpoints
    without a step, so that both look the same in all figures.
    """

    task: str
    rows: pd.DataFrame
    beside: pd.DataFrame
    runs: list[str]
    outside: list[str]

    @property
    def metric(self) -> str:
        """The headline metric, in words; nothing where no checkpoint has a summary."""
        return next((metric.replace("_", " ") for metric in self.rows["metric"].dropna()), "")

    @property
    def unit(self) -> bool:
        """Whether all that is drawn lies in [0, 1]."""
        return all(table["value"].dropna().between(0, 1).all() for table in (self.rows, self.beside))

    @property
    def stepped(self) -> bool:
        """Whether there is a training step to draw over."""
        return bool(self.rows["step"].notna().any())

    @property
    def harness(self) -> bool:
        """Whether the numbers are a harness's own."""
        return bool(self.rows["harness"].any())

    @property
    def stamp(self) -> str:
        """Says PARTIAL, or nothing."""
        partial = [text.replace("/", " of ") for text in self.rows["partial"].dropna().unique()]
        return f"PARTIAL: {', '.join(partial)} items" if partial else ""


def make_panels(
    scores: Sequence[ScoreRow], metrics: Sequence[MetricRow], beside: Mapping[str, Sequence[str]]
) -> list[Panel]:
    """The panels of tasks.

    Args:
        scores: Headline scores.
        metrics: All metrics.
        beside: The tasks in the order of the sheet; for each the metrics to draw beside its score.

    Raises:
        UnknownTaskError: A task has no row in the table.
        ConfigError: A metric to be drawn beside a score does not exist.
    """
    import pandas as pd

    all_scores, all_metrics = _to_frame(scores, ScoreRow), _to_frame(metrics, MetricRow)
    placed = all_scores.dropna(subset="step")
    runs = list((all_scores if placed.empty else placed)["label"].unique())
    outside = [ckpt for ckpt in all_scores["ckpt"].unique() if ckpt not in set(placed["ckpt"])]
    known = list(all_scores["task"].unique())
    panels = []
    for task, names in beside.items():
        if task not in known:
            raise UnknownTaskError(
                f"No score is of task {task!r}.{did_you_mean(task, known)} Tasks in the table: {', '.join(known)}."
            )
        rows = all_scores[all_scores["task"] == task]
        of_task = all_metrics[all_metrics["task"] == task]
        there = list(of_task["metric"].unique())
        for name in names:
            if there and name not in there:
                raise ConfigError(
                    f"Task {task!r} has no metric {name!r} to draw.{did_you_mean(name, there)} "
                    f"Its metrics: {', '.join(there)}."
                )
        every = rows[["ckpt", "run", "label", "step"]].merge(pd.Series(names, name="metric", dtype=str), how="cross")
        extra = every.merge(of_task[["ckpt", "metric", "value", "ci_low", "ci_high"]], how="left")
        panels.append(Panel(task, rows, extra, runs, outside))
    return panels


def draw_figures(out: str | Path, panels: Sequence[Panel]) -> None:
    """Write {task}.svg, .png and .csv for each panel, and all.svg and all.png, into a folder."""
    import seaborn as sns
    from matplotlib import rc_context

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with rc_context():
        # A font that comes with Matplotlib: no machine lacks it, and the layout does not depend on what else is installed.
        sns.set_theme(context="paper", style="whitegrid", font="DejaVu Sans", font_scale=1.1, rc=STYLE)
        for panel in panels:
            _save(_draw_sheet([panel]), out / panel.task)
            _write_data(out / f"{panel.task}.csv", panel)
        _save(_draw_sheet(panels), out / "all")


def metric_label(metric: str, unit: bool) -> str:
    """An axis label for a metric, with its unit.

    >>> metric_label("avert match", True), metric_label("style", True), metric_label("loss", False)
    ('avert match (share of answers)', 'style (mean, 0 to 1)', 'loss (mean over items)')
    """
    if not unit:
        return f"{metric or 'score'} (mean over items)"
    yes_or_no = any(word in metric.lower() for word in YES_OR_NO)
    return f"{metric or 'score'} ({'share of answers' if yes_or_no else 'mean, 0 to 1'})"


def _to_frame(rows: Sequence[Row], kind: type[Row]) -> pd.DataFrame:
    """Rows as a table with numbers in float columns, and a `label` for each run."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=[field.name for field in fields(kind)])
    numbers = {"step", "value", "ci_low", "ci_high", "chance"} & set(table)
    unnamed = "score" if table["run"].isna().all() else "no run"
    return table.astype(dict.fromkeys(numbers, float)).assign(label=table["run"].fillna(unnamed))


def _draw_sheet(panels: Sequence[Panel]) -> Figure:
    """One figure of all panels, up to three in a row, with one legend below them."""
    from matplotlib.figure import Figure

    # Four make a square; otherwise three stand side by side.
    columns = 2 if len(panels) == 4 else max(1, min(3, len(panels)))
    lines = -(-len(panels) // columns) or 1
    # Names of checkpoints need a line each.
    names = max([len(panel.rows) for panel in panels if not panel.stepped], default=0)
    height = max(4.0, 1.6 + 0.28 * names)
    figure = Figure(figsize=(6.4, height + 0.4) if columns == 1 else (4.6 * columns, (height - 0.3) * lines + 0.5))
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if handles:
        width = min(len(handles), 4 * columns)
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=width)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    # Over the plot, from below: the stamp if there is one, what is seen, the title.
    over: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    lift = 22 if panel.stamp else 5
    by = "by training step" if panel.stepped else "by checkpoint"
    subtitle = f"{panel.metric} {by}{', by a harness' if panel.harness else ''}".strip()
    axes.set_title(fill(panel.rows["title"].iloc[0], 44), pad=lift + 16)
    axes.annotate(subtitle, (0, 1), (0, lift), color=GREY, **over)
    if panel.stamp:
        box = {"facecolor": "white", "edgecolor": RED, "boxstyle": "round,pad=0.25", "linewidth": 0.8}
        axes.annotate(panel.stamp, (0, 1), (3, 7), color=RED, bbox=box, fontsize=8, fontweight="bold", **over)
    if not (panel.rows["value"].notna().any() or panel.beside["value"].notna().any()):
        axes.text(0.5, 0.5, "no scores", transform=axes.transAxes, ha="center", color=GREY)
    (_draw_curves if panel.stepped else _draw_dots)(axes, panel)
    # The sheet has one legend for all.
    if legend := axes.get_legend():
        legend.remove()
    if panel.rows["ci_low"].notna().any():
        own = " (harness's own)" if panel.harness else ""
        axes.fill_between([], [], [], color=GREY, alpha=0.3, linewidth=0, label=f"95 % interval{own}")


def _draw_curves(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    colours = _colours(panel)
    rows = panel.rows.dropna(subset="step")
    for label, curve in rows.sort_values("step").groupby("label", sort=False):
        colour, low = colours[str(label)], curve["ci_low"]
        axes.fill_between(curve["step"], low, curve["ci_high"], color=colour, alpha=0.16, linewidth=0)
        # A band has no width where both neighbours are missing: a bar shows the interval there.
        alone = curve[low.shift().isna() & low.shift(-1).isna()]
        axes.vlines(alone["step"], alone["ci_low"], alone["ci_high"], color=colour, linewidth=1.8, alpha=0.55)
    _draw_lines(axes, rows, linewidth=1.8, zorder=3, dashes=False, **_look(panel, rows))
    _draw_beside(axes, panel)
    outside = panel.rows[panel.rows["step"].isna()].dropna(subset="value")
    for ckpt, value, low, high in outside[["ckpt", "value", "ci_low", "ci_high"]].to_numpy():
        # A model outside of training, such as the one that a run started from.
        axes.axhspan(low, high, color=colours[ckpt], alpha=0.08, linewidth=0)
        axes.axhline(value, color=colours[ckpt], linestyle="--", linewidth=1.3, label=ckpt)
    _mark_chance(axes.axhline, panel)
    axes.set(xlabel="training step", ylabel=metric_label(panel.metric, panel.unit))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.10g}")
    if rows["step"].nunique() == 1:
        only = rows["step"].iloc[0]
        axes.set(xlim=(only - 1, only + 1), xticks=[only])
    if panel.unit:
        axes.set_ylim(-0.02, 1.02)


def _draw_lines(axes: Axes, table: pd.DataFrame, **look: Any) -> None:
    """A line for each run, broken where a checkpoint has no value."""
    import seaborn as sns

    table = table.sort_values("step")
    # Seaborn leaves missing values out and would draw across: what lies between two of them is a line of its own.
    table["stretch"] = table["value"].isna().groupby(table["label"]).cumsum()
    values = table.dropna(subset="value")
    if not values.empty:
        sns.lineplot(values, x="step", y="value", hue="label", units="stretch", estimator=None, ax=axes, **look)


def _draw_beside(axes: Axes, panel: Panel) -> None:
    """Further metrics as thin lines: in the colour of their run, or in colours of their own where there is one run."""
    import seaborn as sns

    own = sns.color_palette("colorblind")[1:]
    for place, (name, table) in enumerate(panel.beside.dropna(subset="step").groupby("metric", sort=False)):
        colour = own[place % len(own)]
        look: dict[str, Any] = {"linestyle": (0, DASHES[place % len(DASHES)]), "linewidth": 1.1}
        palette = _colours(panel) if len(panel.runs) > 1 else {panel.runs[0]: colour}
        _draw_lines(axes, table, palette=palette, legend=False, marker=".", markersize=4, mew=0, zorder=2.5, **look)
        colour = GREY if len(panel.runs) > 1 else colour
        axes.plot([], [], color=colour, label=str(name).replace("_", " "), **look)


def _draw_dots(axes: Axes, panel: Panel) -> None:
    import seaborn as sns

    place = {ckpt: place for place, ckpt in enumerate(panel.rows["ckpt"])}
    rows = panel.rows.assign(place=panel.rows["ckpt"].map(place))
    colours = [_colours(panel)[label] for label in rows["label"]]
    axes.hlines(rows["place"], rows["ci_low"], rows["ci_high"], color=colours, linewidth=1.8, alpha=0.55)
    if rows["value"].notna().any():
        sns.scatterplot(rows, x="value", y="place", hue="label", s=50, zorder=3, ax=axes, **_look(panel, rows))
    for marker, (name, table) in zip(cycle(MARKERS[1:]), panel.beside.groupby("metric", sort=False), strict=False):
        hollow: dict[str, Any] = {"marker": marker, "fillstyle": "none", "linestyle": "", "color": GREY}
        axes.plot(table["value"], table["ckpt"].map(place), label=str(name).replace("_", " "), **hollow)
    _mark_chance(axes.axvline, panel)
    axes.set_yticks(list(place.values()), list(place))
    axes.set(xlabel=metric_label(panel.metric, panel.unit), ylabel="checkpoint", ylim=(len(place) - 0.5, -0.5))
    if panel.unit:
        axes.set_xlim(-0.02, 1.02)


def _mark_chance(line: Any, panel: Panel) -> None:
    if panel.rows["chance"].notna().any():
        line(panel.rows["chance"].mean(), color=GREY, linestyle=":", linewidth=1.3, label="chance", zorder=1.5)


def _colours(panel: Panel) -> dict[str, Any]:
    """A colour for each run, and for each checkpoint outside of them."""
    import seaborn as sns

    names = [*panel.runs, *panel.outside]
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def _look(panel: Panel, rows: pd.DataFrame) -> dict[str, Any]:
    """What tells runs apart, for those that have a value here: a run looks the same in all figures."""
    values = set(rows.dropna(subset="value")["label"])
    order = [run for run in panel.runs if run in values]
    markers = dict(zip(panel.runs, cycle(MARKERS), strict=False))
    return {"hue_order": order, "style": "label", "style_order": order, "palette": _colours(panel), "markers": markers}


def _save(figure: Figure, stem: Path) -> None:
    figure.savefig(stem.with_name(f"{stem.name}.svg"), metadata={"Date": None, "Creator": None})
    # The layout is found; finding it again for the second format would take longer than drawing.
    figure.set_layout_engine("none")
    figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=160, metadata={"Software": None})


def _write_data(path: Path, panel: Panel) -> None:
    """What was drawn, to draw it again elsewhere."""
    import pandas as pd

    rows = panel.rows.assign(harness=panel.rows["harness"].astype(str).str.lower())
    columns = ["ckpt", "run", "step", "metric", "value", "ci_low", "ci_high", "chance", "partial", "harness"]
    pd.concat([rows, panel.beside]).to_csv(path, columns=columns, index=False, lineterminator="\n")

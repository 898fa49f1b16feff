"""One panel of a figure: the scores of one task over the training step, or beside the checkpoints' names."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Nine of them beside ten colours: runs look alike from the ninety-first on.
MARKERS = "osD^vPX<>"
# None is dotted: chance is.
DASHES = ((4, 2), (6, 2, 1, 2), (2, 1), (6, 2, 1, 2, 1, 2))
GREY, RED = "0.4", "#b3261e"

# What a band can be, as the legend says it.
BANDS = {
    "ci95": "95 % interval",
    "sem": "± standard error over runs",
    "std": "± standard deviation over runs",
    "none": "",
}
FIRST_BETTER = "first step better than the start (p ≤ .05)"

# Words of metrics that are yes or no for each answer.
YES_OR_NO = ("acc", "match", "correct", "wrong", "agree", "exact", "strict", "loose", "pass", "truth")


@dataclass(frozen=True)
class Panel:
    """What the figure of one task shows.

    `rows` are all checkpoints in their order, those without a score too, with the columns of scores.csv and `label` (the
    run's), `band_low`, `band_high`, `smoothed` and `first_better`. `beside` holds further metrics to draw thinly, with a
    row for each checkpoint likewise; `runs` are the runs of the whole campaign and `outside` its checkpoints without a
    step, so that both look the same in all figures.
    """

    task: str
    rows: pd.DataFrame
    beside: pd.DataFrame
    runs: list[str]
    outside: list[str]
    band: str = "ci95"
    smoothing: int = 0

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
        """Whether some numbers are a harness's own."""
        return bool(self.rows["harness"].any())

    @property
    def stamp(self) -> str:
        """Says PARTIAL, or nothing: items that were not asked, checkpoints that have no summary."""
        parts = [f"{text.replace('/', ' of ')} items" for text in self.rows["partial"].dropna().unique()]
        there = int(self.rows["metric"].notna().sum())
        parts += [f"{there} of {len(self.rows)} checkpoints"] * (there < len(self.rows))
        return f"PARTIAL: {', '.join(parts)}" if parts else ""


def metric_label(metric: str, unit: bool) -> str:
    """An axis label for a metric, with its unit.

    >>> metric_label("avert match", True), metric_label("style", True), metric_label("loss", False)
    ('avert match (share of answers)', 'style (mean, 0 to 1)', 'loss (mean over items)')
    """
    if not unit:
        return f"{metric or 'score'} (mean over items)"
    yes_or_no = any(word in metric.lower() for word in YES_OR_NO)
    return f"{metric or 'score'} ({'share of answers' if yes_or_no else 'mean, 0 to 1'})"


def moving_mean(values: pd.Series, reach: int) -> pd.Series:
    """The centred moving mean over `reach` values on either side; fewer near the ends, as many on each side.

    A window that stays symmetric does not bend a curve at its ends: the first and the last value stay what they are.

    >>> import pandas as pd
    >>> moving_mean(pd.Series([0.0, 3.0, 3.0, 6.0]), 1).to_list()
    [0.0, 2.0, 4.0, 6.0]
    """
    last = len(values) - 1
    reaches = [min(reach, place, last - place) for place in range(last + 1)]
    means = [values.iloc[place - near : place + near + 1].mean() for place, near in enumerate(reaches)]
    return type(values)(means, index=values.index, dtype=float)


def stretches(table: pd.DataFrame) -> pd.Series:
    """A number for each row of a table sorted by step: neighbours of a run share it until a value is missing."""
    return table["value"].isna().groupby(table["label"]).cumsum()


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw everything of a panel but its legend."""
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
    (draw_curves if panel.stepped else draw_dots)(axes, panel)
    # The sheet has one legend for all.
    if legend := axes.get_legend():
        legend.remove()
    if panel.rows["band_low"].notna().any():
        own = " (harness's own)" if panel.harness and panel.band == "ci95" else ""
        axes.fill_between([], [], [], color=GREY, alpha=0.3, linewidth=0, label=f"{BANDS[panel.band]}{own}")


def draw_curves(axes: Axes, panel: Panel) -> None:
    """A line with its band for each run; level lines for checkpoints outside of training, and for chance."""
    from matplotlib.ticker import MaxNLocator

    colours = _colours(panel)
    rows = panel.rows.dropna(subset="step").sort_values("step")
    for label, curve in rows.groupby("label", sort=False):
        colour, low = colours[str(label)], curve["band_low"]
        axes.fill_between(curve["step"], low, curve["band_high"], color=colour, alpha=0.16, linewidth=0)
        # A band has no width where both neighbours are missing: a bar shows the interval there.
        alone = curve[low.shift().isna() & low.shift(-1).isna()]
        axes.vlines(alone["step"], alone["band_low"], alone["band_high"], color=colour, linewidth=1.8, alpha=0.55)
    smooth = rows["smoothed"].notna().any()
    # The points stay as they are under a smooth line; what joins them steps back.
    width, alpha = (0.8, 0.55) if smooth else (2.2, 1.0)
    _draw_lines(axes, rows, linewidth=width, alpha=alpha, zorder=3, dashes=False, **_look(panel, rows))
    if smooth:
        _draw_smooth(axes, panel, rows)
    _mark_rows(axes, rows, colours, "step", "value")
    _draw_beside(axes, panel)
    outside = panel.rows[panel.rows["step"].isna()].dropna(subset="value")
    for ckpt, value, low, high in outside[["ckpt", "value", "band_low", "band_high"]].to_numpy():
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


def draw_dots(axes: Axes, panel: Panel) -> None:
    """A dot with its bar beside the name of each checkpoint."""
    import seaborn as sns

    place = {ckpt: place for place, ckpt in enumerate(panel.rows["ckpt"])}
    rows = panel.rows.assign(place=panel.rows["ckpt"].map(place))
    palette = _colours(panel)
    colours = [palette[label] for label in rows["label"]]
    axes.hlines(rows["place"], rows["band_low"], rows["band_high"], color=colours, linewidth=1.8, alpha=0.55)
    if rows["value"].notna().any():
        sns.scatterplot(rows, x="value", y="place", hue="label", s=50, zorder=3, ax=axes, **_look(panel, rows))
    _mark_rows(axes, rows, palette, "value", "place")
    for marker, (name, table) in zip(cycle(MARKERS[1:]), panel.beside.groupby("metric", sort=False), strict=False):
        hollow: dict[str, Any] = {"marker": marker, "fillstyle": "none", "linestyle": "", "color": GREY, "zorder": 4}
        axes.plot(table["value"], table["ckpt"].map(place), label=_words(name), **hollow)
    _mark_chance(axes.axvline, panel)
    axes.set_yticks(list(place.values()), list(place))
    axes.set(xlabel=metric_label(panel.metric, panel.unit), ylabel="checkpoint", ylim=(len(place) - 0.5, -0.5))
    if panel.unit:
        axes.set_xlim(-0.02, 1.02)


def _draw_lines(axes: Axes, table: pd.DataFrame, **look: Any) -> None:
    """A line for each run, broken where a checkpoint has no value."""
    import seaborn as sns

    table = table.sort_values("step")
    # Seaborn leaves missing values out and would draw across: what lies between two of them is a line of its own.
    values = table.assign(stretch=stretches(table)).dropna(subset="value")
    if not values.empty:
        sns.lineplot(values, x="step", y="value", hue="label", units="stretch", estimator=None, ax=axes, **look)


def _draw_smooth(axes: Axes, panel: Panel, rows: pd.DataFrame) -> None:
    """The smoothed line of each run, over its points."""
    from matplotlib.lines import Line2D

    colours = _colours(panel)
    for (label, _), curve in rows.dropna(subset="smoothed").groupby(["label", stretches(rows)], sort=False):
        axes.plot(curve["step"], curve["smoothed"], color=colours[str(label)], linewidth=2.2, zorder=3.2)
    name = f"moving mean of {2 * panel.smoothing + 1} checkpoints"
    axes.add_line(Line2D([], [], color=GREY, linewidth=2.2, label=name))


def _mark_rows(axes: Axes, rows: pd.DataFrame, colours: dict[str, Any], x: str, y: str) -> None:
    """Hollow points for a harness's own numbers; a star on the first better step of a run."""
    edges = rows["label"].map(colours)
    own = rows["harness"].astype(bool) & rows["value"].notna()
    if own.any():
        name = "harness's own number"
        hollow: dict[str, Any] = {"facecolor": "white", "linewidth": 1.5, "zorder": 3.6}
        axes.scatter(rows.loc[own, x], rows.loc[own, y], s=16, edgecolor=list(edges[own]), **hollow)
        axes.scatter([], [], s=16, edgecolor=GREY, label=name, **hollow)
    first = rows["first_better"].astype(bool) & rows["value"].notna()
    if first.any():
        star: dict[str, Any] = {"marker": "*", "s": 160, "edgecolor": "black", "linewidth": 0.9, "zorder": 5}
        axes.scatter(rows.loc[first, x], rows.loc[first, y], color=list(edges[first]), **star)
        axes.scatter([], [], color="white", label=FIRST_BETTER, **{**star, "s": 110})


def _draw_beside(axes: Axes, panel: Panel) -> None:
    """Further metrics as thin lines: in the colour of their run, or in colours of their own where there is one run."""
    import seaborn as sns

    own = sns.color_palette("colorblind")[1:]
    for place, (name, table) in enumerate(panel.beside.dropna(subset="step").groupby("metric", sort=False)):
        colour = own[place % len(own)]
        # Above the score: where both have the same values, the thin one would be hidden.
        look: dict[str, Any] = {"linestyle": (0, DASHES[place % len(DASHES)]), "linewidth": 1.2, "zorder": 4}
        palette = _colours(panel) if len(panel.runs) > 1 else {panel.runs[0]: colour}
        _draw_lines(axes, table, palette=palette, legend=False, marker=".", markersize=5, mew=0, **look)
        colour = GREY if len(panel.runs) > 1 else colour
        axes.plot([], [], color=colour, label=_words(name), **look)


def _mark_chance(line: Any, panel: Panel) -> None:
    if panel.rows["chance"].notna().any():
        line(panel.rows["chance"].mean(), color=GREY, linestyle=":", linewidth=1.3, label="chance", zorder=1.5)


def _words(name: Any) -> str:
    return str(name).replace("_", " ").strip()


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

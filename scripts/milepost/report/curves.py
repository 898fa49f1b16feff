"""One panel of a figure: the scores of one task over the training step, or beside the checkpoints' names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from milepost.schemas import of_schema
from milepost.style import DASHES, GREY, LABEL, MARKERS, SMALL, colours, stack_over, wrap

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# What a legend tells of, in its order.
RUN, SMOOTHED, MARK, BESIDE, OUTSIDE, CHANCE, BAND = range(7)
Legend = dict[tuple[int, Any], tuple[Any, str]]
"""Handle and text of each entry, by its kind and name: a run may be named as a checkpoint is, or "chance"."""
Looks = dict[tuple[int, str], dict[str, Any]]

# Of a plot, in inches: alone, and in a sheet.
ALONE, SIDE_BY_SIDE = (5.2, 2.7), (3.4, 2.5)
NAMES_WIDTH = 2.4

# What a band can be, as the legend says it.
BANDS = {
    "ci95": "95 % interval",
    "sem": "± standard error over runs",
    "std": "± standard deviation over runs",
    "none": "",
}
MARKED = "! not what it seems: the table says why"
FIRST_BETTER = "first step better than the start (p ≤ .05)"

# Words of metrics that are yes or no for each answer.
YES_OR_NO = ("acc", "match", "correct", "wrong", "agree", "exact", "strict", "loose", "pass", "truth")


@dataclass(frozen=True)
class Panel:
    """What the figure of one task shows.

    `rows` are all checkpoints in their order, those without a score too, with the columns of scores.csv and `label` (the
    run's), `band_low`, `band_high`, `smoothed` and `first_better`. `beside` holds further metrics to draw thinly, with a
    row for each checkpoint likewise; `runs` are the runs of the whole campaign, `outside` its checkpoints without a step
    and `metrics` the further metrics of all its tasks, so that each looks the same in all figures.
    """

    task: str
    rows: pd.DataFrame
    beside: pd.DataFrame
    runs: list[str]
    outside: list[str]
    metrics: list[str] = field(default_factory=list)
    band: str = of_schema("config", "figures", "band")
    smoothing: int = of_schema("config", "figures", "smoothing")
    among_others: bool = False

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the plot itself, in inches: names of checkpoints need a line each, or more."""
        width, height = SIDE_BY_SIDE if self.among_others else ALONE
        if not self.stepped:
            lines = max(name.count("\n") + 1 for name in self.names)
            height = max(height, len(self.names) * (0.1 + 0.15 * lines))
        return width, height

    @property
    def names(self) -> list[str]:
        """The checkpoints' names, in lines."""
        return [wrap(name, NAMES_WIDTH, SMALL) for name in self.rows["ckpt"]]

    @property
    def value_label(self) -> str:
        """The label of the axis of scores."""
        return metric_label(self.metric, self.unit)

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
        """The stamp of a figure that shows a part only, with the numbers of items and checkpoints; empty where nothing is missing."""
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


def draw_panel(axes: Axes, panel: Panel) -> Legend:
    """Draw everything of a panel but its legend, and give what the legend has to say.

    Returns:
        Handle and text of each entry, by its kind (`RUN` and so on) and name: the same in all panels of a sheet.
    """
    by = "by training step" if panel.stepped else "by checkpoint"
    subtitle = f"{panel.metric} {by}{', by a harness' if panel.harness else ''}".strip()
    width, _ = panel.size
    stack_over(axes, panel.rows["title"].iloc[0], subtitle, panel.stamp, width)
    legend = (draw_curves if panel.stepped else draw_dots)(axes, panel)
    if not (panel.rows["value"].notna().any() or panel.beside["value"].notna().any()):
        axes.text(0.5, 0.5, "no scores", transform=axes.transAxes, ha="center", color=GREY)
    if panel.rows["band_low"].notna().any():
        from matplotlib.patches import Patch

        own = " (harness's own)" if panel.harness and panel.band == "ci95" else ""
        text = f"{BANDS[panel.band]}{own}"
        legend[BAND, text] = Patch(color=GREY, alpha=0.3, linewidth=0), text
    return legend


def draw_curves(axes: Axes, panel: Panel) -> Legend:
    """A line with its band for each run; level lines for checkpoints outside of training, and for chance."""
    from matplotlib.ticker import MaxNLocator

    legend: Legend = {}
    look = _looks(panel)
    rows = panel.rows.dropna(subset="step").sort_values("step", kind="stable")
    smooth = rows["smoothed"].notna().any()
    # The points stay as they are under a smooth line; what joins them steps back.
    line: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.55} if smooth else {"linewidth": 2.2}
    for label, curve in rows.groupby("label", sort=False):
        own, low = look[RUN, str(label)], curve["band_low"]
        axes.fill_between(curve["step"], low, curve["band_high"], color=own["color"], alpha=0.16, linewidth=0)
        # A band has no width where both neighbours are missing: a bar shows the interval there.
        alone = curve[low.shift().isna() & low.shift(-1).isna()]
        bar = {"color": own["color"], "linewidth": 1.8, "alpha": 0.55}
        axes.vlines(alone["step"], alone["band_low"], alone["band_high"], **bar)
        for _, stretch in _stretches(curve):
            (drawn,) = axes.plot(stretch["step"], stretch["value"], zorder=3, **own, **line)
            legend[RUN, label] = drawn, str(label)
    if smooth:
        text = f"moving mean of {2 * panel.smoothing + 1} checkpoints"
        thick: dict[str, Any] = {"linewidth": 2.2, "zorder": 3.2}
        for (run, _), curve in rows.dropna(subset="smoothed").groupby(["label", stretches(rows)], sort=False):
            axes.plot(curve["step"], curve["smoothed"], color=look[RUN, str(run)]["color"], **thick)
        legend[SMOOTHED, text] = _line(color=GREY, **thick), text
    legend |= _mark_rows(axes, rows, look, "step", "value") | _draw_beside(axes, panel, look)
    outside = panel.rows[panel.rows["step"].isna()].dropna(subset="value")
    columns = ["ckpt", "value", "band_low", "band_high", "marks"]
    for ckpt, value, low, high, marks in outside[columns].to_numpy():
        # A model outside of training, such as the one that a run started from.
        own = look[OUTSIDE, ckpt]
        axes.axhspan(low, high, color=own["color"], alpha=0.08, linewidth=0)
        legend[OUTSIDE, ckpt] = axes.axhline(value, linewidth=1.3, **own), f"{ckpt} !" if marks else ckpt
    legend |= _mark_chance(axes.axhline, panel)
    _label(axes, panel, "training step", panel.value_label)
    # As many numbers as find room beside each other.
    longest = max(len(f"{step:,.10g}") for step in rows["step"])
    ticks = max(1, min(6, int(12 * panel.size[0] / (longest + 2))))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.10g}")
    if rows["step"].nunique() == 1:
        only = rows["step"].iloc[0]
        axes.set(xlim=(only - 1, only + 1), xticks=[only])
    _set_values(axes, "y", panel)
    return legend


def draw_dots(axes: Axes, panel: Panel) -> Legend:
    """A dot with its bar beside the name of each checkpoint."""
    legend: Legend = {}
    look = _looks(panel)
    place = {ckpt: place for place, ckpt in enumerate(panel.rows["ckpt"])}
    rows = panel.rows.assign(place=panel.rows["ckpt"].map(place))
    for label, dots in rows.groupby("label", sort=False):
        own = look[RUN, str(label)]
        axes.hlines(dots["place"], dots["band_low"], dots["band_high"], color=own["color"], linewidth=1.8, alpha=0.55)
        if dots["value"].notna().any():
            (drawn,) = axes.plot(dots["value"], dots["place"], linestyle="", zorder=3, **own)
            legend[RUN, label] = drawn, str(label)
    legend |= _mark_rows(axes, rows, look, "value", "place")
    for name, table in panel.beside.groupby("metric", sort=False):
        marker = MARKERS[1 + panel.metrics.index(str(name)) % (len(MARKERS) - 1)]
        hollow: dict[str, Any] = {"marker": marker, "fillstyle": "none", "linestyle": "", "color": GREY, "zorder": 4}
        (drawn,) = axes.plot(table["value"], table["ckpt"].map(place), **hollow)
        legend[BESIDE, name] = drawn, _words(name)
    legend |= _mark_chance(axes.axvline, panel)
    axes.set_yticks(list(place.values()), panel.names)
    axes.set_ylim(len(place) - 0.5, -0.5)
    _label(axes, panel, panel.value_label, "checkpoint")
    _set_values(axes, "x", panel)
    return legend


def _label(axes: Axes, panel: Panel, x: str, y: str) -> None:
    width, height = panel.size
    axes.set(xlabel=wrap(x, width, LABEL), ylabel=wrap(y, height, LABEL))


def _set_values(axes: Axes, name: Literal["x", "y"], panel: Panel) -> None:
    """An axis of scores: all of [0, 1] where they lie in it, and no factor at its end that changes what numbers say."""
    from matplotlib.ticker import MaxNLocator

    if panel.unit:
        axes.set(**{f"{name}lim": (-0.02, 1.02)})
        return
    axis = axes.xaxis if name == "x" else axes.yaxis
    if float(panel.rows[["value", "band_low", "band_high"]].abs().to_numpy(float, na_value=0).max()) < 1e7:
        axes.ticklabel_format(axis=name, style="plain", useOffset=False)
    else:
        axis.set_major_formatter("{x:.4g}")
    axis.set_major_locator(MaxNLocator(nbins=5))


def _stretches(curve: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    """The parts of a run's curve between checkpoints without a value."""
    return curve.assign(stretch=stretches(curve)).dropna(subset="value").groupby("stretch")


def _mark_rows(axes: Axes, rows: pd.DataFrame, look: Looks, x: str, y: str) -> Legend:
    """Hollow points for a harness's own numbers; a star on the first better step of a run."""
    legend: Legend = {}
    edges = rows["label"].map({name: own["color"] for (kind, name), own in look.items() if kind == RUN})
    own = rows["harness"].astype(bool) & rows["value"].notna()
    if own.any():
        hollow: dict[str, Any] = {"facecolor": "white", "linewidth": 1.5, "zorder": 3.6}
        axes.scatter(rows.loc[own, x], rows.loc[own, y], s=16, edgecolor=list(edges[own]), **hollow)
        text = "harness's own number"
        legend[MARK, text] = axes.scatter([], [], s=16, edgecolor=GREY, **hollow), text
    marked = rows["marks"].notna() & rows["value"].notna()
    if marked.any():
        # A ring around the point: whatever the point looks like, it is seen.
        ring: dict[str, Any] = {
            "marker": "o",
            "facecolor": "none",
            "edgecolor": "black",
            "linewidth": 1.1,
            "zorder": 5,
            "clip_on": False,
        }
        axes.scatter(rows.loc[marked, x], rows.loc[marked, y], s=150, **ring)
        for at, to in rows.loc[marked, [x, y]].to_numpy():
            axes.annotate("!", (at, to), xytext=(7, 3), textcoords="offset points", fontsize=SMALL, fontweight="bold")
        legend[MARK, MARKED] = axes.scatter([], [], s=80, **ring), MARKED
    first = rows["first_better"].astype(bool) & rows["value"].notna()
    if first.any():
        star: dict[str, Any] = {"marker": "*", "s": 160, "edgecolor": "black", "linewidth": 0.9, "zorder": 5}
        axes.scatter(rows.loc[first, x], rows.loc[first, y], color=list(edges[first]), **star)
        handle = axes.scatter([], [], color="white", **{**star, "s": 110})
        legend[MARK, FIRST_BETTER] = handle, FIRST_BETTER
    return legend


def _draw_beside(axes: Axes, panel: Panel, look: Looks) -> Legend:
    """Further metrics as thin lines: in the look of their run, or in colours of their own where there is one run."""
    legend: Legend = {}
    several = len(panel.runs) > 1
    own = colours(10)[1:]
    for name, table in panel.beside.dropna(subset="step").groupby("metric", sort=False):
        place = panel.metrics.index(str(name))
        # Above the score: where both have the same values, the thin one would be hidden.
        thin: dict[str, Any] = {"linestyle": (0, DASHES[place % len(DASHES)]), "linewidth": 1.2, "zorder": 4}
        colour = GREY if several else own[place % len(own)]
        for label, curve in table.sort_values("step", kind="stable").groupby("label", sort=False):
            of_run = look[RUN, str(label)]
            point = {"color": of_run["color"], "marker": of_run["marker"], "markersize": 3} if several else {}
            for _, stretch in _stretches(curve):
                drawn = {"color": colour, "marker": ".", "markersize": 5, "markeredgewidth": 0, **thin, **point}
                axes.plot(stretch["step"], stretch["value"], **drawn)
        legend[BESIDE, name] = _line(color=colour, **thin), _words(name)
    return legend


def _mark_chance(line: Any, panel: Panel) -> Legend:
    if panel.rows["chance"].isna().all():
        return {}
    look: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.3, "zorder": 1.5}
    return {(CHANCE, "chance"): (line(panel.rows["chance"].mean(), **look), "chance")}


def _line(**look: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def _words(name: Any) -> str:
    return str(name).replace("_", " ").strip()


def _looks(panel: Panel) -> Looks:
    """How the points of each run look, and the line of each checkpoint outside of them: the same in all figures."""
    names = [*((RUN, run) for run in panel.runs), *((OUTSIDE, ckpt) for ckpt in panel.outside)]
    looks: Looks = {}
    for place, (key, colour) in enumerate(zip(names, colours(len(names)), strict=True)):
        if key[0] == RUN:
            point = {"marker": MARKERS[place % len(MARKERS)], "markeredgecolor": "white", "markeredgewidth": 0.75}
            looks[key] = {"color": colour, **point}
        else:
            looks[key] = {"color": colour, "linestyle": (0, DASHES[place % len(DASHES)])}
    return looks

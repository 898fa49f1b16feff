"""From the tables to figures: one for each task, as SVG and PNG with the data drawn beside it, and a sheet of all.

Scores stand over the training step, a line for each run with its band; checkpoints without a step stand as dots beside
their names. The same tables give the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from milepost.errors import ConfigError, UnknownTaskError, did_you_mean
from milepost.report.curves import Legend, Panel, draw_panel, moving_mean, stretches
from milepost.report.tables import MetricRow, Row, ScoreRow
from milepost.schemas import of_schema
from milepost.style import lay_out, save, theme

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Columns of the data beside a figure.
DRAWN = (
    "ckpt", "run", "step", "metric", "value", "ci_low", "ci_high", "band", "band_low", "band_high", "smoothed",
    "first_better", "chance", "partial", "harness", "marks",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """The part `figures` of config/config.yaml: what bands show, and how far a moving mean reaches on either side."""

    band: str = of_schema("config", "figures", "band")
    smoothing: int = of_schema("config", "figures", "smoothing")


def make_panels(
    scores: Sequence[ScoreRow],
    metrics: Sequence[MetricRow],
    beside: Mapping[str, Sequence[str]],
    first_better: Collection[tuple[str, str]] = (),
    look: Look | None = None,
) -> list[Panel]:
    """The panels of tasks.

    Args:
        scores: Headline scores.
        metrics: All metrics.
        beside: The tasks in the order of the sheet; for each the metrics to draw beside its score.
        first_better: Tasks and checkpoints to mark, (task, ckpt): each a run's first better step.
        look: Bands and smoothing.

    Raises:
        UnknownTaskError: A task has no row in the table.
        ConfigError: A metric to be drawn beside a score does not exist.
    """
    import pandas as pd

    look = look or Look()
    all_scores, all_metrics = _to_frame(scores, ScoreRow), _to_frame(metrics, MetricRow)
    placed = all_scores.dropna(subset="step")
    runs = list((all_scores if placed.empty else placed)["label"].unique())
    outside = [ckpt for ckpt in all_scores["ckpt"].unique() if ckpt not in set(placed["ckpt"])]
    known = list(all_scores["task"].unique())
    others = list(dict.fromkeys(name for names in beside.values() for name in names))
    panels = []
    for task, names in beside.items():
        if task not in known:
            raise UnknownTaskError(
                f"No score is of task {task!r}.{did_you_mean(task, known)} Tasks in the table: {', '.join(known)}."
            )
        rows = _with_look(all_scores[all_scores["task"] == task], look)
        rows["first_better"] = [(task, ckpt) in first_better for ckpt in rows["ckpt"]]
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
        panels.append(Panel(task, rows, extra, runs, outside, others, look.band, look.smoothing))
    return panels


def draw_figures(out: str | Path, panels: Sequence[Panel]) -> None:
    """Write {task}.svg, .png and .csv for each panel, and all.svg, .png and .csv, into a folder."""
    import pandas as pd

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    drawn = []
    with theme():
        for panel in panels:
            save(_draw_sheet([panel]), out / panel.task)
            drawn.append(_drawn(panel))
            _write_csv(drawn[-1], out / f"{panel.task}.csv")
        save(_draw_sheet(panels), out / "all")
    titled = [table.assign(task=panel.task) for table, panel in zip(drawn, panels, strict=True)]
    _write_csv(pd.concat(titled)[["task", *DRAWN]], out / "all.csv")


def _to_frame(rows: Sequence[Row], kind: type[Row]) -> pd.DataFrame:
    """Rows as a table with numbers in float columns, and a `label` for each run."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=[field.name for field in fields(kind)])
    numbers = {"step", "value", "ci_low", "ci_high", "chance", "run_std", "run_sem"} & set(table)
    unnamed = "score" if table["run"].isna().all() else "no run"
    # A run may have this very name.
    while unnamed in set(table["run"]):
        unnamed = f"({unnamed})"
    return table.astype(dict.fromkeys(numbers, float)).assign(label=table["run"].fillna(unnamed))


def _with_look(rows: pd.DataFrame, look: Look) -> pd.DataFrame:
    """Rows with the ends of their bands and the smoothed curve; what there is no number for is left empty."""
    rows = rows.assign(band=look.band, band_low=float("nan"), band_high=float("nan"), smoothed=float("nan"))
    if look.band == "ci95":
        rows = rows.assign(band_low=rows["ci_low"], band_high=rows["ci_high"])
    elif look.band != "none":
        half = rows[f"run_{look.band}"]
        rows = rows.assign(band_low=rows["value"] - half, band_high=rows["value"] + half)
    if look.smoothing:
        curve = rows.dropna(subset="step").sort_values("step")
        groups = curve.assign(stretch=stretches(curve)).dropna(subset="value").groupby(["label", "stretch"])["value"]
        for _, values in groups:
            smoothed = moving_mean(values, look.smoothing)
            rows.loc[smoothed.index, "smoothed"] = smoothed
    return rows


def _draw_sheet(panels: Sequence[Panel]) -> Figure:
    """One figure of all panels, up to three in a row, with one legend below them."""
    from matplotlib.figure import Figure

    # Four make a square; otherwise three stand side by side.
    columns = 2 if len(panels) == 4 else max(1, min(3, len(panels)))
    panels = [replace(panel, among_others=len(panels) > 1) for panel in panels]
    figure = Figure()
    axes = [figure.add_axes((0, 0, 1, 1), label=str(place)) for place in range(len(panels))]
    legend: Legend = {}
    for one, panel in zip(axes, panels, strict=True):
        for key, entry in draw_panel(one, panel).items():
            legend.setdefault(key, entry)
    in_order = {key: legend[key] for key in sorted(legend, key=lambda key: key[0])}
    lay_out(axes, columns, [panel.size for panel in panels], in_order)
    return figure


def _drawn(panel: Panel) -> pd.DataFrame:
    """The numbers that a panel shows, as the columns of the file beside it."""
    import pandas as pd

    marks = {name: panel.rows[name].astype(str).str.lower() for name in ("harness", "first_better")}
    return pd.concat([panel.rows.assign(**marks), panel.beside])[list(DRAWN)]


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n")

import csv
import re

import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

import plot
from milepost.campaign.shown import Shown, ShownTask
from milepost.errors import ConfigError, UnknownTaskError
from milepost.records import write_record
from milepost.report.curves import MARK, MARKED, RUN, SMOOTHED, draw_curves
from milepost.report.figures import Look, draw_figures, make_panels
from milepost.report.tables import MetricRow, ScoreRow, write_table


def row(value, step=None, ckpt=None, run=None, task="sums", **more):
    place = {"ckpt": ckpt or f"step-{step}", "run": run, "step": step, "task": task, "title": "Sums & <more> $x$"}
    if value is None:
        return ScoreRow(**{**place, **more})
    low, high = max(0, value - 0.1), value + 0.1
    return ScoreRow(**{**place, "metric": "accuracy", "value": value, "ci_low": low, "ci_high": high, **more})


def metric(name, value, step, task="sums"):
    place = {"ckpt": f"step-{step}", "run": None, "step": step, "task": task}
    return MetricRow(**place, metric=name, value=value, stderr=None, ci_low=None, ci_high=None)


def draw(folder, rows, metrics=(), beside=()):
    draw_figures(folder, make_panels(rows, metrics, {"sums": beside}))
    return (folder / "sums.svg").read_text()


CURVE = [row(0.1, 0), row(0.5, 100), row(0.9, 200)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(CURVE[:1], id="one step"),
        pytest.param([row(0.5, step) for step in (0, 1, 2)], id="all equal"),
        pytest.param([row(None, step) for step in (0, 1)], id="no score"),
        pytest.param([row(0.1, 0), row(None, 1), row(0.9, 2)], id="a gap"),
        pytest.param([row(0.5, 0, ci_low=None, ci_high=None)], id="no interval"),
        pytest.param([row(0.5, ckpt="base"), row(None, ckpt="large")], id="no step"),
        pytest.param([*CURVE, row(0.4, ckpt="base", run="other")], id="one without a step"),
        pytest.param([row(0.05 * run, step, run=f"run {run}") for run in range(12) for step in (0, 9)], id="many runs"),
        pytest.param([row(-3.5, 0), row(900.0, 1)], id="scores outside of [0, 1]"),
    ],
)
def test_it_draws(tmp_path, rows):
    assert "training step" in draw(tmp_path, rows) or all(r.step is None for r in rows)
    assert {path.name for path in tmp_path.iterdir()} == {
        "sums.svg", "sums.png", "sums.csv", "all.svg", "all.png", "all.csv",
    }  # fmt: skip


def test_the_figure_says_what_it_shows(tmp_path):
    marks = {"partial": "20/100", "harness": True, "chance": 0.25}
    drawn = draw(tmp_path, [row(0.1, 0, **marks), row(0.5, 100, **marks)])
    for words in [
        "Sums &amp; &lt;more&gt; $x$",
        "accuracy by training step, by a harness",
        "accuracy (share of answers)",
        "training step",
        "95 % interval (harness's own)",
        "harness's own number",
        "chance",
        "PARTIAL: 20 of 100 items",
    ]:
        assert words in drawn


def test_the_same_table_gives_the_same_bytes(tmp_path):
    draw(tmp_path / "a", CURVE)
    draw(tmp_path / "b", CURVE)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_score_of_0_to_1_has_the_whole_axis(tmp_path):
    ticks = re.findall(r">([0-9.]+)</text>", draw(tmp_path, [row(0.42, 0), row(0.43, 1)]))
    assert {"0.0", "1.0"} <= set(ticks)


def test_a_gap_is_not_bridged():
    axes = Figure().subplots()
    draw_curves(axes, make_panels([row(0.1, 0), row(None, 1), row(0.9, 2), row(0.8, 3)], [], {"sums": []})[0])
    assert [list(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata())] == [[0], [2, 3]]


def test_a_run_looks_the_same_in_every_figure():
    rows = [row(0.1, 0, run="a"), row(0.2, 0, run="b"), row(None, 0, run="a", task="t"), row(0.3, 0, run="b", task="t")]
    looks = []
    for panel in make_panels(rows, [], {"sums": [], "t": []}):
        line, _ = draw_curves(Figure().subplots(), panel)[RUN, "b"]
        looks.append((line.get_color(), line.get_marker()))
    assert looks[0] == looks[1]


@pytest.mark.parametrize(
    ("band", "ends"),
    [("ci95", (0.4, 0.6)), ("sem", (0.48, 0.52)), ("std", (0.46, 0.54)), ("none", (None, None))],
)
def test_a_band_is_what_was_asked_for(tmp_path, band, ends):
    panels = make_panels([row(0.5, 0, run_std=0.04, run_sem=0.02)], [], {"sums": []}, look=Look(band=band))
    draw_figures(tmp_path, panels)
    with (tmp_path / "sums.csv").open(newline="") as file:
        (drawn,) = csv.DictReader(file)
    found = tuple(float(drawn[name]) if drawn[name] else None for name in ("band_low", "band_high"))
    assert found == pytest.approx(ends) if band != "none" else found == ends
    words = {"ci95": "95 % interval", "sem": "± standard error over runs", "std": "± standard deviation over runs"}
    said = (tmp_path / "sums.svg").read_text()
    assert {kind for kind, text in words.items() if text in said} == {band} - {"none"}


def test_a_single_run_has_no_band_over_runs(tmp_path):
    draw_figures(tmp_path, make_panels(CURVE, [], {"sums": []}, look=Look(band="sem")))
    assert "over runs" not in (tmp_path / "sums.svg").read_text()


def test_smoothing_is_drawn_over_the_points_and_not_across_a_gap():
    values = [0.0, 0.3, 0.3, None, 0.9, 0.3]
    panel = make_panels([row(v, step) for step, v in enumerate(values)], [], {"sums": []}, look=Look(smoothing=1))[0]
    assert panel.rows["smoothed"].tolist() == pytest.approx([0.0, 0.2, 0.3, float("nan"), 0.9, 0.3], nan_ok=True)
    axes = Figure().subplots()
    legend = draw_curves(axes, panel)
    lines = [list(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata())]
    assert lines == [[0.0, 0.3, 0.3], [0.9, 0.3], pytest.approx([0.0, 0.2, 0.3]), [0.9, 0.3]]
    assert (SMOOTHED, "moving mean of 3 checkpoints") in legend


def test_the_first_better_step_is_marked(tmp_path):
    draw_figures(tmp_path, make_panels(CURVE, [], {"sums": []}, {("sums", "step-100"), ("other", "step-200")}))
    with (tmp_path / "sums.csv").open(newline="") as file:
        assert [line["first_better"] for line in csv.DictReader(file)] == ["false", "true", "false"]
    assert "first step better than the start" in (tmp_path / "sums.svg").read_text()
    assert "first step better" not in draw(tmp_path, CURVE)


def test_a_marked_number_has_a_ring_and_a_line_in_the_legend():
    rows = [row(0.5, 1), row(0.0, 2, marks="empty 100 %"), row(None, 3, marks="nothing scored")]
    (panel,) = make_panels(rows, (), {"sums": ()})
    axes = Figure().subplots()
    legend = draw_curves(axes, panel)
    points = [found for found in axes.collections if isinstance(found, PathCollection)]
    rings = [found for found in points if list(found.get_sizes()) == [150.0]]
    assert [found.get_offsets().tolist() for found in rings] == [[[2.0, 0.0]]]
    assert legend[MARK, MARKED][1] == "! not what it seems: the table says why"


def test_missing_checkpoints_make_a_figure_partial(tmp_path):
    assert "PARTIAL" not in draw(tmp_path, CURVE)
    assert "PARTIAL: 3 of 4 checkpoints" in draw(tmp_path, [*CURVE, row(None, 300)])


def test_the_same_values_beside_a_score_are_not_hidden():
    axes = Figure().subplots()
    metrics = [metric("truth", r.value, r.step) for r in CURVE]
    draw_curves(axes, make_panels(CURVE, metrics, {"sums": ["truth"]})[0])
    score, truth = [line for line in axes.get_lines() if len(line.get_xdata())]
    assert list(score.get_ydata()) == list(truth.get_ydata())
    assert truth.get_zorder() > score.get_zorder()
    assert truth.get_linewidth() < score.get_linewidth()


def test_the_sheet_has_the_data_of_all(tmp_path):
    draw_figures(tmp_path, make_panels([*CURVE, row(0.2, 0, task="b")], [], {"b": [], "sums": []}))
    with (tmp_path / "all.csv").open(newline="") as file:
        drawn = [(line["task"], line["value"]) for line in csv.DictReader(file)]
    assert drawn == [("b", "0.2"), ("sums", "0.1"), ("sums", "0.5"), ("sums", "0.9")]


def test_metrics_beside_the_score_are_drawn_and_kept(tmp_path):
    metrics = [metric("exact_match", 0.05, 0), metric("exact_match", 0.3, 200)]
    assert "exact match" in draw(tmp_path, CURVE, metrics, ["exact_match"])
    with (tmp_path / "sums.csv").open(newline="") as file:
        drawn = [(line["metric"], float(line["step"]), line["value"]) for line in csv.DictReader(file)]
    assert drawn == [
        ("accuracy", 0, "0.1"),
        ("accuracy", 100, "0.5"),
        ("accuracy", 200, "0.9"),
        ("exact_match", 0, "0.05"),
        ("exact_match", 100, ""),
        ("exact_match", 200, "0.3"),
    ]


@pytest.mark.parametrize(
    ("beside", "error", "message"),
    [
        ({"sum": []}, UnknownTaskError, "Did you mean 'sums'"),
        ({"sums": ["exact"]}, ConfigError, "Its metrics: exact_match"),
    ],
)
def test_what_does_not_exist_cannot_be_drawn(beside, error, message):
    with pytest.raises(error, match=message):
        make_panels(CURVE, [metric("exact_match", 0.1, 0)], beside)


def test_command(tmp_path):
    shown = Shown({}, {"sums": ShownTask("Sums", ("truth",)), "b": ShownTask("B")}, {"figures": {"band": "sem"}})
    write_record(tmp_path / "settings.json", shown.record())
    write_table(tmp_path / "scores.csv", ScoreRow, [*CURVE, row(0.2, 0, task="b")])
    write_table(tmp_path / "metrics.csv", MetricRow, [metric("truth", 0.1, 0)])
    plot.main(
        [
            "--settings",
            f"{tmp_path}/settings.json",
            "--scores",
            f"{tmp_path}/scores.csv",
            "--metrics",
            f"{tmp_path}/metrics.csv",
            "--out",
            f"{tmp_path}/out",
        ]
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "all.csv", "all.png", "all.svg", "b.csv", "b.png", "b.svg", "sums.csv", "sums.png", "sums.svg",
    }  # fmt: skip
    assert "truth" in (tmp_path / "out" / "sums.svg").read_text()

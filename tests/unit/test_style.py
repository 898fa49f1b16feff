"""A grid of pictures: what is drawn lies over nothing else, is whole, and leaves the plots their room."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from milepost import style
from milepost.report import figures
from milepost.report.figures import Look, draw_figures, make_panels
from milepost.report.tables import MetricRow, ScoreRow
from milepost.scorers.equator import figure as equator
from milepost.scorers.equator.tables import ALL, CategoryRow
from milepost.style import wrap

# The PNG of a script that the font lacks.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing")

# Where to keep the pictures of these tests, for a person to look at.
KEPT = os.environ.get("MILEPOST_PICTURES")

SHORT = [f"run {number}" for number in range(30)]
LONG = [f"qwen3-8b-sft-lr{number:02}e-6-warmup100-cosine-batch256-seed{number}" for number in range(30)]
ENDLESS = ["M" * 200 + str(number) for number in range(3)]
STRANGE = [
    "_old", "chance", "no run", "score", "95 % interval", "$x^2$", "<b>&amp;", "{step}", "100 %", "数学能力の評価です" * 4,
    "naïve·ß", "🙂🙃", "عربي", "a\tb", "bell\x07", "-", "x" * 70, "moving mean of 3 checkpoints", "base 0", "it's \"so\"",
]  # fmt: skip
STRANGE += [f"{name} {place}" for place, name in enumerate(STRANGE[:10])]


def boxes_of(figure):
    """Where everything is: plots, the legend's entries, and all other text, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    plots = [axes.get_window_extent(renderer) for axes in figure.axes]
    texts = {}
    for axes in figure.axes:
        ticks = [tick for axis in (axes.xaxis, axes.yaxis) for tick in shown_ticks(axis)]
        offsets = [axis.get_offset_text() for axis in (axes.xaxis, axes.yaxis)]
        titles = [axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label]
        for text in [*ticks, *offsets, *titles, *axes.texts]:
            if text.get_visible() and text.get_text().strip() and text.get_text() != "no scores":
                texts[text] = text.get_window_extent(renderer)
    for text in figure.texts:
        texts[text] = text.get_window_extent(renderer)
    legend = {}
    for one in figure.legends:
        legend |= {text.get_text(): text.get_window_extent(renderer) for text in one.get_texts()}
    return plots, texts, legend


def shown_ticks(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def overlapping(named):
    """Pairs of things of which one lies over the other by more than a point."""
    ends = np.array([box.extents for _, box in named])
    low, high = np.maximum(ends[:, None, :2], ends[None, :, :2]), np.minimum(ends[:, None, 2:], ends[None, :, 2:])
    both = np.triu(((high - low) > 2).all(axis=2), 1)
    return [(named[one][0], named[other][0]) for one, other in np.argwhere(both)]


def check_picture(figure, plot_width=3.3, plot_height=1.1):
    """Nothing is cut, nothing lies over anything else, and each plot has its room."""
    plots, texts, legend = boxes_of(figure)
    named = [
        *((text.get_text(), box) for text, box in texts.items()),
        *((f"legend: {text}", box) for text, box in legend.items()),
    ]
    assert overlapping([*named, *((f"plot {n}", box) for n, box in enumerate(plots))]) == []
    for text, box in named:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert inside, f"{text!r} is cut"
    for box in plots:
        assert box.width / figure.dpi > plot_width
        assert box.height / figure.dpi > plot_height
    for one in figure.legends:
        assert one.get_window_extent().y1 <= min(box.y0 for box in plots)


def draw_all(folder, panels):
    """The figure of the first task, and the sheet of all: those of the other tasks differ in nothing that matters."""
    drawn = {"first": panels[:1], "all": panels}
    with style.theme():
        for name, shown in drawn.items():
            drawn[name] = figures._draw_sheet(shown)
            if KEPT:
                style.save(drawn[name], Path(KEPT) / f"{folder.name}-{name}")
    return list(drawn.values())


def campaign(names, n_tasks, n_steps=3, title="Sums", baselines=0, **more):
    """Scores of runs (or of checkpoints without a step, where `n_steps` is 0), and metrics to draw beside them."""
    rows, metrics = [], []
    for task, (place, name), step in product(range(n_tasks), enumerate(names), range(max(1, n_steps))):
        value = (0.13 * place + 0.2 * step + 0.05 * task) % 1
        at = (
            {"run": name, "step": step * 1000.0, "ckpt": f"{name}-{step}"}
            if n_steps
            else {"run": None, "step": None, "ckpt": name}
        )
        at |= {"task": f"task-{task}"}
        low, high = max(0, value - 0.1), min(1, value + 0.1)
        rows.append(
            ScoreRow(**at, title=f"{title} {task}", metric="accuracy", value=value, ci_low=low, ci_high=high, **more)
        )
        metrics.append(MetricRow(**at, metric="exact_match", value=value / 2, stderr=None, ci_low=None, ci_high=None))
    for task, place in product(range(n_tasks), range(baselines)):
        at = {"run": None, "step": None, "ckpt": f"base {place}", "task": f"task-{task}"}
        value = place / baselines
        rows.append(
            ScoreRow(**at, title=f"{title} {task}", metric="accuracy", value=value, ci_low=value, ci_high=value)
        )
    rows.sort(key=lambda row: row.task)
    return rows, metrics


NAMES = {"short": SHORT, "long": LONG, "strange": STRANGE, "endless": ENDLESS}


# Every kind of name, number of runs and of tasks stands in some picture; all of them together take a quarter of an hour, and
# are drawn where somebody wants to look at them.
RUNS = [
    (1, "short", 1), (3, "long", 8), (12, "strange", 2), (30, "long", 3), (30, "strange", 1), (3, "endless", 8),
    (12, "short", 1), (1, "short", 40),
]  # fmt: skip
CHECKPOINTS = [(1, "short", 1), (3, "endless", 8), (12, "strange", 1), (30, "long", 3)]
if KEPT:
    RUNS = list(product([1, 3, 12, 30], NAMES, [1, 8, 40]))
    CHECKPOINTS = list(product([1, 3, 12, 30], NAMES, [1, 8]))


@pytest.mark.parametrize(("n_runs", "kind", "n_tasks"), RUNS)
def test_a_picture_of_runs(tmp_path, n_runs, kind, n_tasks):
    names = NAMES[kind][:n_runs]
    title = {
        "short": "Sums",
        "long": "Sums of two numbers below one hundred, asked in words",
        "endless": "W" * 150,
    }.get(kind, STRANGE[9])
    rows, metrics = campaign(names, n_tasks, title=title, baselines=(n_runs + 1) // 3, chance=0.25, partial="20/100")
    beside = {f"task-{task}": ["exact_match"] for task in range(n_tasks)}
    panels = make_panels(rows, metrics, beside, {("task-0", f"{names[0]}-1")}, Look(smoothing=1))
    drawn = draw_all(tmp_path, panels)
    for figure in drawn:
        check_picture(figure)
        said = [text.get_text().replace("\n", "") for text in figure.legends[0].get_texts()]
        assert len(said) == len(names) + (n_runs + 1) // 3 + 5, said
        for name in names:
            assert any("".join(style.printable(name).split()) == "".join(text.split()) for text in said), name


@pytest.mark.parametrize(("n_names", "kind", "n_tasks"), CHECKPOINTS)
def test_a_picture_of_checkpoints_without_steps(tmp_path, n_names, kind, n_tasks):
    rows, metrics = campaign(NAMES[kind][:n_names], n_tasks, n_steps=0, harness=True)
    panels = make_panels(rows, metrics, {f"task-{task}": ["exact_match"] for task in range(n_tasks)})
    drawn = draw_all(tmp_path, panels)
    for figure in drawn:
        check_picture(figure)
        shown = ["".join(label.get_text().split()) for label in figure.axes[0].get_yticklabels()]
        assert shown == ["".join(style.printable(row.ckpt).split()) for row in rows if row.task == "task-0"]


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([1e7, 1e7 + 1, 1e7 + 2], [0, 1, 2]),
        ([1e-9, 2e-9, 3e-9], [0, 1, 2]),
        ([-1e300, 0, 1e300], [0, 1, 2]),
        ([3.5, 900.0, 12.0], [0, 10**12, 2 * 10**12]),
        ([0.1, 0.2, 0.3], [0.25, 0.5, 0.75]),
        ([0.1, 0.2, 0.3], [123456789012, 123456789013, 123456789014]),
        ([0.5] * 8, range(8)),
    ],
)
def test_a_picture_of_any_numbers(tmp_path, values, steps):
    rows = [
        ScoreRow(
            ckpt=f"c{step}", run="r", step=float(step), task=f"t{task}", title="T", metric="long_metric_" * task, value=value,
            ci_low=value, ci_high=value, partial=f"{10 + int(step) % 100}/{10**6}",
        )
        for task in range(1, 9)
        for value, step in zip(values, steps, strict=True)
    ]  # fmt: skip
    for figure in draw_all(tmp_path, make_panels(rows, [], {f"t{task}": [] for task in range(1, 9)})):
        check_picture(figure)


def looks_of(figure):
    """What each entry of the legend looks like."""
    found = []
    for handle in figure.legends[0].legend_handles:
        kind = type(handle).__name__
        parts = ("get_color", "get_facecolor", "get_marker", "get_linestyle", "get_dashes", "_dash_pattern")
        told = [getattr(handle, name) for name in parts if hasattr(handle, name)]
        found.append((kind, *(str(part() if callable(part) else part) for part in told)))
    return found


@pytest.mark.parametrize(("runs", "baselines"), [(1, 10), (30, 10), (60, 30)])
def test_no_two_runs_or_baselines_look_alike(tmp_path, runs, baselines):
    rows, _ = campaign([f"r{n}" for n in range(runs)], 1, baselines=baselines)
    looks = looks_of(draw_all(tmp_path, make_panels(rows, [], {"task-0": []}))[0])
    assert len(looks) == runs + baselines + 1
    assert len(set(looks)) == len(looks)


def test_a_metric_beside_the_score_looks_the_same_in_all_tasks(tmp_path):
    rows, metrics = campaign(["r"], 2)
    metrics += [MetricRow(**{**vars(row), "metric": "other"}) for row in metrics]
    panels = make_panels(rows, metrics, {"task-0": ["exact_match"], "task-1": ["other", "exact_match"]})
    first, second = [draw_all(tmp_path, [panel])[0] for panel in panels]
    looks = [
        dict(zip([text.get_text() for text in figure.legends[0].get_texts()], looks_of(figure), strict=True))
        for figure in (first, second)
    ]
    assert looks[0]["exact match"] == looks[1]["exact match"] != looks[1]["other"]


def test_a_figure_may_be_longer_than_a_png_with_its_dots(tmp_path):
    """A PNG has a largest side: a sheet of very many names has coarser dots, and is no error."""
    with style.theme():
        style.save(Figure(figsize=(2, 2000)), tmp_path / "all")
    assert (tmp_path / "all.png").stat().st_size > 0


@pytest.mark.parametrize(("title", "evaluators", "kind", "n", "categories"), [
    ("Puzzles", 1, "short", 1, 1), ("Puzzles", 2, "short", 3, 8), ("A title that goes on and on " * 9, 1, "long", 12, 8),
    ("W" * 200, 5, "strange", 12, 3), (STRANGE[9], 1, "endless", 3, 3), ("Puzzles", 2, "long", 30, 5),
])  # fmt: skip
def test_a_picture_of_equator(tmp_path, monkeypatch, title, evaluators, kind, n, categories):
    names = [f"judge-{'x' * 30 * number}" for number in range(evaluators)]
    rows = [
        CategoryRow(
            student=style.printable(student), evaluator=evaluator, category=category, n_answers=9, n_unscored=0, ci95_low=20.0,
            ci95_high=60.0, mean_score=None if number % 7 == 6 else 40.0 + number, std_dev_score=1.0, z_interval_error=1.0,
            ci_lower=1.0, ci_upper=2.0, output_count=9,
        )
        for number, student in enumerate(NAMES[kind][:n])
        for evaluator in ([ALL, *names] if evaluators > 1 else names)
        for category in [ALL, *(f"a category of many words: {c} {'and more ' * c}" for c in range(categories))]
    ]  # fmt: skip
    drawn = []

    def keep(figure, stem):
        drawn.append(figure)
        save(figure, Path(KEPT or tmp_path) / f"{tmp_path.name}-{stem.name}")

    save = equator.save
    monkeypatch.setattr(equator, "save", keep)
    equator.draw_categories(tmp_path / "equator", rows, title, "20/100")
    (figure,) = drawn
    check_picture(figure)
    said = ["".join(text.get_text().split()) for text in figure.texts]
    assert said == [
        "".join(style.printable(f"{title}: answers that agree with the answer key").split()),
        "PARTIAL:20/100items",
    ]


@pytest.mark.parametrize(
    "words", ["", "W" * 300, "a b " * 90, "one-two_three/four", "数学" * 50, "a" * 30 + " " + "b" * 30]
)
def test_wrapped_text_is_whole_and_narrow(words):
    text = wrap(words, 2.0, 9.5)
    assert "".join(text.split()) == "".join(words.split())
    assert "\n\n" not in text
    with style.theme():
        figure = Figure()
        drawn = figure.text(0, 0, text, fontsize=9.5)
        assert drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width <= 2.0 * figure.dpi


@pytest.mark.parametrize("words", ["\x00\x1b", "x\r\ny"])
def test_an_svg_can_be_read_whatever_a_title_holds(tmp_path, words):
    import xml.etree.ElementTree as ET

    rows = [ScoreRow(ckpt="a", run=words, step=1.0, task="t", title=words, metric=words, value=0.5)]
    draw_figures(tmp_path, make_panels(rows, [], {"t": []}))
    assert ET.parse(tmp_path / "t.svg").getroot().tag.endswith("svg")

"""How figures and numbers look: a theme, a size that follows from plots, texts and legend, and enough decimals.

Plots have a size of their own. What stands around them (titles, names, labels) is measured, the legend likewise, and the
figure is as large as all of it: nothing is cut, and nothing lies over anything else.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

# It comes with Matplotlib: no machine lacks it, and a figure does not depend on what else is installed.
FONT = "DejaVu Sans"
# Of a PNG: the drawing library's limit of a side, and what fits into memory.
DPI, MOST_SIDE, MOST_PIXELS = 160, 65_000, 60_000_000
STYLE = {
    # What is measured is what is drawn: sizes of text are rounded to the points of the picture.
    "figure.dpi": DPI,
    "svg.hashsalt": "milepost",
    "svg.fonttype": "none",  # small files, text that can be searched, and any script that the reader's fonts know
    "text.parse_math": False,  # a $ in a title is a $
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.92",
    "legend.frameon": False,
}
GREY, RED = "0.4", "#b3261e"

# Sizes of text, in points.
TITLE, LABEL, SMALL = 10.5, 9.5, 8.8
POINTS = 72
PAD = 0.12  # inches around everything
SPARE = 0.95  # the fonts that show an SVG's text may be wider
NARROWEST = 5.0  # inches, of a figure with a legend
MOST_COLUMNS = 6  # of a legend

# None is dotted: chance is. Seven of them beside ten colours: lines look alike from the seventy-first on.
DASHES = (
    (4, 2), (6, 2, 1, 2), (2, 1), (8, 2), (6, 1, 2, 1, 2, 1), (3, 1, 1, 1), (10, 2, 4, 2),
)  # fmt: skip
# Nine of them beside ten colours: points look alike from the ninety-first on.
MARKERS = "osD^vPX<>"

# Where a line may end: behind these.
_PIECES = re.compile(r"[^\s\-_/.,:=+]*[\s\-_/.,:=+]?")


@contextmanager
def theme() -> Iterator[None]:
    """A context within which figures are drawn in the project's look."""
    import seaborn as sns
    from matplotlib import rc_context

    sizes = {
        "font.size": LABEL, "axes.labelsize": LABEL, "axes.titlesize": TITLE, "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL, "legend.fontsize": SMALL,
    }  # fmt: skip
    with rc_context(), warnings.catch_warnings():
        # In other scripts than the font knows, the PNG shows boxes; the SVG has the text, and the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        sns.set_theme(context="paper", style="whitegrid", font=FONT, rc=STYLE | sizes)
        yield


def colours(n: int) -> list[Any]:
    """So many colours that a colour-blind reader can tell apart; from the eleventh on, they begin again."""
    import seaborn as sns

    return list(sns.color_palette("colorblind", n))


def places(value: float, fewest: int, ends: Sequence[float] = (0, 1, -1)) -> int:
    """How many decimals a number needs so that rounding does not make it one of these ends.

    >>> places(0.9999, 3), places(-0.00002, 3), places(1.0, 3), places(0.5, 3)
    (4, 5, 3, 3)
    """
    # What is nearer is the rounding of sums.
    for decimals in range(fewest, fewest + 5):
        shown = round(value, decimals)
        if shown not in ends:
            return decimals
    return fewest


def printable(words: str) -> str:
    r"""Text in one line, without characters that no figure can hold.

    >>> printable("Sums\r\n of\x07 two")
    'Sums of two'
    """
    return " ".join("".join(sign if sign.isprintable() else " " for sign in words).split())


@cache
def wrap(words: str, inches: float, size: float, weight: str = "normal") -> str:
    r"""Text in lines of at most this width, broken behind a space or a mark where there is one; none of it is left out.

    >>> wrap("arithmetic_of_small_numbers", 1.2, 9.5)
    'arithmetic_of_\nsmall_numbers'
    """
    lines, line = [], ""
    for piece in _PIECES.findall(printable(words)):
        if line and _inches((line + piece).rstrip(), size, weight) > inches * SPARE:
            lines.append(line.rstrip())
            line = ""
        for sign in piece:
            if line and _inches(line + sign, size, weight) > inches * SPARE and not sign.isspace():
                lines.append(line)
                line = ""
            line += sign
    return "\n".join([*lines, line.rstrip()])


def stack_over(axes: Axes, title: str, subtitle: str, stamp: str, inches: float) -> None:
    """Write over a plot of this width, from above: its title, what is seen, and in a red box what is missing."""
    over: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    lift = 5.0
    if stamp:
        box = {"facecolor": "white", "edgecolor": RED, "boxstyle": "round,pad=0.25", "linewidth": 0.8}
        text = wrap(stamp, inches - PAD, SMALL, "bold")
        look: dict[str, Any] = {"bbox": box, "color": RED, "fontweight": "bold"}
        axes.annotate(text, (0, 1), (3, lift + 2), fontsize=SMALL, **look, **over)
        lift += _height(text, SMALL) + 7
    if subtitle:
        text = wrap(subtitle, inches, LABEL)
        axes.annotate(text, (0, 1), (0, lift), color=GREY, fontsize=LABEL, **over)
        lift += _height(text, LABEL) + 2
    axes.set_title(wrap(title, inches, TITLE, "bold"), pad=lift)


def lay_out(
    axes: Sequence[Axes],
    columns: int,
    plots: Sequence[tuple[float, float]],
    legend: Mapping[Any, tuple[Any, str]],
    head: tuple[str, str] = ("", ""),
) -> None:
    """Place plots in a grid, with a legend below them all, and make their figure as large as that takes.

    Args:
        axes: The plots with all that belongs to them, row by row.
        columns: How many of them stand side by side.
        plots: Width and height of each plot itself, in inches.
        legend: Handle and text of each entry.
        head: A title for all of them, and what is missing; both may be empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes[0].get_figure(root=True)
    assert figure is not None
    renderer, dpi = FigureCanvasAgg(figure).get_renderer(), figure.dpi  # type: ignore[no-untyped-call]
    around = []
    for one, (width, height) in zip(axes, plots, strict=True):
        # Where it stands matters not yet: what is around a plot depends on the plot's size alone.
        one.set_position((0.25, 0.25, width / figure.get_figwidth(), height / figure.get_figheight()))
        plot, whole = one.get_window_extent(renderer), one.get_tightbbox(renderer)
        assert whole is not None
        ends = (plot.x0 - whole.x0, plot.y0 - whole.y0, whole.x1 - plot.x1, whole.y1 - plot.y1)
        around.append([max(0.0, end / dpi) + PAD for end in ends])
    rows = range(-(-len(axes) // columns))
    left, right, plot_width = _most(around, 0, columns), _most(around, 2, columns), _most(plots, 0, columns)
    rows_of = [slice(row * columns, (row + 1) * columns) for row in rows]
    below, above = ([max(ends[side] for ends in around[row]) for row in rows_of] for side in (1, 3))
    plot_height = [max(height for _, height in plots[row]) for row in rows_of]

    width = max(sum(left) + sum(plot_width) + sum(right), NARROWEST if legend or any(head) else 0.0)
    legend_height = _add_legend(figure, list(legend.values()), width, renderer)
    title, stamp = wrap(head[0], width - 2 * PAD, TITLE, "bold"), wrap(head[1], width - 4 * PAD, SMALL, "bold")
    head_height = sum((_height(text, size) + 10) / POINTS for text, size in ((title, TITLE), (stamp, SMALL)) if text)
    height = head_height + sum(above) + sum(plot_height) + sum(below) + legend_height
    figure.set_size_inches(width, height)

    top = height - head_height
    for row in rows:
        top -= above[row] + plot_height[row]
        x = 0.0
        for column, one in enumerate(axes[rows_of[row]]):
            x += left[column]
            own_width, own_height = plots[row * columns + column]
            place = (x, top + plot_height[row] - own_height, own_width, own_height)
            one.set_position(tuple(a / b for a, b in zip(place, (width, height, width, height), strict=True)))
            x += plot_width[column] + right[column]
        top -= below[row]
    if title:
        at = 1 - PAD / height
        figure.text(PAD / width, at, title, fontsize=TITLE, fontweight="bold", va="top")
    if stamp:
        at = 1 - (head_height - 8 / POINTS) / height
        box = {"facecolor": "white", "edgecolor": RED, "boxstyle": "round,pad=0.25", "linewidth": 0.8}
        figure.text(2 * PAD / width, at, stamp, fontsize=SMALL, fontweight="bold", color=RED, bbox=box, va="bottom")


def save(figure: Figure, stem: Path) -> None:
    """Write a figure as SVG and PNG. The same figure gives the same bytes."""
    figure.savefig(stem.with_name(f"{stem.name}.svg"), metadata={"Date": None, "Creator": None})
    width, height = figure.get_size_inches()
    dpi = min(DPI, MOST_SIDE / max(width, height), (MOST_PIXELS / (width * height)) ** 0.5)
    figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=dpi, metadata={"Software": None})


def _add_legend(figure: Figure, entries: Sequence[tuple[Any, str]], width: float, renderer: Any) -> float:
    """Add a legend at the lower edge, in as many columns as the width has room for; how high it is, in inches."""
    if not entries:
        return 0.0
    texts = [wrap(text, min(4.0, width - 1.0), SMALL) for _, text in entries]
    # What the font does not know, a reader's font may draw twice as wide.
    most = 1 if any(_unknown(text) for text in texts) else min(MOST_COLUMNS, len(texts))
    for columns in range(most, 0, -1):
        legend = figure.legend(
            [handle for handle, _ in entries], texts, loc="lower center", ncols=columns, borderaxespad=0.4
        )
        box = legend.get_window_extent(renderer)
        if columns == 1 or box.width / figure.dpi <= SPARE * (width - 2 * PAD):
            return float(box.height / figure.dpi) + 2 * PAD
        legend.remove()
    raise AssertionError("a legend has a column")


def _most(of_axes: Sequence[Sequence[float]], side: int, columns: int) -> list[float]:
    """The most room that plots need on one side, for each column of the grid."""
    return [max(ends[side] for ends in of_axes[column::columns]) for column in range(min(columns, len(of_axes)))]


def _height(text: str, size: float) -> float:
    """The height of a text in lines, in points, with some room to spare."""
    return 1.25 * size * (1 + text.count("\n"))


def _inches(words: str, size: float, weight: str) -> float:
    """How wide a text will be; a sign that the font does not know is taken for wider than any."""
    from matplotlib.textpath import text_to_path

    if unknown := _unknown(words):
        words = "".join("WI" if sign in unknown else sign for sign in words)
    width, _, _ = text_to_path.get_text_width_height_descent(words, _font(size, weight), ismath=False)
    return float(width) / POINTS


def _unknown(words: str) -> set[str]:
    return {sign for sign in words if ord(sign) not in _known()} - {"\n"}


@cache
def _font(size: float, weight: str) -> FontProperties:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=FONT, size=size, weight=weight)


@cache
def _known() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(_font(LABEL, "normal"))).get_charmap())


def money(value: float) -> str:
    """An amount of money; small ones with as many digits as tell something.

    >>> money(12.345), money(0.00123), money(0), money(1234.5)
    ('12.35', '0.0012', '0', '1,234.50')
    """
    if value == 0:
        return "0"
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"

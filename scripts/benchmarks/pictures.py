"""Draws the plots as pictures that need no text beside them."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from .measure import Figure
from .plots import OURS, PLOTS, SECONDS, Placed, Plot, duration, placed, series_of

# The colours of Okabe and Ito, which colour-blind readers can distinguish; the first is for fsmount.
OUR_COLOUR = "#0072B2"
COLOURS = ("#D55E00", "#CC79A7", "#E69F00", "#009E73", "#56B4E9", "#000000")
MARKERS = "s^Dv<P"

# The share of the height that each line of a name takes.
LINE_HEIGHT = 0.05

# By the number of processes: colour, marker and offset in the row.
DOTS = {1: (OUR_COLOUR, "o", 0.12, "● 1 process"), 2: ("#D55E00", "D", -0.12, "◆ 2 processes")}
COLUMNS = (85, 175)  # right ends of the values, in points from the axes


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(
        {
            "svg.hashsalt": "fsmount",  # equal figures give equal files
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
        }
    )


def draw(directory: Path, figures: Sequence[Figure]) -> None:
    """Writes NAME.svg for each plot that has points."""
    for plot in PLOTS:
        points = placed(plot, figures)
        if points:
            with _style():
                canvas = Canvas(figsize=(10, 5), layout="constrained")
                (_dots if plot.name == "peers" else _lines)(canvas.subplots(), plot, points)
                canvas.savefig(directory / f"{plot.name}.svg", metadata={"Date": None, "Creator": None})


def _spread(figure: Figure) -> tuple[float, float, float]:
    scale = SECONDS[figure.unit]
    return figure.spread.low * scale, figure.spread.median * scale, figure.spread.high * scale


def _titled(axes: Axes, plot: Plot) -> None:
    axes.set_title(f"{plot.title}\n", loc="left", fontsize=13, fontweight="bold")
    axes.text(0, 1.02, plot.under, transform=axes.transAxes, color="#555555")
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)


# ---- lines ----------------------------------------------------------------------


def _lines(axes: Axes, plot: Plot, points: Sequence[Placed]) -> None:
    """A line for each series, with its name at its end; the quartiles are a band around it."""
    _titled(axes, plot)
    xs = sorted({point.x for point, _ in points})
    # 0 has a place beside the powers of two.
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.xaxis.set_major_locator(FixedLocator(xs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_yscale("log")
    ys = [y for _, figure in points for y in _spread(figure)]
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if max(ys) > 100 * min(ys) else (1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: duration(y)))
    colours = iter(zip(COLOURS, MARKERS, strict=True))
    ends = []
    for name, line in series_of(points).items():
        ours = name.startswith(OURS)
        colour, marker = (OUR_COLOUR, "o") if ours else next(colours)
        along = [point.x for point, _ in line]
        low, middle, high = zip(*(_spread(figure) for _, figure in line), strict=True)
        axes.fill_between(along, low, high, color=colour, alpha=0.2, linewidth=0)
        width, dash = (3.0 if ours else 1.5), ("-" if name == OURS or not ours else "--")
        axes.plot(along, middle, color=colour, marker=marker, linewidth=width, linestyle=dash, markersize=5)
        ends.append((along[-1], middle[-1], name, colour))
    _name(axes, ends)


def _name(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes each name beside the end of its line; names of neighbouring ends move apart."""
    low, high = (math.log(y) for y in axes.get_ylim())
    ends = sorted(ends, key=lambda end: end[1])
    heights = [(math.log(y) - low) / (high - low) for _, y, _, _ in ends]
    lines = [1 + name.count("\n") for _, _, name, _ in ends]
    for _ in range(200):
        for i in range(len(heights) - 1):
            lacking = LINE_HEIGHT * (lines[i] + lines[i + 1]) / 2 - (heights[i + 1] - heights[i])
            if lacking > 0:
                heights[i] -= lacking / 2
                heights[i + 1] += lacking / 2
    for height, (x, y, name, colour) in zip(heights, ends, strict=True):
        axes.annotate(
            name,
            (x, y),
            (1.04, height),
            textcoords="axes fraction",
            color=colour,
            fontweight="bold" if name.startswith(OURS) else "normal",
            verticalalignment="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 4},
        )


# ---- dots -----------------------------------------------------------------------


def _dots(axes: Axes, plot: Plot, points: Sequence[Placed]) -> None:
    """A row for each series, the cheapest on top, with a dot for one process and one for two, and their values."""
    _titled(axes, plot)
    series = series_of(points)
    names = sorted(series, key=lambda name: _spread(series[name][0][1])[1], reverse=True)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    for row, name in enumerate(names):
        ours = name.startswith(OURS)
        axes.get_yticklabels()[row].set(color=OUR_COLOUR if ours else "black", fontweight="bold" if ours else "normal")
        for column, (point, figure) in enumerate(series[name]):
            colour, marker, height, _ = DOTS[int(point.x)]
            low, middle, high = _spread(figure)
            axes.plot([low, high], [row + height] * 2, color=colour, linewidth=2, alpha=0.5)
            axes.plot(middle, row + height, marker, color=colour, markersize=8)
            _value(axes, column, row, duration(middle), colour)
    for column, (colour, _, _, label) in enumerate(DOTS.values()):
        _value(axes, column, len(names) - 0.3, label, colour)
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: duration(x)))


def _value(axes: Axes, column: int, row: float, text: str, colour: str) -> None:
    axes.annotate(
        text,
        (1, row),
        (COLUMNS[column], 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        color=colour,
        horizontalalignment="right",
        verticalalignment="center",
        annotation_clip=False,
    )

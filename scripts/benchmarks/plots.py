"""The plots: the questions that a run answers with points, as data for the page and the pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .measure import Figure, Point

OURS = "fsmount"
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}

Placed = tuple[Point, Figure]


@dataclass(frozen=True)
class Plot:
    """A question that a run answers with points; its picture is NAME.svg."""

    name: str
    title: str
    under: str  # how the points are measured
    x: str
    y: str = "time for a charge and its uncharge"


PLOTS = (
    Plot(
        "depth",
        "The cost of a charge as the tree gets deeper",
        "two processes that share all counters except their own leaf, far from any limit",
        "counters that each charge meets",
    ),
    Plot(
        "processes",
        "The cost of a charge as more processes charge",
        "four counters, all shared except the leaf, far from any limit; elapsed time divided by all pairs",
        "processes",
    ),
    Plot(
        "headroom",
        "The cost of a charge as the limit comes near",
        "two processes, four counters; the limit is the root's",
        "units left below the limit",
    ),
    Plot(
        "groups",
        "The cost of an operation as the tree gets larger",
        "from Python in the shared region; each group has ten open cells, one for each holder",
        "groups in the tree",
        "time for one",
    ),
    Plot(
        "peers",
        "Charging under two limits from Python",
        "a leaf's limit and a common parent's, both far away",
        "time for a charge and its uncharge",
        "",
    ),
)


def placed(plot: Plot, figures: Iterable[Figure]) -> list[Placed]:
    """The points that a plot has."""
    return [(figure.at, figure) for figure in figures if figure.at and figure.at.plot == plot.name]


def duration(seconds: float) -> str:
    """The time in a fitting unit: 25 ns, 1.5 µs."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size * 0.9995:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def series_of(points: Sequence[Placed]) -> dict[str, list[Placed]]:
    """The points of each series from left to right, fsmount's last: it is drawn over the others."""
    series: dict[str, list[Placed]] = {}
    for point, figure in points:
        series.setdefault(point.series, []).append((point, figure))
    return {
        name: sorted(series[name], key=lambda placed: placed[0].x)
        for name in sorted(series, key=lambda name: name.startswith(OURS))
    }

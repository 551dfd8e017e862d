"""Interleaved measurements: cases take turns, so that what disturbs the machine disturbs all of them alike.

A case is a function that does its work once and returns its cost (nanoseconds an operation, unless a part
says otherwise). Every case runs once a round. A cost is the median over the rounds; a ratio is taken within each
round and then the median of the ratios, so that a slow second spoils a round and not the comparison. The spread is the
range between the quartiles.
"""

import statistics
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Case = Callable[[], float]
Tick = Callable[[], None]

# A timed statement is repeated so often in the loop's body: the loop itself then costs under 1 ns a statement.
UNROLLED = 20


def number(value: float) -> str:
    """About three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)


@dataclass(frozen=True)
class Target:
    """What a median is to reach; either end may be open."""

    least: float | None = None
    most: float | None = None

    def reached(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.least is None:
            return f"<= {self.most:g}"
        if self.most is None:
            return f">= {self.least:g}"
        return f"{self.least:g} .. {self.most:g}"


@dataclass(frozen=True)
class Point:
    """Where a figure stands in a picture: its unit is what goes up, `x` is how far to the right."""

    plot: str  # "depth", "processes", "headroom" or "groups": what x counts
    series: str  # the line it is on
    x: float


@dataclass(frozen=True)
class Figure:
    """One line of the report, and maybe a point of a picture."""

    what: str
    unit: str  # "x" for a ratio
    spread: Spread
    target: Target | None = None
    at: Point | None = None

    @property
    def reached(self) -> bool | None:
        return None if self.target is None else self.target.reached(self.spread.median)


@dataclass(frozen=True)
class Note:
    """A line of the report that says why something is not in it."""

    text: str


@dataclass(frozen=True)
class Table:
    """What a part has for the page, in Markdown."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Settings:
    """How long a part may measure."""

    rounds: int
    scale: float  # of the number of operations in a round

    def operations(self, number: int, least: int = 1) -> int:
        return max(least, int(number * self.scale))


class Samples:
    """What interleaved rounds found: for each case its cost in every round."""

    def __init__(self, costs: Mapping[str, Sequence[float]]) -> None:
        self._costs = costs

    def cost(
        self, case: str, unit: str = "ns", *, what: str = "", divisor: float = 1, at: Point | None = None
    ) -> Figure:
        return Figure(what or case, unit, Spread.of([cost / divisor for cost in self._costs[case]]), at=at)

    def ratio(self, case: str, base: str, target: Target | None = None, *, what: str = "") -> Figure:
        """How many times as much as the base the case costs."""
        pairs = zip(self._costs[case], self._costs[base], strict=True)
        return Figure(what or f"{case} / {base}", "x", Spread.of([cost / other for cost, other in pairs]), target)


def interleave(cases: Mapping[str, Case], rounds: int, tick: Tick) -> Samples:
    """Runs every case once a round, in the order given; a first round only warms up."""
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            cost = case()
            if number:
                costs[name].append(cost)
        tick()
    return Samples(costs)


def statement(text: str, names: Mapping[str, object], number: int) -> Case:
    """A case that runs the statement about `number` times; its names are local variables, as in a function."""
    setup = "; ".join(f"{name} = given[{name!r}]" for name in names)
    timer = timeit.Timer("\n".join([text] * UNROLLED), setup, globals={"given": names})
    loops = max(1, number // UNROLLED)
    return lambda: timer.timeit(loops) / (loops * UNROLLED) * 1e9


def empty_loop(number: int) -> Case:
    """A case that is the loop's part of a statement's cost."""
    timer = timeit.Timer("pass")
    loops = max(1, number // UNROLLED)
    return lambda: timer.timeit(loops) / (loops * UNROLLED) * 1e9

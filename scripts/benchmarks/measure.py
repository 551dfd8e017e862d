"""Interleaved measurements: the cases take turns, so that other work on the machine disturbs all of them equally.

A case is a function that does its work once and returns its cost: nanoseconds for each operation, unless a part names
another unit. Every case runs once in each round. A cost is the median over the rounds. A ratio is the median of the
ratios within each round, so that a slow second spoils one round and not the comparison. The spread is the range
between the quartiles.
"""

import statistics
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Case = Callable[[], float]
Tick = Callable[[], None]

# The repetitions of a timed statement in the loop body: the loop then adds less than 1 ns to each statement.
UNROLLED = 20


def number(value: float) -> str:
    """The number with about three significant digits."""
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
    """The bounds that a median must keep; either may be open."""

    minimum: float | None = None
    maximum: float | None = None

    def reached(self, value: float) -> bool:
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)

    def __str__(self) -> str:
        if self.minimum is None:
            return f"<= {self.maximum:g}"
        if self.maximum is None:
            return f">= {self.minimum:g}"
        return f"{self.minimum:g} .. {self.maximum:g}"


@dataclass(frozen=True)
class Point:
    """The place of a figure in a plot: `x` is the horizontal value, the figure is the vertical one."""

    plot: str  # a name of plots.PLOTS
    series: str  # the line of the point
    x: float


@dataclass(frozen=True)
class Figure:
    """One line of the report, with a point if it belongs to a plot."""

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
    """A line of the report that names the reason for a missing figure."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of a part for the page."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Settings:
    """The length of a run."""

    rounds: int
    scale: float  # factor for the operations in a round

    def operations(self, number: int, minimum: int = 1) -> int:
        return max(minimum, int(number * self.scale))


class Samples:
    """The costs of each case in every round."""

    def __init__(self, costs: Mapping[str, Sequence[float]]) -> None:
        self._costs = costs

    def cost(
        self, case: str, unit: str = "ns", *, what: str = "", divisor: float = 1, at: Point | None = None
    ) -> Figure:
        return Figure(what or case, unit, Spread.of([cost / divisor for cost in self._costs[case]]), at=at)

    def ratio(self, case: str, base: str, target: Target | None = None, *, what: str = "") -> Figure:
        """The cost of the case divided by the cost of the base."""
        pairs = zip(self._costs[case], self._costs[base], strict=True)
        return Figure(what or f"{case} / {base}", "x", Spread.of([cost / other for cost, other in pairs]), target)


def interleave(cases: Mapping[str, Case], rounds: int, tick: Tick) -> Samples:
    """Runs every case once in each round, in the given order; the first round only warms up."""
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            cost = case()
            if number:
                costs[name].append(cost)
        tick()
    return Samples(costs)


def statement(text: str, names: Mapping[str, object], number: int) -> Case:
    """A case that runs the statement about `number` times, with its names as local variables."""
    setup = "; ".join(f"{name} = given[{name!r}]" for name in names)
    timer = timeit.Timer("\n".join([text] * UNROLLED), setup, globals={"given": names})
    loops = max(1, number // UNROLLED)
    return lambda: timer.timeit(loops) / (loops * UNROLLED) * 1e9


def empty_loop(number: int) -> Case:
    """A case that measures the share of the loop in the cost of a statement."""
    timer = timeit.Timer("pass")
    loops = max(1, number // UNROLLED)
    return lambda: timer.timeit(loops) / (loops * UNROLLED) * 1e9

"""Trees of 1,000, 10,000 and 100,000 groups, with up to a million cells and 4,000 holders.

Three trees take turns, from Python: the usage of random groups, and of the root with the same number of open cells in
each tree, and with all cells open. An operation over all groups or cells is compared by its cost for one of them.

Through the mount, the tree and a bare file system take turns to make groups in one directory. A take-over is the whole
command `fsmount mount` after a kill of the daemon. `fsmount top` runs in a terminal, including its start. All processes
share one processor, as in the part files.
"""

import gc
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fsmount import Tree
from fsmount.engine import ROOT

from .baselines import bare
from .daemon import Daemon, daemon
from .measure import Case, Figure, Point, Samples, Settings, Spread, Target, Tick, interleave
from .mounted import bare_tree
from .populated import Population, capacity, make_groups
from .watching import watched

ROUNDS = 15
SIZES = (1_000, 10_000, 100_000)
OPEN = 10_000
SAMPLE = 1_000
TURNS = 100
AGAIN = 5
READS = 20
TAKE_OVERS = 5
LOOKS = 10
INTERVAL = 2.0

# For a hundred times as many groups: an operation on one group has more cache misses and no more work.
CONSTANT = Target(maximum=3)
ROOT_USAGE = Target(maximum=0.3)
MKDIR = Target(maximum=1.3)
REGION = Target(maximum=1024)
MEMORY = Target(maximum=250)
TAKE_OVER = Target(maximum=2)
WATCHING = Target(maximum=10)

MOUNT = "mounted"
BARE = "bare"

T = TypeVar("T")


def measure(settings: Settings, tick: Tick) -> list[Figure]:
    sizes = [settings.operations(size) for size in SIZES]
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        stack.callback(gc.enable)
        gc.disable()
        figures = _in_the_engine(settings, sizes) + _through_the_mount(settings, sizes, tick)
    figures.sort(key=lambda figure: (figure.target is None, figure.unit != "x"))
    return figures


def _each(operation: Callable[[T], object], of: Sequence[T]) -> Case:
    """Microseconds for each operation."""

    def run() -> float:
        start = time.perf_counter()
        for one in of:
            operation(one)
        return (time.perf_counter() - start) / len(of) * 1e6

    return run


# ---- the engine -----------------------------------------------------------------------------------------

# The lines of the plot: a reader cannot distinguish more.
DRAWN = ("usage", "lookup", "mkdir", "every group in one pass, all")


class _Tree:
    """A tree with this number of groups, its population and its cases."""

    def __init__(self, groups: int, source: random.Random) -> None:
        self.tree = Tree.create(**capacity(groups, spare=SAMPLE))
        self.region = self.tree.region
        empty = self._bytes()
        self.groups = make_groups(self.region, groups)
        self.bytes_each = (self._bytes() - empty) / groups
        self.population = Population(self.region, self.groups)
        self._sample = source.choices(self.groups, k=SAMPLE)
        self.close = self.tree.close

    def _bytes(self) -> int:
        return os.fstat(self.region.fd).st_blocks * 512

    def of_one_group(self) -> dict[str, Case]:
        region = self.region
        names = [(region.parent(group), region.name(group)) for group in self._sample]
        parent = region.parent(self.groups[-1])
        new = [b"new%d" % number for number in range(SAMPLE)]
        made: list[int] = []
        return {
            "usage of a leaf": _each(lambda group: region.usage(group, 0), self._sample),
            "lookup": _each(lambda found: region.lookup(*found), names),
            "mkdir": _each(lambda name: made.append(region.mkdir(parent, name, 0o755, 0, 0, 0)), new),
            "rmdir": _each(lambda _: region.rmdir(made.pop(), 0), new),
        }

    def of_the_root(self, open_cells: str) -> dict[str, Case]:
        return {
            f"usage of the root, {open_cells} cells open": _each(lambda root: self.region.usage(root, 0), [ROOT] * 3)
        }

    def of_all(self, open_cells: str) -> dict[str, Case]:
        return {f"every group in one pass, {open_cells} cells open": _each(self.tree.snapshot, ["memory"])}


def _in_the_engine(settings: Settings, sizes: Sequence[int]) -> list[Figure]:
    few = settings.operations(OPEN)
    source = random.Random(1)
    with ExitStack() as stack:
        trees = {size: stack.enter_context(closing(_Tree(size, source))) for size in sizes}

        def compared(cases: Callable[[_Tree], Mapping[str, Case]], *, by_group: bool) -> list[Figure]:
            return _compared(settings, {size: cases(tree) for size, tree in trees.items()}, by_group)

        figures = compared(_Tree.of_one_group, by_group=False)
        figures += compared(lambda tree: tree.of_all("no"), by_group=True)
        for tree in trees.values():
            tree.population.open(few)
        figures += compared(lambda tree: tree.of_the_root(f"{few:,}"), by_group=False)
        for tree in trees.values():
            tree.population.open(tree.population.cells)
        figures += compared(lambda tree: tree.of_the_root("all"), by_group=True)
        figures += compared(lambda tree: tree.of_all("all"), by_group=True)
        bytes_each = trees[sizes[-1]].bytes_each
    return [*figures, Figure(f"region, each of {sizes[-1]:,} groups", "B", Spread.of([bytes_each]), REGION)]


def _compared(settings: Settings, cases: Mapping[int, Mapping[str, Case]], by_group: bool) -> list[Figure]:
    """The same case in trees of several sizes, compared as a whole or for each group."""
    sizes = list(cases)
    named = {f"{what}, {size:,} groups": case for size in sizes for what, case in cases[size].items()}
    samples = interleave(named, settings.rounds, lambda: None)
    figures = []
    for what in cases[sizes[0]]:
        of = [f"{what}, {size:,} groups" for size in sizes]
        ratio = samples.ratio(of[-1], of[0], CONSTANT, what=f"{what}, {_sizes(sizes)}")
        figures.append(_divided(ratio, sizes[-1] / sizes[0]) if by_group else ratio)
        drawn = what.startswith(DRAWN)
        figures += [
            samples.cost(case, "us", at=Point("groups", what, size) if drawn else None)
            for case, size in zip(of, sizes, strict=True)
        ]
    return figures


def _sizes(sizes: Sequence[int]) -> str:
    return f"{sizes[-1]:,} / {sizes[0]:,}"


def _divided(figure: Figure, divisor: float) -> Figure:
    low, median, high = (value / divisor for value in (figure.spread.low, figure.spread.median, figure.spread.high))
    return replace(figure, what=f"{figure.what}, a group", spread=Spread(median, low, high))


# ---- the mount ------------------------------------------------------------------------------------------


def _through_the_mount(settings: Settings, sizes: Sequence[int], tick: Tick) -> list[Figure]:
    room = (f"--{what}={number}" for what, number in capacity(sizes[-1], spare=0).items())
    with daemon(*room) as ours, bare_tree() as theirs:
        figures = _mkdir(settings, sizes, tick, ours.mountpoint, theirs)
        with os.scandir(ours.mountpoint) as listed:
            for found in listed:
                found.stat()
        memory = Figure(
            f"memory of the daemon, {sizes[-1]:,} groups listed", "MB", Spread.of([ours.memory / 1e6]), MEMORY
        )
        figures += [
            memory,
            _watching(settings, ours, sizes[-1]),
            _take_over(settings, ours, f"take-over, {sizes[-1]:,} groups"),
        ]
        with Tree.open(ours.region) as tree:
            population = Population(tree.region, [group.id for group in tree.root.children()])
            try:
                figures += _root(settings, population, ours.mountpoint, theirs)
                population.open(population.cells)
                figures.append(_take_over(settings, ours, f"take-over, {population.cells:,} cells open"))
            finally:
                population.end()
        tick()
    return figures


def _mkdir(settings: Settings, sizes: Sequence[int], tick: Tick, ours: Path, theirs: Path) -> list[Figure]:
    """Makes all groups in steps of a hundredth; at each size it removes and makes the last ones a few times."""
    share = sizes[-1] // TURNS
    costs: dict[str, list[float]] = {}

    def turn(act: Callable[[str], None], number: int, what: str) -> None:
        for where, tree in ((MOUNT, ours), (BARE, theirs)):
            paths = [f"{tree}/{number}.{one}" for one in range(share)]
            costs.setdefault(f"{act.__name__}, {where}{what}", []).append(_each(act, paths)())

    for number in range(TURNS):
        turn(os.mkdir, number, "")
        made = share * (number + 1)
        for _ in range(AGAIN if made in sizes else 0):
            turn(os.rmdir, number, f", {made:,} groups")
            turn(os.mkdir, number, f", {made:,} groups")
        if settings.rounds * (number + 1) // TURNS > settings.rounds * number // TURNS:
            tick()
    samples = Samples(costs)
    in_all = sum(costs[f"mkdir, {MOUNT}"]) / sum(costs[f"mkdir, {BARE}"])
    figures = [Figure(f"mkdir of {sizes[-1]:,} groups / bare, in all", "x", Spread.of([in_all]), MKDIR)]
    for act in ("mkdir", "rmdir"):
        smallest, largest = (f"{size:,} groups" for size in (sizes[0], sizes[-1]))
        mounted, others = f"{act}, {MOUNT}", f"{act}, {BARE}"
        figures += [
            samples.ratio(f"{mounted}, {largest}", f"{others}, {largest}", what=f"{act} / bare, {largest}"),
            samples.ratio(
                f"{mounted}, {largest}", f"{mounted}, {smallest}", CONSTANT, what=f"{mounted}, {_sizes(sizes)}"
            ),
            samples.ratio(f"{others}, {largest}", f"{others}, {smallest}", what=f"{others}, {_sizes(sizes)}"),
        ]
        for size in sizes:
            for series in (mounted, others):
                figures.append(samples.cost(f"{series}, {size:,} groups", "us"))
    return figures


def _root(settings: Settings, population: Population, ours: Path, theirs: Path) -> list[Figure]:
    """The time that open cells add to a read of the root's usage."""
    few = settings.operations(OPEN)
    bare_read, idle, busy = [], [], []
    with (
        open(ours / "memory.usage_in_bytes", "rb", buffering=0) as usage,
        open(theirs / os.fsdecode(bare.FILE), "rb", buffering=0) as constant,
    ):
        read_ours, read_theirs = (
            _each(lambda file: os.pread(file.fileno(), 64, 0), [file] * READS) for file in (usage, constant)
        )
        for _ in range(settings.rounds):
            population.close_all()
            bare_read.append(read_theirs())
            idle.append(read_ours())
            population.open(few)
            busy.append(read_ours())
    what = f"read of the root, {few:,} cells open"
    return [
        Figure(f"{what}, beyond {base}", "ms", Spread.of([(cost - other) / 1e3 for cost, other in pairs]), ROOT_USAGE)
        for base, pairs in (
            ("bare", zip(busy, bare_read, strict=True)),
            ("none open", zip(busy, idle, strict=True)),
        )
    ] + [
        Figure(what, "us", Spread.of(busy)),
        Figure("read of the root, no cells open", "us", Spread.of(idle)),
        Figure("read, bare", "us", Spread.of(bare_read)),
    ]


def _watching(settings: Settings, ours: Daemon, groups: int) -> Figure:
    """The processor time of `fsmount top` and of the daemon."""
    before = ours.processor_time
    top = watched(ours.mountpoint, settings.operations(LOOKS, minimum=2), max(0.1, INTERVAL * settings.scale))
    share = (top.processor + ours.processor_time - before) / top.seconds
    return Figure(f"fsmount top, {groups:,} groups", "%", Spread.of([share * 100]), WATCHING)


def _take_over(settings: Settings, ours: Daemon, what: str) -> Figure:
    seconds = []
    for _ in range(settings.operations(TAKE_OVERS, minimum=2)):
        ours.kill()
        seconds.append(ours.mount())
    return Figure(what, "s", Spread.of(seconds), TAKE_OVER)

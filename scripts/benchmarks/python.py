"""Charging from Python beside the cheapest call into the binding.

Each statement has its names in local variables, and the loop body repeats it. The loop adds the same small time to each
(see "the loop"), which no figure subtracts. The cases are many charges in a row, their uncharges, and the pair of a
charge and its uncharge. The spelling is `charge(n)`, where charge is counter.charge, to compare with `noop(n)`; and
`counter.charge(n)`. A charge is 4096. Every group on the way up has a limit, far away.

With two processes, the second one charges all the time too, in a group of its own with the same parents.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import fsmount
from fsmount import engine

from .companion import Companion
from .measure import Case, Figure, Point, Settings, Target, Tick, empty_loop, interleave, statement

DEPTHS = (2, 4, 16)  # counters on the way of a charge, including the root's
LIMIT = 1 << 50
AMOUNT = 4096
SHARED_MEMORY = "/dev/shm"
ROUNDS = 101


def _leaf(tree: fsmount.Tree, depth: int, name: str) -> fsmount.Group:
    """The group `name` at this depth; missing groups on the way are made, with a limit."""
    group = tree.root
    for level in range(2, depth + 1):
        step = name if level == depth else f"level{level}"
        found = {child.name: child for child in group.children()}
        if step in found:
            group = found[step]
        else:
            group = group.mkdir(step)
            group["memory"].limit = LIMIT
    return group


def _pairs_of_another_group(path: str, depth: int) -> Case:
    tree = fsmount.Tree.open(path)
    counter = _leaf(tree, depth, "second").attach()["memory"]
    return statement(
        "charge(n); uncharge(n)", {"charge": counter.charge, "uncharge": counter.uncharge, "n": AMOUNT}, 20_000
    )


def _pair_beside(depth: int) -> str:
    return f"pair, depth {depth}, 2 processes"


def _calls() -> Case:
    return statement("noop(n)", {"noop": engine.noop, "n": AMOUNT}, 20_000)


def measure(settings: Settings, tick: Tick) -> list[Figure]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fsmount-bench-", dir=SHARED_MEMORY))
        path = str(Path(directory) / "region")
        tree = stack.enter_context(fsmount.Tree.create(path))
        number = settings.operations(200_000)
        cases: dict[str, Case] = {
            "the loop": empty_loop(number),
            "noop": statement("noop(n)", {"noop": engine.noop, "n": AMOUNT}, number),
        }

        def started(prepare: Callable[[], Case]) -> Companion:
            companion = Companion(prepare)
            stack.callback(companion.end)
            return companion

        cases["noop, 2 processes"] = started(_calls).beside(cases["noop"])
        names = {}
        companions = {}
        for depth in DEPTHS:
            _leaf(tree, depth, "second")
            counter = stack.enter_context(_leaf(tree, depth, "first").attach())["memory"]
            names[depth] = {"counter": counter, "charge": counter.charge, "uncharge": counter.uncharge, "n": AMOUNT}
            companions[depth] = started(partial(_pairs_of_another_group, path, depth))
        # Compared cases run side by side, and each charge has its uncharge later in the round.
        for what in ("charge", "uncharge"):
            alone = {depth: statement(f"{what}(n)", names[depth], number) for depth in DEPTHS}
            cases |= {f"{what}, depth {depth}": case for depth, case in alone.items()}
            cases |= {
                f"{what}, depth {depth}, 2 processes": companions[depth].beside(case) for depth, case in alone.items()
            }
        for text, what in (
            ("charge(n); uncharge(n)", "pair"),
            ("counter.charge(n)", "counter.charge(n)"),
            ("counter.uncharge(n)", "counter.uncharge(n)"),
        ):
            cases |= {f"{what}, depth {depth}": statement(text, names[depth], number) for depth in DEPTHS}
        cases |= {_pair_beside(depth): companions[depth].beside(cases[f"pair, depth {depth}"]) for depth in DEPTHS}
        samples = interleave(cases, settings.rounds, tick)

    ratio = samples.ratio
    figures = [ratio(f"charge, depth {depth}", "noop", Target(maximum=2.5)) for depth in DEPTHS]
    figures += [ratio(f"counter.charge(n), depth {depth}", "noop", Target(maximum=2.5)) for depth in DEPTHS]
    figures += [ratio("charge, depth 16", "charge, depth 2", Target(0.9, 1.1))]
    figures += [
        ratio(f"charge, depth {depth}, 2 processes", f"charge, depth {depth}", Target(maximum=1.1)) for depth in DEPTHS
    ]
    figures += [ratio("noop, 2 processes", "noop", what="(the machine itself: noop, 2 processes / noop)")]
    figures += [ratio(f"uncharge, depth {depth}", "noop") for depth in DEPTHS]
    figures += [ratio(f"pair, depth {depth}", "noop") for depth in DEPTHS]
    points = {_pair_beside(depth): Point("depth", "fsmount, from Python", depth) for depth in DEPTHS}
    return figures + [samples.cost(name, at=points.get(name)) for name in cases]

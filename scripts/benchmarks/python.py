"""Charging from Python, beside the cheapest call into the binding and beside multiprocessing.Value.

Every statement is timed alike, with its names in local variables and repeated within the loop: the loop's overhead is
the same small part of each (see "the loop") and is subtracted from none. Timed are many charges in a row, the
uncharges that give them back, and the pair (charge, then uncharge) over and over: as `charge(n)`, charge being
counter.charge, which is spelled like `noop(n)`; and as `counter.charge(n)`. A charge is 4096, and every group on the
way up has a limit, far away.

With two processes, the second one does the same without a pause: it charges a group of its own with the same parents,
or the same multiprocessing.Value.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import fsmount
from fsmount import engine

from .measure import Case, Figure, Settings, Target, Tick, empty_loop, interleave, statement

DEPTHS = (1, 4, 16)
LIMIT = 1 << 50
AMOUNT = 4096
SHARED_MEMORY = "/dev/shm"
ROUNDS = 101
PEERS = {"Value": False, "Value (locked once)": True}

_fork = multiprocessing.get_context("fork")


class Peer:
    """The admission check one would write with multiprocessing.Value.

    As the documentation shows it, each look at value.value takes the lock once more; with `once` the lock is taken once
    and the number below it is used.
    """

    def __init__(self, once: bool) -> None:
        value = _fork.Value("q", 0)
        self.lock = value.get_lock()
        self.value = value.get_obj() if once else value

    def charge(self, amount: int) -> None:
        value = self.value
        with self.lock:
            if value.value + amount > LIMIT:
                raise MemoryError
            value.value += amount

    def uncharge(self, amount: int) -> None:
        value = self.value
        with self.lock:
            value.value -= amount


class Companion:
    """A second process that does its work over and over, while it is told to."""

    def __init__(self, prepare: Callable[[], Case]) -> None:
        self._control, control = _fork.Pipe()
        self._process = _fork.Process(target=self._live, args=(control, prepare), daemon=True)
        self._process.start()
        control.close()

    @staticmethod
    def _live(control: Connection, prepare: Callable[[], Case]) -> None:
        work = prepare()
        while control.recv():
            work()
            control.send(True)
            while not control.poll():
                work()
            control.recv()
            control.send(True)

    @contextmanager
    def working(self) -> Iterator[None]:
        self._ask()
        yield
        self._ask()

    def _ask(self) -> None:
        self._control.send(True)
        if not self._control.poll(30):
            raise RuntimeError("the second process does not answer")
        self._control.recv()

    def beside(self, case: Case) -> Case:
        """The case, while the companion works."""

        def run() -> float:
            with self.working():
                return case()

        return run

    def end(self) -> None:
        self._control.send(False)
        self._process.join()


def _leaf(tree: fsmount.Tree, depth: int, name: str) -> fsmount.Group:
    """The group `name` at this depth; what is missing on the way is made, with a limit."""
    group = tree.root
    for level in range(1, depth + 1):
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


def _pairs_of(peer: Peer) -> Case:
    return statement("charge(n); uncharge(n)", {"charge": peer.charge, "uncharge": peer.uncharge, "n": AMOUNT}, 100)


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
        # What is compared is measured close together; and what is charged is uncharged later in the round.
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
        number = settings.operations(10_000, least=100)
        for name, once in PEERS.items():
            peer = Peer(once)
            companion = started(partial(_pairs_of, peer))
            for what, method in (("charge", peer.charge), ("uncharge", peer.uncharge)):
                case = statement(f"{what}(n)", {what: method, "n": AMOUNT}, number)
                cases |= {f"{name} {what}": case, f"{name} {what}, 2 processes": companion.beside(case)}
        samples = interleave(cases, settings.rounds, tick)

    ratio = samples.ratio
    figures = [ratio(f"charge, depth {depth}", "noop", Target(most=3)) for depth in DEPTHS]
    figures += [ratio(f"counter.charge(n), depth {depth}", "noop", Target(most=3)) for depth in DEPTHS]
    figures += [ratio("charge, depth 16", "charge, depth 1", Target(0.9, 1.1))]
    figures += [
        ratio(f"charge, depth {depth}, 2 processes", f"charge, depth {depth}", Target(most=1.1)) for depth in DEPTHS
    ]
    figures += [ratio("noop, 2 processes", "noop", what="(the machine itself: noop, 2 processes / noop)")]
    for suffix, least in (("", 15), (", 2 processes", 25)):
        for peer_name, target in zip(PEERS, (Target(least=least), None), strict=True):
            figures += [
                ratio(
                    f"{peer_name} charge{suffix}",
                    f"charge, depth {depth}{suffix}",
                    target,
                    what=f"{peer_name} charge / charge, depth {depth}{suffix}",
                )
                for depth in DEPTHS
            ]
    figures += [ratio(f"uncharge, depth {depth}", "noop") for depth in DEPTHS]
    figures += [ratio(f"pair, depth {depth}", "noop") for depth in DEPTHS]
    return figures + [samples.cost(name) for name in cases]

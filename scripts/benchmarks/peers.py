"""Charging under two limits from Python, beside the usual tools for the same purpose.

One process, and two at once, repeat the pair `charge(n); uncharge(n)`. Each process has a leaf of its own, and both
share a parent. Both counters have a limit, far away. A ratio is the cost of a peer divided by the cost of fsmount.

First the bench checks that each peer keeps both limits while two processes charge at once, and that it uncharges. The
table of fsmount/docs/bench.md names the features that each peer lacks. The counters are in shared memory, except for
SQLite: its database is a temporary file, once with each transaction on the disk (SQLite's default with a WAL) and once
without waiting for the disk.

The control files of cgroup v1 admit no requests: they show the cost of a read and a write in the kernel. Their pair is
a write of the leaf's limit and a read of the parent's usage.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection

import fsmount

from .baselines import admission
from .baselines.admission import Counter, Join, Limits, Refused, Unavailable
from .baselines.cgroup import control_files
from .companion import Companion
from .measure import Case, Figure, Note, Point, Settings, Table, Target, Tick, interleave, number, statement

ROUNDS = 25
FAR = Limits(leaf=1 << 30, parent=1 << 30)
PROCESSES = {1: "1 process", 2: "2 processes"}

_fork = multiprocessing.get_context("fork")

Open = Callable[[Limits], AbstractContextManager[Join]]


@dataclass(frozen=True)
class Peer:
    open: Open
    pairs: int  # in a round
    lacks: str
    targets: Mapping[int, Target] = field(default_factory=dict)  # by the number of processes
    admits: bool = True


OURS = "fsmount"
OURS_LOOKED_UP = "fsmount, as counter.charge(n)"
STAYS = "the charges of a killed process stay"
PEERS = {
    OURS: Peer(admission.tree, 100_000, ""),
    "multiprocessing.Value": Peer(
        admission.values,
        4_000,
        f"only for processes with a common parent; a process killed with the lock stops all others; {STAYS}",
        {1: Target(minimum=15), 2: Target(minimum=25)},
    ),
    "multiprocessing.Value, locked once": Peer(
        admission.values_locked_once, 10_000, "the same; needs more care than the documentation shows"
    ),
    "multiprocessing semaphore": Peer(
        admission.semaphores, 10_000, f"one unit at a time; no change of a limit, no read of a usage; {STAYS}"
    ),
    "record lock on a file": Peer(
        admission.locked_file,
        1_000,
        f"does not exclude threads; a kill between two writes leaves different sums; {STAYS}",
    ),
    "SQLite (WAL)": Peer(
        admission.rows, 20, f"a process that finds it locked tries again; {STAYS}", {1: Target(minimum=1000)}
    ),
    "SQLite (WAL), not synced": Peer(
        admission.rows_unsynced, 20, "the same; the database may not survive a crash of the machine"
    ),
    "Redis, Lua script": Peer(admission.keys, 200, f"a server, which all wait for; {STAYS}", {1: Target(minimum=500)}),
    "cgroup v1 control files": Peer(
        control_files,
        1_000,
        "the kernel charges memory when a process touches it: no request for a charge",
        admits=False,
    ),
}


# ---- the limits that each keeps -------------------------------------------------

SMALL = Limits(leaf=60, parent=100)


def _fill(counter: Counter) -> int:
    """Charges until a refusal; returns the charged amount."""
    charged = 0
    while True:
        try:
            counter.charge(1)
        except (Refused, fsmount.LimitExceeded):
            return charged
        charged += 1


def _empty(counter: Counter, charged: int) -> None:
    for _ in range(charged):
        counter.uncharge(1)


def _second(join: Join, control: Connection, others: Connection) -> None:
    others.close()
    counter = join(1)
    control.recv()
    charged = _fill(counter)
    control.send(charged)
    control.recv()
    _empty(counter, charged)


def check(name: str, opened: Open) -> None:
    """RuntimeError unless two processes that charge at once get exactly the limit, twice."""
    with opened(SMALL) as join:
        control, theirs = _fork.Pipe()
        process = _fork.Process(target=_second, args=(join, theirs, control), daemon=True)
        process.start()
        theirs.close()
        counter = join(0)
        control.send("charge")
        first = _fill(counter)
        try:
            second = control.recv()
        except EOFError:
            raise RuntimeError(f"{name}: the second process ended early") from None
        control.send("uncharge")
        _empty(counter, first)
        process.join()
        if first + second != SMALL.parent or max(first, second) > SMALL.leaf:
            raise RuntimeError(f"{name} admits {first} and {second} under limits of {SMALL.leaf} and {SMALL.parent}")
        again = _fill(counter), _fill(join(1))
        if again != (SMALL.leaf, SMALL.parent - SMALL.leaf):
            raise RuntimeError(f"{name} admits {again[0]} and {again[1]} after both processes uncharged everything")


# ---- the cost of each ------------------------------------------------------------


def _pairs(counter: Counter, pairs: int) -> Case:
    names = {"charge": counter.charge, "uncharge": counter.uncharge, "n": 1}
    return statement("charge(n); uncharge(n)", names, pairs)


def _pairs_of_second(join: Join, pairs: int) -> Case:
    return _pairs(join(1), pairs)


def _case(name: str, processes: int) -> str:
    return f"{name}, {PROCESSES[processes]}"


def _ratio(name: str, processes: int) -> str:
    return f"{name} / {_case(OURS, processes)}"


def measure(settings: Settings, tick: Tick) -> list[Figure | Note]:
    notes = []
    alone: dict[str, Case] = {}
    beside: dict[str, Case] = {}
    with ExitStack() as stack:
        for name, peer in PEERS.items():
            pairs = settings.operations(peer.pairs, minimum=20)
            try:
                if peer.admits:
                    check(name, peer.open)
                join = stack.enter_context(peer.open(FAR))
            except Unavailable as missing:
                notes.append(Note(f"{name} is not measured: {missing}"))
                continue
            # A companion finishes its current call before it stops.
            companion = Companion(partial(_pairs_of_second, join, max(20, pairs // 10)))
            stack.callback(companion.end)
            counter = join(0)
            alone[name] = _pairs(counter, pairs)
            beside[name] = companion.beside(alone[name])
            if name == OURS:
                text = "counter.charge(n); counter.uncharge(n)"
                alone[OURS_LOOKED_UP] = statement(text, {"counter": counter, "n": 1}, pairs)
                beside[OURS_LOOKED_UP] = companion.beside(alone[OURS_LOOKED_UP])
        cases = {_case(name, 1): case for name, case in alone.items()}
        cases |= {_case(name, 2): case for name, case in beside.items()}
        samples = interleave(cases, settings.rounds, tick)
    ratios = [
        samples.ratio(
            _case(name, processes),
            _case(OURS, processes),
            PEERS[name].targets.get(processes) if name in PEERS else None,
            what=_ratio(name, processes),
        )
        for processes in PROCESSES
        for name in alone
        if name != OURS
    ]
    costs = [
        samples.cost(_case(name, processes), at=Point("peers", name, processes))
        for processes in PROCESSES
        for name in alone
    ]
    return [*ratios, *notes, *costs]


def table(figures: Mapping[str, Figure]) -> Table:
    """A row for each peer: its time relative to fsmount, and the features that it lacks."""
    rows = []
    for name, peer in PEERS.items():
        found = [figures.get(_ratio(name, processes)) for processes in PROCESSES]
        ratios = [number(figure.spread.median) for figure in found if figure]
        if ratios:
            rows.append([name, *ratios, peer.lacks])
    return Table(["times as slow as fsmount", *PROCESSES.values(), "missing"], rows)

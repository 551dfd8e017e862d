"""Charging under two limits from Python, beside what one would take instead of fsmount.

Timed is the pair `charge(n); uncharge(n)` over and over, by one process and by two at once. Each process has a leaf of
its own, and a parent in common with the other; both have a limit, far away. Ratios are a peer's cost by fsmount's.

Before it is timed, each peer has to keep both limits while two processes charge at once, and to give back. What else
each lacks is in the table of fsmount/docs/bench.md. The counters are in shared memory, but for SQLite's: its database
is where temporary files are, once as SQLite keeps a WAL by default, with each transaction on the disk before the next,
and once without waiting for the disk.

The control files of cgroup v1 admit nothing that is asked for: they are there for what their reading and writing costs.
The pair is a write of the leaf's limit and a read of the parent's usage.
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
STAYS = "what a killed process held stays charged"
PEERS = {
    OURS: Peer(admission.tree, 100_000, ""),
    "multiprocessing.Value": Peer(
        admission.values,
        4_000,
        f"only for processes with a common parent; who is killed with a lock stops all; {STAYS}",
        {1: Target(least=15), 2: Target(least=25)},
    ),
    "multiprocessing.Value, locked once": Peer(
        admission.values_locked_once, 10_000, "the same; written with care, and not as documented"
    ),
    "multiprocessing semaphore": Peer(
        admission.semaphores, 10_000, f"one unit at a time; a limit cannot be changed, a usage not be read; {STAYS}"
    ),
    "record lock on a file": Peer(
        admission.locked_file,
        1_000,
        f"does not keep threads apart; killed between two writes, the sums differ; {STAYS}",
    ),
    "SQLite (WAL)": Peer(admission.rows, 20, f"who finds it locked tries again; {STAYS}", {1: Target(least=1000)}),
    "SQLite (WAL), not synced": Peer(
        admission.rows_unsynced, 20, "the same; the database may not survive a crash of the machine"
    ),
    "Redis, Lua script": Peer(admission.keys, 200, f"a server, which all wait for; {STAYS}", {1: Target(least=500)}),
    "cgroup v1 control files": Peer(
        control_files, 1_000, "the kernel charges memory when it is touched: nothing is charged by asking", admits=False
    ),
}


# ---- what each has to keep ------------------------------------------------------

SMALL = Limits(leaf=60, parent=100)


def _fill(counter: Counter) -> int:
    """Charges until it is refused; returns how much that was."""
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
    """RuntimeError unless two processes that charge at once get all that both limits allow and no more, twice."""
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
            raise RuntimeError(f"{name} admits {again[0]} and {again[1]} after all was given back")


# ---- what each costs ------------------------------------------------------------


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
            pairs = settings.operations(peer.pairs, least=20)
            try:
                if peer.admits:
                    check(name, peer.open)
                join = stack.enter_context(peer.open(FAR))
            except Unavailable as missing:
                notes.append(Note(f"{name} is not measured: {missing}"))
                continue
            # A companion that is told to stop first ends what it began.
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
    """A row for each peer: how much slower it is than fsmount, and what it lacks."""
    rows = []
    for name, peer in PEERS.items():
        found = [figures.get(_ratio(name, processes)) for processes in PROCESSES]
        ratios = [number(figure.spread.median) for figure in found if figure]
        if ratios:
            rows.append([name, *ratios, peer.lacks])
    return Table(["times as slow as fsmount", *PROCESSES.values(), "what it lacks"], rows)

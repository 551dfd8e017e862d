"""The time from the call that makes room until the waiting process runs again.

One process sleeps in the queue for the whole limit; the other uncharges it. The time runs from just before that call to
the first line after the wait, on one clock. The baseline is a semaphore: of multiprocessing between the same
processes, of threading between threads.
"""

import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Protocol

import trio

import fsmount

from .companion import PATIENCE
from .measure import Figure, Settings, Spread, Target, Tick
from .mounted import fsmount_tree

ROUNDS = 25
WAITS = 40  # for each case in a round
SHARED_MEMORY = "/dev/shm"
ROOM = 10
ASLEEP = 0.005  # s until a waiter is surely asleep
RUNNING = Target(maximum=1000)

_processes = multiprocessing.get_context("fork")


class _Waiter:
    """A waiter in a process or a thread: it waits on command and reports the time when it runs again."""

    def __init__(self, kind: Callable[..., threading.Thread] | type, live: Callable[[Connection], None]) -> None:
        self.line, there = multiprocessing.Pipe()
        self._runs = kind(target=live, args=(there,), daemon=True)
        self._runs.start()

    def end(self) -> None:
        self.line.send(False)
        self._runs.join(PATIENCE)


class _Waitable(Protocol):
    def charge(self, amount: int, /, *, wait: bool = False) -> None: ...
    def uncharge(self, amount: int, /) -> None: ...


def _counter(path: str) -> fsmount.Counter:
    return fsmount.Tree.open(path).root.child("contended").attach()["memory"]


def _counter_of_files(group: Path) -> _Waitable:
    return fsmount.attach(group, transport="files")["memory"]


def _charge(counter: Callable[[], _Waitable], line: Connection) -> None:
    memory = counter()
    while line.recv():
        memory.charge(ROOM, wait=True)
        running = time.monotonic_ns()
        memory.uncharge(ROOM)
        line.send(running)


def _charge_in_a_task(counter: Callable[[], fsmount.Counter], line: Connection) -> None:
    memory = counter()

    async def wait() -> int:
        await memory.wait_charge(ROOM)
        running = time.monotonic_ns()
        memory.uncharge(ROOM)
        return running

    while line.recv():
        line.send(trio.run(wait))


def _acquire(semaphore: Semaphore | threading.Semaphore, line: Connection) -> None:
    while line.recv():
        semaphore.acquire()
        line.send(time.monotonic_ns())


def _time(waiter: _Waiter, take: Callable[[], object], give: Callable[[], object]) -> float:
    """Microseconds from the uncharge until the waiter runs."""
    take()
    waiter.line.send(True)
    time.sleep(ASLEEP)
    start = time.monotonic_ns()
    give()
    running: int = waiter.line.recv()
    return (running - start) / 1e3


def measure(settings: Settings, tick: Tick) -> list[Figure]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fsmount-bench-", dir=SHARED_MEMORY))
        path = str(Path(directory) / "region")
        tree = stack.enter_context(fsmount.Tree.create(path))
        tree.root.mkdir("contended")["memory"].limit = ROOM
        between, within = _processes.Semaphore(0), threading.Semaphore(0)
        elsewhere = partial(_counter, path)
        semaphores = {
            "semaphore, process": (_Waiter(_processes.Process, partial(_acquire, between)), between.release),
            "semaphore, thread": (_Waiter(threading.Thread, partial(_acquire, within)), within.release),
        }
        charging = {
            "process": _Waiter(_processes.Process, partial(_charge, elsewhere)),
            "task of trio in a process": _Waiter(_processes.Process, partial(_charge_in_a_task, elsewhere)),
        }
        mounted = stack.enter_context(fsmount_tree()) / "contended"
        mounted.mkdir()
        through_files = _Waiter(_processes.Process, partial(_charge, partial(_counter_of_files, mounted)))
        stack.callback(through_files.end)
        files = _counter_of_files(mounted)
        (mounted / "memory.limit_in_bytes").write_text(str(ROOM))
        memory = stack.enter_context(tree.root.child("contended").attach())["memory"]
        charging["thread"] = _Waiter(threading.Thread, partial(_charge, lambda: memory))
        for waiter in [*charging.values(), *(waiter for waiter, _ in semaphores.values())]:
            stack.callback(waiter.end)
        cases: dict[str, Callable[[], float]] = {
            name: partial(_time, waiter, partial(memory.charge, ROOM), partial(memory.uncharge, ROOM))
            for name, waiter in charging.items()
        }
        cases["process, through files"] = partial(
            _time, through_files, partial(files.charge, ROOM), partial(files.uncharge, ROOM)
        )
        cases |= {name: partial(_time, waiter, lambda: None, release) for name, (waiter, release) in semaphores.items()}
        times: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(settings.rounds + 1):
            for name, case in cases.items():
                found = [case() for _ in range(settings.operations(WAITS, minimum=4))]
                times[name] += found if number else []
            tick()
    figures = [
        Figure(name, "us", Spread.of(values), None if name in semaphores else RUNNING) for name, values in times.items()
    ]
    for name, values in times.items():
        slow = statistics.quantiles(values, n=100, method="inclusive")[98]
        figures.append(Figure(f"{name}: one in a hundred takes longer than", "us", Spread(slow, slow, slow)))
    return figures

"""
Thousands of processes that charge and are killed, forked from one Python that has imported everything.

Crowd is the test's side; as a program, this file is the other side. A line of JSON asks for a process, and the answer
is its pid. Each process writes its operations into its slot of a ledger in shared memory, which stays readable when the
process is killed at any instruction.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsmount

GROUPS = 8
RESOURCES = ("memory", "tokens", "slots")
COUNTERS = GROUPS * len(RESOURCES)
SLOTS = 8

CHARGE, UNCHARGE, GIVE, TAKE = range(4)
#: Words of a slot: operations begun, operations ended, the last operation, stop requested, stopped.
BEGUN, DONE, KIND, COUNTER, AMOUNT, STOP, STOPPED = range(7)
#: Words of an account: the amounts held of each counter, the amounts given to each, the number of refused charges.
ACCOUNT = 2 * COUNTERS + 1
SLOT = 8 + 2 * ACCOUNT


class Slot:
    """
    The operations of a worker. The worker notes an operation, does it, and writes its new account beside the old one.
    Then it counts the operation: that single store switches to the new account.
    """

    def __init__(self, words: memoryview) -> None:
        self.words = words

    def clear(self) -> None:
        self.words[:] = memoryview(bytes(8 * SLOT)).cast("q")

    def account(self, done: int) -> memoryview:
        return self.words[8 + (done & 1) * ACCOUNT :][:ACCOUNT]

    @property
    def held(self) -> list[int]:
        return self.account(self.words[DONE])[:COUNTERS].tolist()

    @property
    def given(self) -> list[int]:
        return self.account(self.words[DONE])[COUNTERS : 2 * COUNTERS].tolist()

    @property
    def refused(self) -> int:
        return int(self.account(self.words[DONE])[2 * COUNTERS])

    @property
    def unfinished(self) -> tuple[int, int, int] | None:
        """Kind, counter and amount of the operation at the worker's end: whether it took effect is unknown."""
        if self.words[BEGUN] == self.words[DONE]:
            return None
        return self.words[KIND], self.words[COUNTER], self.words[AMOUNT]

    def do(self, kind: int, counter: int, amount: int, operation: Callable[[int], bool]) -> None:
        words = self.words
        words[KIND], words[COUNTER], words[AMOUNT] = kind, counter, amount
        done = words[DONE]
        words[BEGUN] = done + 1
        well = operation(amount)
        new = self.account(done + 1)
        new[:] = self.account(done)
        if not well:
            new[2 * COUNTERS] += kind == CHARGE
        else:
            new[counter] += amount if kind in (CHARGE, TAKE) else -amount
            new[COUNTERS + counter] += amount if kind == GIVE else -amount if kind == TAKE else 0
        words[DONE] = done + 1


class Ledger:
    """A slot for each worker of a batch."""

    def __init__(self, descriptor: int) -> None:
        words = memoryview(mmap.mmap(descriptor, 8 * SLOT * SLOTS)).cast("q")
        self.slots = [Slot(words[SLOT * number :][:SLOT]) for number in range(SLOTS)]


class Crowd:
    """The process that forks, as the test sees it."""

    def __init__(self, ledger: int) -> None:
        command = [sys.executable, "-P", __file__, str(ledger)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[ledger]
        )
        self._holding = 0

    def fork(self, kind: str, **task: Any) -> int:
        """The pid of a new process that runs the function of this name."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"kind": kind, **task}) + "\n")
        self._process.stdin.flush()
        while (line := self._line()) == "holding":
            self._holding += 1
        return int(line)

    def until(self, count: int) -> None:
        """Waits until `count` more processes have reported that they hold their charges."""
        while self._holding < count:
            assert self._line() == "holding"
            self._holding += 1
        self._holding -= count

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the crowd ended: {self._process.wait(60)}"
        return line.rstrip("\n")

    def close(self) -> None:
        """Ends all remaining processes: they do not outlive the process that forked them."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def a_crowd() -> Iterator[tuple[Crowd, Ledger]]:
    with tempfile.TemporaryFile() as file:
        file.truncate(8 * SLOT * SLOTS)
        crowd = Crowd(file.fileno())
        try:
            yield crowd, Ledger(file.fileno())
        finally:
            crowd.close()


# ---- the other side -----------------------------------------------------------------------------------


def charge_at_random(
    ledger: Ledger,
    slot: int,
    groups: list[str],
    numbers: list[int],
    seed: int,
    transport: fsmount.Transport,
    on_exit: fsmount.OnExit,
    size: int,
) -> None:
    """Charges some of the groups until a stop is requested, and then keeps its charges."""
    rng = random.Random(seed)
    own = ledger.slots[slot]
    counters: list[tuple[int, Any]] = []
    for number in numbers:
        group = fsmount.attach(groups[number], on_exit=on_exit, transport=transport)
        counters += [(number * len(RESOURCES) + index, group[name]) for index, name in enumerate(RESOURCES)]
    while not own.words[STOP]:
        number, counter = rng.choice(counters)
        held = own.held[number]
        kind = rng.choices((CHARGE, UNCHARGE, GIVE, TAKE), (8, 6, 1, 1))[0]
        amount = rng.randrange(1, size) if kind in (CHARGE, TAKE) else rng.randint(0, held)
        operation = {
            CHARGE: counter.try_charge,
            UNCHARGE: always(counter.uncharge),
            GIVE: always(counter.give),
            TAKE: if_there(counter.take),
        }[kind]
        own.do(kind, number, amount, operation)
    own.words[STOPPED] = 1
    signal.pause()


def always(operation: Callable[[int], None]) -> Callable[[int], bool]:
    def do(amount: int) -> bool:
        operation(amount)
        return True

    return do


def if_there(operation: Callable[[int], None]) -> Callable[[int], bool]:
    def do(amount: int) -> bool:
        try:
            operation(amount)
        except fsmount.NotHeld:
            return False
        return True

    return do


def hold(_: Ledger, group: str, amount: int) -> None:
    fsmount.attach(group)["memory"].charge(amount)
    os.write(1, b"holding\n")
    signal.pause()


def open_leases(_: Ledger, path: str, count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for _number in range(count):
        os.write(os.open(path, os.O_RDWR), b"1")
    os.write(1, b"holding\n")
    signal.pause()


KINDS: dict[str, Callable[..., None]] = {"charge": charge_at_random, "hold": hold, "leases": open_leases}


def main() -> None:
    ledger = Ledger(int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the children need no wait()
    prctl = ctypes.CDLL(None).prctl
    gc.freeze()
    for line in sys.stdin:
        task = json.loads(line)
        function = KINDS[task.pop("kind")]
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
                os.close(writer)
                os.read(reader, 1)
                os.close(reader)
                function(ledger, **task)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.write(1, b"%d\n" % pid)
        os.close(reader)
        os.close(writer)


if __name__ == "__main__":
    main()

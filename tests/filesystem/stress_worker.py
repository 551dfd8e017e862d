"""
A worker of the stress tests: it charges and uncharges some groups at random until it is stopped, and then reports its
charges and the groups that refused it.

The one argument is a JSON object with the arguments of Worker. A line of input stops the worker. It then prints its
report, one JSON object, and keeps its charges until its input ends.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import fsmount


class Account(Protocol):
    """The charges of this worker in one group."""

    def charge(self, amount: int) -> None: ...
    def uncharge(self, amount: int) -> None: ...


class LeaseAccount:
    """A lease file, written directly."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(os.path.join(path, "memory.lease"), os.O_RDWR)

    def charge(self, amount: int) -> None:
        os.write(self.fd, b"+%d" % amount)

    def uncharge(self, amount: int) -> None:
        os.write(self.fd, b"-%d" % amount)


class Worker:
    def __init__(
        self, kind: str, groups: list[str], seed: int, size: int, max_held: int, on_exit: str, gives: bool
    ) -> None:
        self.rng = random.Random(seed)
        self.size, self.max_held, self.gives = size, max_held, gives
        self.kind = kind
        self.accounts: dict[str, Any] = {path: self.account(kind, path, on_exit) for path in groups}
        self.held = dict.fromkeys(groups, 0)
        self.given = dict.fromkeys(groups, 0)
        self.refused: Counter[str] = Counter()
        self.operations = 0

    @staticmethod
    def account(kind: Any, path: str, on_exit: Any) -> Account:
        if kind == "lease":
            return LeaseAccount(path)
        return fsmount.attach(path, on_exit=on_exit, transport=kind)["memory"]

    def amount(self) -> int:
        return min(self.size, 1 << self.rng.randrange(self.size.bit_length())) + self.rng.randrange(100)

    def charge(self, path: str, amount: int) -> bool:
        try:
            self.accounts[path].charge(amount)
        except fsmount.LimitExceeded as refused:
            # A write does not name the group that refused: such workers run where only one group can.
            self.refused[refused.group if self.kind == "memory" else path] += 1
            return False
        except OSError as error:
            if self.kind != "lease" or error.errno != 12:
                raise
            self.refused[path] += 1
            return False
        self.held[path] += amount
        return True

    def uncharge(self, path: str, amount: int) -> None:
        self.accounts[path].uncharge(amount)
        self.held[path] -= amount

    def step(self) -> None:
        path = self.rng.choice(list(self.accounts))
        held, amount = self.held[path], self.amount()
        kind = self.rng.random()
        if kind < 0.5 and held + amount <= self.max_held:
            self.charge(path, amount)
        elif kind < 0.94:
            self.uncharge(path, min(held, amount))
        elif kind < 0.96:
            self.uncharge(path, held)
        elif kind < 0.98 and self.gives:
            self.move(path, min(held, amount))
        else:
            self.burst(path)
        self.operations += 1

    def move(self, path: str, amount: int) -> None:
        """Gives charges to the group itself, or takes earlier ones back."""
        if self.given[path]:
            amount = self.rng.randint(0, self.given[path])
            self.accounts[path].take(amount)
            self.given[path] -= amount
            self.held[path] += amount
        else:
            self.accounts[path].give(amount)
            self.given[path] += amount
            self.held[path] -= amount

    def burst(self, path: str) -> None:
        """Charges many small amounts in a row, which stock is for."""
        charged = sum(self.charge(path, 7) for _ in range(50))
        for _ in range(charged):
            self.uncharge(path, 7)

    def report(self) -> dict[str, Any]:
        names = ("held", "given", "refused", "operations")
        return {name: getattr(self, name) for name in names}


def until_stopped(step: Callable[[], None]) -> None:
    told = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    step()
    while not told.is_set():
        step()


def main() -> None:
    worker = Worker(**json.loads(sys.argv[1]))
    print("ready", flush=True)
    until_stopped(worker.step)
    print(json.dumps(worker.report()), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

"""Processes that open a tree and charge in it, by single commands or at random until they are stopped.

Worker is the side of the test. Run as a program, this file is the other side. They exchange lines of JSON.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from typing import Any

import fsmount
from fsmount.shm import Group, Tree

SLOTS = 64


class Progress:
    """The number of steps of each worker, also of killed ones, in shared memory."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("progress")
        os.ftruncate(self._fd, 8 * SLOTS)
        self._map = mmap.mmap(self._fd, 8 * SLOTS)
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        os.close(self._fd)

    def of(self, slot: int) -> int:
        return int.from_bytes(self._map[8 * slot : 8 * slot + 8], "little")

    def wait_for(self, slots: Sequence[int], steps: int) -> None:
        """Waits until each of the slots has done so many more steps."""
        goals = {slot: self.of(slot) + steps for slot in slots}
        deadline = time.monotonic() + 60
        while any(self.of(slot) < goal for slot, goal in goals.items()):
            assert time.monotonic() < deadline, f"no progress: {[(slot, self.of(slot)) for slot in slots]} of {goals}"
            time.sleep(0.001)


class Refused(OSError):
    """An exception of the worker: its class and its details."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["errno"], answer["text"])
        self.kind: str = answer["error"]
        self.details: dict[str, Any] = answer["details"]


class Worker:
    """A process that has the tree open. Its attachments are numbered from 0."""

    def __init__(self, tree: Tree, progress: Progress | None = None, slot: int = 0) -> None:
        command = [sys.executable, "-P", __file__, tree.path, progress.path if progress else "", str(slot)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.slot = slot

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass

    def tell(self, what: str, **arguments: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker ended: {self.process.wait(10)}"
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer)
        return answer["value"]

    def ask(self, what: str, **arguments: object) -> Any:
        self.tell(what, **arguments)
        return self.answer()

    def attach(self, group: Group, *, keep: bool = False) -> int:
        return int(self.ask("attach", group=group.id, keep=keep))

    def call(self, name: str, *arguments: object, seat: int = 0, resource: str = "memory") -> Any:
        return self.ask("call", seat=seat, resource=resource, name=name, arguments=arguments)

    def start_work(self, seed: int, max_amount: int) -> None:
        """Charges and uncharges amounts up to `max_amount` in all its seats, until stop_work()."""
        self.tell("work", seed=seed, max_amount=max_amount)

    def ask_to_stop(self) -> None:
        self.tell("stop")

    def stop_work(self) -> dict[str, Any]:
        """Stops, and returns what it holds in each seat and resource, and how often each group refused."""
        self.ask_to_stop()
        return self.report()

    def report(self) -> dict[str, Any]:
        report = self.answer()
        assert isinstance(report, dict)
        return report

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def bury(self) -> None:
        assert self.process.wait(30) == -signal.SIGKILL
        self._close()

    def end(self) -> None:
        """Ends the input of the worker, which then exits."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        self._close()


# ---- the other side -----------------------------------------------------------------------------------


def reply(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, default=str), flush=True)


def failed(error: OSError) -> None:
    carried = ("group", "resource", "requested", "usage", "limit", "held", "region", "pid")
    details = {key: getattr(error, key) for key in carried if hasattr(error, key)}
    reply({"error": type(error).__name__, "errno": error.errno, "text": error.strerror, "details": details})


orders = io.FileIO(0, closefd=False)  # without a buffer: select() does not see what was read ahead


def told_to_stop() -> bool:
    return bool(select.select([orders], [], [], 0)[0])


def steps(progress: mmap.mmap | None, slot: int) -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        if progress is not None:
            progress[8 * slot : 8 * slot + 8] = number.to_bytes(8, "little")


def work(seats: list[Group], seed: int, max_amount: int, progress: mmap.mmap | None, slot: int) -> dict[str, Any]:
    """Charges and uncharges in bursts; keeps its own accounts and compares them with the engine."""
    source = random.Random(seed)
    counters = [group[resource] for group in seats for resource in group.resources]
    held = [counter.held for counter in counters]
    refused: Tally[str] = Tally()
    for step in steps(progress, slot):
        if step % 16 == 0 and told_to_stop():
            break
        chosen = source.randrange(len(counters))
        counter = counters[chosen]
        for _ in range(source.randrange(1, 40)):
            amount = source.randrange(1, max_amount + 1) >> source.randrange(10)
            try:
                if held[chosen] < amount or source.random() < 0.55:
                    counter.charge(amount)
                    held[chosen] += amount
                else:
                    counter.uncharge(amount)
                    held[chosen] -= amount
            except fsmount.LimitExceeded as error:
                assert error.usage + amount > error.limit, f"{amount} was refused: {error}"
                refused[f"{error.group} {error.resource}"] += 1
                back = held[chosen] // 2
                counter.uncharge(back)
                held[chosen] -= back
    for counter, mine in zip(counters, held, strict=True):
        assert counter.held == mine, f"{counter}: {mine} are held, the engine says {counter.held}"
    assert orders.readline()  # the command to stop
    return {"held": [[c.group.path, c.resource, h] for c, h in zip(counters, held, strict=True)], "refused": refused}


def serve(path: str, progress_path: str, slot: str) -> None:
    progress = None
    if progress_path:
        with open(progress_path, "r+b") as file:
            progress = mmap.mmap(file.fileno(), 8 * SLOTS)
    tree = Tree.open(path)
    seats: list[Group] = []
    while line := orders.readline():
        what, arguments = json.loads(line)
        try:
            if what == "attach":
                group = tree.group(arguments["group"])
                seats.append(group.attach(on_exit="keep" if arguments["keep"] else "release"))
                reply({"value": len(seats) - 1})
            elif what == "call":
                counter = seats[arguments["seat"]][arguments["resource"]]
                value = getattr(counter, arguments["name"])
                reply({"value": value(*arguments["arguments"]) if callable(value) else value})
            else:
                assert what == "work"
                reply({"value": work(seats, arguments["seed"], arguments["max_amount"], progress, int(slot))})
        except OSError as error:
            failed(error)
    tree.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])

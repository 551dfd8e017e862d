#!/usr/bin/env python3
"""Charges and uncharges a group from parallel processes: in the region, by a lease, or by the files.

After its operations each process prints its charges in one line:

  held=4096 refused=3 charges=70 uncharges=27 seconds=0.52 pid=77 through=region resource=memory group=GROUP

It keeps them until its standard input ends, or until SIGTERM, and then releases them. charge.sh does the same.
"""

import argparse
import errno
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Charge = Callable[[int], bool]  # False: refused by a limit
Uncharge = Callable[[int], object]

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# The number of operations between two looks at the clock and the signals.
PLAN = 1024


@contextmanager
def through_region(group: str, resource: str) -> Iterator[tuple[Charge, Uncharge]]:
    """The process holds the charges, in shared memory."""
    import fsmount

    with fsmount.attach(group, transport="memory") as attached:
        counter = attached[resource]
        yield counter.try_charge, counter.uncharge


@contextmanager
def through_lease(group: str, resource: str) -> Iterator[tuple[Charge, Uncharge]]:
    """The open descriptor holds the charges."""
    lease = os.open(f"{group}/{resource}.lease", os.O_RDWR | os.O_CLOEXEC)
    try:
        yield lambda amount: write(lease, b"+%d\n" % amount), lambda amount: os.write(lease, b"-%d\n" % amount)
    finally:
        os.close(lease)


@contextmanager
def through_files(group: str, resource: str) -> Iterator[tuple[Charge, Uncharge]]:
    """The group itself holds the charges."""
    charge = os.open(f"{group}/{resource}.charge", os.O_WRONLY | os.O_CLOEXEC)
    uncharge = os.open(f"{group}/{resource}.uncharge", os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield lambda amount: write(charge, b"%d\n" % amount), lambda amount: os.write(uncharge, b"%d\n" % amount)
    finally:
        os.close(charge)
        os.close(uncharge)


THROUGH = {"region": through_region, "lease": through_lease, "files": through_files}


def write(descriptor: int, command: bytes) -> bool:
    try:
        os.write(descriptor, command)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return False
    return True


class Worker:
    """The operations of one process, and its own count of them."""

    def __init__(self, charge: Charge, uncharge: Uncharge) -> None:
        self.charge = charge
        self.uncharge = uncharge
        self.held = self.refused = self.charges = self.uncharges = 0

    def operate(self, plan: list[int]) -> None:
        """Charges each positive amount, and uncharges each negative one, as far as it is held."""
        charge, uncharge, held = self.charge, self.uncharge, self.held
        refused = uncharges = idle = 0
        for amount in plan:
            if amount > 0:
                if charge(amount):
                    held += amount
                else:
                    refused += 1
            elif held:
                amount = min(-amount, held)
                uncharge(amount)
                held -= amount
                uncharges += 1
            else:
                idle += 1
        self.held = held
        self.refused += refused
        self.uncharges += uncharges
        self.charges += len(plan) - refused - uncharges - idle


def work(options: argparse.Namespace, seed: int) -> int:
    """Runs one process; returns its exit status."""
    stopped = False

    # No signal may end the loop between a charge and its count, or the sums would differ.
    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    end_by(stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    dice = random.Random(seed)
    plan = [dice.randint(1, options.size) * (1 if dice.random() * 100 < options.percent else -1) for _ in range(PLAN)]
    left: int = options.operations
    with THROUGH[options.through](options.group, options.resource) as (charge, uncharge):
        worker = Worker(charge, uncharge)
        start = time.monotonic()
        end = start + options.seconds if options.seconds else float("inf")
        while left and not stopped and time.monotonic() < end:
            worker.operate(plan if left < 0 or left >= PLAN else plan[:left])
            left = left - PLAN if left >= PLAN else min(left, 0)
        seconds = time.monotonic() - start
        try:
            end_by(leave)
            line = (
                f"held={worker.held} refused={worker.refused} charges={worker.charges} uncharges={worker.uncharges}"
                f" seconds={seconds:.2f} pid={os.getpid()} through={options.through} resource={options.resource}"
                f" group={options.group}\n"
            )
            os.write(1, os.fsencode(line))
            while not stopped and os.read(0, 4096):
                pass
        finally:
            uncharge(worker.held)
    return 128 + signal.SIGTERM if stopped else 0


def end_by(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in ENDING:
        signal.signal(number, handler)


def in_child(options: argparse.Namespace, seed: int) -> int:
    """Starts one process; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = work(options, seed)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except OSError as error:
        print(f"charge.py: {options.group}: {error}", file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("group", metavar="GROUP", help="a directory of a mounted tree")
    add("-t", dest="through", choices=list(THROUGH), default="region", help="how it charges (region)")
    add("-r", dest="resource", metavar="RESOURCE", default="memory", help="the resource to charge (memory)")
    add("-j", dest="processes", metavar="PROCESSES", type=int, default=1, help="the number of parallel processes (1)")
    add("-n", dest="operations", metavar="OPERATIONS", type=int, help="of each process (1000; with -d: no end)")
    add("-d", dest="seconds", metavar="SECONDS", type=float, default=0, help="stop after that long")
    add("-s", dest="size", metavar="SIZE", type=int, default=4096, help="a charge is 1 to SIZE (4096)")
    add("-p", dest="percent", metavar="PERCENT", type=int, default=60, help="of the operations are charges (60)")
    add("-e", dest="seed", metavar="SEED", type=int, default=1, help="of the amounts (1)")
    options = parser.parse_args()
    if options.operations is None:
        options.operations = -1 if options.seconds else 1000

    # Signals stay blocked until their handlers are set.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    pids = [in_child(options, options.seed + index) for index in range(options.processes)]

    def forward(number: int, _frame: FrameType | None) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    end_by(forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return 1 if any(statuses) else 0


if __name__ == "__main__":
    sys.exit(main())

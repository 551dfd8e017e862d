"""The time of a small read while another user reads long texts.

A case reads `usage` through an open file: alone, beside a reader of the holders of a group with many leases, and beside
24 readers of `metrics`. The ratio to the read alone is taken within each round.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .companion import PATIENCE
from .measure import Figure, Settings, Spread, Target, Tick
from .mounted import fsmount_tree

ROUNDS = 7
LEASES = 60_000
GROUPS = 3_000
READERS = 24
TIMED = 2.0  # s for each case in a round
PAUSE = 0.001  # s between two reads

P50 = Target(maximum=1.0)
P99 = Target(maximum=20.0)

_LEASES = """
import os, sys
for _ in range(int(sys.argv[2])):
    os.write(os.open(sys.argv[1], os.O_RDWR), b"1")
print(flush=True)
sys.stdin.read()
"""
_LOOP = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
while True:
    at = 0
    while part := os.pread(file, 1 << 17, at):
        at += len(part)
"""


def _python(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@contextmanager
def _leases(path: Path, count: int) -> Iterator[None]:
    """Many open leases, spread over enough processes for their limits of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = min(count, hard - 100)
    holders = []
    try:
        while count > 0:
            holders.append(_python(_LEASES, path, min(each, count)))
            count -= each
        for holder in holders:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"\n":
                raise RuntimeError("a process could not open its leases")
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        _end(holders)


@contextmanager
def _readers(path: Path, count: int) -> Iterator[None]:
    readers = [_python(_LOOP, path) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        _end(readers)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait(PATIENCE)


def _read_for(seconds: float, file: int) -> tuple[float, float]:
    """Median and 99th percentile of the time of a read, in ms."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times) < 100:
        start = time.perf_counter()
        os.pread(file, 100, 0)
        times.append((time.perf_counter() - start) * 1e3)
        time.sleep(PAUSE)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98]


def measure(settings: Settings, tick: Tick) -> list[Figure]:
    figures = []
    with ExitStack() as stack:
        mount = stack.enter_context(fsmount_tree())
        group = mount / "group"
        (mount / "other").mkdir()
        group.mkdir()
        for number in range(int(GROUPS * settings.scale)):
            (group / str(number)).mkdir()
        stack.enter_context(_leases(group / "memory.lease", int(LEASES * settings.scale)))
        file = os.open(mount / "other" / "memory.usage_in_bytes", os.O_RDONLY)
        stack.callback(os.close, file)
        cases: dict[str, Callable[[], tuple[float, float]]] = {
            "alone": lambda: _read_for(TIMED * settings.scale, file),
            "beside a reader of holders": lambda: _beside(group / "memory.holders", 1, settings.scale, file),
            f"beside {READERS} readers of metrics": lambda: _beside(mount / "metrics", READERS, settings.scale, file),
        }
        tick()
        rounds = []
        for _ in range(settings.rounds):
            rounds.append({what: case() for what, case in cases.items()})
            tick()
    for what in cases:
        beside = what != "alone"
        for index, name, target in ((0, "p50", P50), (1, "p99", P99)):
            values = [times[what][index] for times in rounds]
            figures.append(Figure(f"{name}, {what}", "ms", Spread.of(values), target if beside else None))
        if beside:
            ratios = [times[what][0] / times["alone"][0] for times in rounds]
            figures.append(Figure(f"p50, {what}, to alone", "x", Spread.of(ratios)))
    return figures


def _beside(path: Path, readers: int, scale: float, file: int) -> tuple[float, float]:
    with _readers(path, readers):
        return _read_for(TIMED * scale, file)

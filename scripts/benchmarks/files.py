"""The files of a mounted tree, beside a bare pyfuse3 file system with one constant file.

Both are mounted alike and asked in turn by one process. fsmount computes what is read, and checks and does what is
written; the bare file system answers with a constant and forgets what it is told.

All of them share one processor: where the scheduler puts a server and its client, together or apart, changes a
request's time more than twofold, and it may put the two servers differently.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import bare
from .measure import Case, Figure, Samples, Settings, Spread, Target, Tick, interleave
from .mounted import bare_tree, fsmount_tree

ROUNDS = 75
GROUPS = 10_000
TURNS = 100
OPERATION = Target(most=1.15)
MKDIR = Target(most=1.5)

AMOUNT = b"4096\n"


def _repeated(operation: Callable[[], object], number: int) -> Case:
    def run() -> float:
        start = time.perf_counter()
        for _ in range(number):
            operation()
        return (time.perf_counter() - start) / number * 1e6

    return run


def _operations(stack: ExitStack, directory: Path, names: dict[str, str]) -> dict[str, Callable[[], object]]:
    """What is done with each file; `names` says which file of the directory is which."""

    def opened(name: str, flags: int) -> int:
        descriptor = os.open(directory / names[name], flags | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        return descriptor

    usage, limit = opened("usage", os.O_RDONLY), opened("limit", os.O_RDWR)
    charge, uncharge = opened("charge", os.O_WRONLY), opened("uncharge", os.O_WRONLY)
    lease = opened("lease", os.O_RDWR)
    usage_path, charge_path = str(directory / names["usage"]), str(directory / names["charge"])
    limit_path = str(directory / names["limit"])

    def charge_and_back() -> None:
        os.write(charge, AMOUNT)
        os.write(uncharge, AMOUNT)

    def lease_and_back() -> None:
        os.write(lease, b"+4096\n")
        os.write(lease, b"-4096\n")

    def open_read_close(path: str = usage_path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 4096)
        os.close(descriptor)

    def open_write_close(path: str = limit_path, text: bytes = b"1G\n") -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, text)
        os.close(descriptor)

    return {
        "read usage, open file": lambda: os.pread(usage, 4096, 0),
        "read limit, open file": lambda: os.pread(limit, 4096, 0),
        "write limit, open file": lambda: os.write(limit, b"1G\n"),
        "write charge and uncharge, open files": charge_and_back,
        "write lease + and -, open file": lease_and_back,
        "open, read usage, close": open_read_close,
        "open, write limit, close": open_write_close,
        "open, write charge of 0, close": lambda: open_write_close(charge_path, b"0\n"),
    }


OURS = {
    "usage": "memory.usage_in_bytes",
    "limit": "memory.limit_in_bytes",
    "charge": "memory.charge",
    "uncharge": "memory.uncharge",
    "lease": "memory.lease",
}


@contextmanager
def _on_one_processor() -> Iterator[None]:
    """This process and those it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(settings: Settings, tick: Tick) -> list[Figure]:
    with _on_one_processor(), fsmount_tree() as ours, bare_tree() as theirs:
        figures = _file_operations(settings, tick, ours, theirs)
        figures += _mkdir(settings, tick, ours, theirs)
    return sorted(figures, key=lambda figure: figure.unit != "x")


def _file_operations(settings: Settings, tick: Tick, ours: Path, theirs: Path) -> list[Figure]:
    number = settings.operations(100, least=20)
    with ExitStack() as stack:
        for tree in (ours, theirs):
            (tree / "group").mkdir()
        file = os.fsdecode(bare.FILE)
        cases: dict[str, Case] = {}
        bare_operations = _operations(stack, theirs / "group", dict.fromkeys(OURS, file))
        for name, operation in _operations(stack, ours / "group", OURS).items():
            cases[name] = _repeated(operation, number)
            cases[f"bare: {name}"] = _repeated(bare_operations[name], number)
        samples = interleave(cases, settings.rounds, tick)
    names = list(bare_operations)
    figures = [samples.ratio(name, f"bare: {name}", OPERATION, what=f"{name} / bare") for name in names]
    return figures + [samples.cost(case, "us") for case in cases]


def _mkdir(settings: Settings, tick: Tick, ours: Path, theirs: Path) -> list[Figure]:
    """Each file system makes the groups in turns of a hundredth, in one directory; then removes them."""
    share = settings.operations(GROUPS) // TURNS
    taken: dict[str, list[float]] = {"mkdir": [], "bare: mkdir": [], "rmdir": [], "bare: rmdir": []}
    for act in (os.mkdir, os.rmdir):
        for turn in range(TURNS):
            for prefix, tree in (("", ours), ("bare: ", theirs)):
                paths = [f"{tree}/{turn}.{number}" for number in range(share)]
                start = time.perf_counter()
                for path in paths:
                    act(path)
                taken[f"{prefix}{act.__name__}"].append((time.perf_counter() - start) / share * 1e6)
        tick()
    samples = Samples(taken)
    in_all = sum(taken["mkdir"]) / sum(taken["bare: mkdir"])
    groups = share * TURNS
    return [
        Figure(f"mkdir of {groups:,} groups / bare, in all", "x", Spread(in_all, in_all, in_all), MKDIR),
        samples.ratio("mkdir", "bare: mkdir", what="mkdir / bare, each hundredth"),
        samples.ratio("rmdir", "bare: rmdir", what="rmdir / bare, each hundredth"),
        *(samples.cost(case, "us") for case in taken),
    ]

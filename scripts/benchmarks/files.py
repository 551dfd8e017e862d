"""The files of a mounted tree beside two bare file systems with one constant file: pyfuse3, and libfuse in C.

All have the same mount options, and one process uses them in turn. fsmount computes each text and executes each write.
The bare ones ("bare" with pyfuse3, "C" with libfuse) answer with a constant and ignore writes.

The daemons and the client share one processor. A request takes more than twice as long if the scheduler separates the
daemon and its client, and it might do so for one daemon only.

The writers, each a process with a file of its own, run on the other processors. On the daemon's processor four writers
could write no more than one. The figure is the writes of all in a second. The fairness is the number of writes of the
slowest writer, divided by the mean of the four.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import writers
from .baselines import bare
from .measure import Case, Figure, Samples, Settings, Spread, Target, Tick, interleave
from .mounted import bare_tree, bare_tree_in_c, fsmount_tree

ROUNDS = 75
GROUPS = 10_000
TURNS = 100
WRITERS = 4
SECONDS = 0.03
BESIDE = {"bare": Target(maximum=1.1), "C": Target(maximum=2)}
MKDIR = Target(maximum=1.3)
AT_ONCE = Target(minimum=1.8)

AMOUNT = b"4096\n"
LIMIT = b"1G\n"


def _repeated(operation: Callable[[], object], number: int) -> Case:
    def run() -> float:
        start = time.perf_counter()
        for _ in range(number):
            operation()
        return (time.perf_counter() - start) / number * 1e6

    return run


def _operations(stack: ExitStack, directory: Path, names: dict[str, str]) -> dict[str, Callable[[], object]]:
    """The cases of one file system; `names` maps the role of each file to its name."""

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

    def open_write_close(path: str = limit_path, text: bytes = LIMIT) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, text)
        os.close(descriptor)

    return {
        "read usage, open file": lambda: os.pread(usage, 4096, 0),
        "read limit, open file": lambda: os.pread(limit, 4096, 0),
        "write limit, open file": lambda: os.write(limit, LIMIT),
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
def _only_on(processors: set[int]) -> Iterator[None]:
    """Binds this process and its children to one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(settings: Settings, tick: Tick) -> list[Figure]:
    all_there_are = os.sched_getaffinity(0)
    servers = {min(all_there_are)}
    with _only_on(servers), _all_mounted() as trees:
        with _only_on(all_there_are - servers or servers):
            figures = _at_once(settings, trees)
        figures += _file_operations(settings, tick, trees)
        figures += _mkdir(settings, tick, trees["fsmount"], trees["bare"])
    figures.sort(key=lambda figure: (figure.unit != "x", figure.target is None))
    return figures


@contextmanager
def _all_mounted() -> Iterator[dict[str, Path]]:
    with fsmount_tree() as ours, bare_tree() as theirs, bare_tree_in_c() as theirs_in_c:
        yield {"fsmount": ours, "bare": theirs, "C": theirs_in_c}


def _file_operations(settings: Settings, tick: Tick, trees: dict[str, Path]) -> list[Figure]:
    number = settings.operations(100, minimum=20)
    with ExitStack() as stack:
        operations = {}
        for name, tree in trees.items():
            (tree / "group").mkdir()
            files = OURS if name == "fsmount" else dict.fromkeys(OURS, os.fsdecode(bare.FILE))
            operations[name] = _operations(stack, tree / "group", files)
        names = list(operations["fsmount"])
        cases = {_case(tree, name): _repeated(operations[tree][name], number) for name in names for tree in trees}
        samples = interleave(cases, settings.rounds, tick)
    figures = [
        samples.ratio(name, _case(other, name), target, what=f"{name} / {other}")
        for other, target in BESIDE.items()
        for name in names
    ]
    return figures + [samples.cost(case, "us") for case in cases]


def _case(tree: str, what: str) -> str:
    return what if tree == "fsmount" else f"{tree}: {what}"


def _at_once(settings: Settings, trees: dict[str, Path]) -> list[Figure]:
    seconds = max(0.005, SECONDS * settings.scale)
    one, all_of_them = "one writer", f"{WRITERS} writers"
    cases: dict[str, Case] = {}
    shares: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for name, tree in trees.items():
            file = OURS["limit"] if name == "fsmount" else os.fsdecode(bare.FILE)
            paths = [tree / f"writer{number}" / file for number in range(WRITERS)]
            for path in paths:
                path.parent.mkdir()
            crew = stack.enter_context(writers.running(list(map(str, paths)), LIMIT))
            fair = shares[name] = []
            for what, number in ((one, 1), (all_of_them, WRITERS)):
                cases[_case(name, what)] = _writing(crew, number, seconds, fair if number > 1 else [])
        samples = interleave(cases, settings.rounds, lambda: None)
    return [
        samples.ratio(one, all_of_them, AT_ONCE, what=f"writes of {all_of_them} / of one"),
        *(
            samples.ratio(_case(name, one), _case(name, all_of_them), what=f"{name}: writes of {all_of_them} / of one")
            for name in BESIDE
        ),
        *(
            Figure(_case(name, f"slowest of {all_of_them} / mean"), "x", Spread.of(fair))
            for name, fair in shares.items()
        ),
        *(samples.cost(case, "us", what=f"{case}, a write") for case in cases),
    ]


def _writing(crew: writers.Writers, number: int, seconds: float, shares: list[float]) -> Case:
    """The time divided by all writes; the fairness goes to `shares`."""

    def run() -> float:
        written = [0]
        while not sum(written):  # on a busy machine a writer may not start in this time
            written = crew.write(number, seconds)
        shares.append(min(written) * number / sum(written))
        return seconds / sum(written) * 1e6

    return run


def _mkdir(settings: Settings, tick: Tick, ours: Path, theirs: Path) -> list[Figure]:
    """The file systems take turns to make a hundredth of the groups in one directory, and to remove them."""
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

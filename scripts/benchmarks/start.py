"""The start of a program that charges: importing fsmount, attaching to a group of a mounted tree, or a whole command.

Each round starts fresh interpreters, which find compiled bytecode as after any earlier run. The import is the time of a
process that imports fsmount without that of one that imports nothing; attaching is timed within the process, after the
import, until the group is there. A command is measured in processor time, as a multiple of the empty program of the
same round.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .measure import Figure, Settings, Spread, Target, Tick
from .mounted import fsmount_tree

ROUNDS = 25
IMPORT = Target(maximum=60)
ATTACH = Target(maximum=2)
COMMAND = Target(maximum=5)

ATTACHING = """
import sys, time
from fsmount import attach as attach_to
def attach(path):
    start = time.perf_counter()
    group = attach_to(path)
    print((time.perf_counter() - start) * 1e3)
    return group
first = attach(sys.argv[1])
second = attach(sys.argv[2])
"""


class Interpreters:
    """Starts interpreters that keep their bytecode in a directory of their own, whatever the caller's settings."""

    def __init__(self, bytecode: str) -> None:
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment["PYTHONPYCACHEPREFIX"] = bytecode

    def run(self, code: str, *arguments: Path | str) -> tuple[float, str]:
        """The milliseconds that an interpreter takes for the code, from its start to its end, and its output."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        start = time.perf_counter()
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=self._environment).stdout
        return (time.perf_counter() - start) * 1e3, printed

    def processor_time(self, code: str, *arguments: Path | str) -> float:
        """Seconds of processor time for the code, in the interpreter and its children."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run(code, *arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


#: As the script that pip writes for an entry point.
FSMOUNT = "from fsmount.__main__ import main; main()"


def commands(group: Path) -> dict[str, tuple[Path | str, ...]]:
    """The command lines whose start matters most."""
    return {
        "--version": ("--version",),
        "charge": ("charge", group, "memory=1"),
        "get": ("get", group, "memory.usage"),
        "run": ("run", "-g", group, "-r", "memory=1", "--", "/bin/true"),
    }


def measure(settings: Settings, tick: Tick) -> list[Figure]:
    bare: list[float] = []
    importing: list[float] = []
    first: list[float] = []
    second: list[float] = []
    with fsmount_tree() as tree, tempfile.TemporaryDirectory(prefix="fsmount-bench-") as bytecode:
        groups = tree / "first" / "group", tree / "second" / "group"
        for group in groups:
            group.mkdir(parents=True)
        interpreters = Interpreters(bytecode)
        interpreters.run(ATTACHING, *groups)
        ratios: dict[str, list[float]] = {name: [] for name in commands(groups[0])}
        for _ in range(settings.rounds + 1):
            bare.append(interpreters.run("pass")[0])
            importing.append(interpreters.run("from fsmount import attach")[0])
            attached = interpreters.run(ATTACHING, *groups)[1].split()
            first.append(float(attached[0]))
            second.append(float(attached[1]))
            empty = interpreters.processor_time("pass")
            for name, words in commands(groups[0]).items():
                ratios[name].append(interpreters.processor_time(FSMOUNT, *words) / empty)
            tick()
    added = [wall - base for wall, base in zip(importing, bare, strict=True)]
    return [
        Figure("from fsmount import attach", "ms", Spread.of(added), IMPORT),
        Figure("attach, the first of a process", "ms", Spread.of(first), ATTACH),
        Figure("attach, another group of the tree", "ms", Spread.of(second), ATTACH),
        *(Figure(f"fsmount {name}", "x", Spread.of(ratio), COMMAND) for name, ratio in ratios.items()),
        Figure("(python that imports nothing)", "ms", Spread.of(bare)),
    ]

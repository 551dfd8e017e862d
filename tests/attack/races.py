"""Commands of root on the attacker's paths, while the attacker swaps the files there."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.attack import commands
from tests.attack.oracle import Oracle, mount_table
from tests.attack.scene import ATTACKER, Scene, end, process_of, wait_until
from tests.attack.traps import Traps, mischief

_ATTACKERS = 5


@dataclass
class Report:
    """Counts of the work, and the findings."""

    done: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Length:
    """The length of an attack: a number of steps, and a limit in seconds."""

    count: int
    seconds: float
    goes_on: bool  # whether the attack continues after a finding
    _began: float = field(default_factory=time.monotonic)

    def reached(self, report: Report) -> bool:
        return time.monotonic() - self._began > self.seconds or bool(report.findings and not self.goes_on)


def race(scene: Scene, seed: int, length: Length) -> Report:
    """Runs commands of root while the attacker acts."""
    source = random.Random(seed)
    oracle = Oracle(scene)
    victims = [victim.pid for victim in oracle.victims]
    traps = Traps(scene, source, victims)
    end_of_child(process_of(ATTACKER, traps.furnish))
    attackers = [process_of(ATTACKER, partial(mischief, scene, seed, number, victims)) for number in range(_ATTACKERS)]
    known = {*victims, *attackers, *scene.daemons}
    report = Report()
    try:
        for number in range(length.count):
            ended = _command(scene, source, traps)
            report.done[ended.arguments[0]] += 1
            report.statuses[f"{ended.arguments[0]} {ended.status}"] += 1
            report.slowest = max(report.slowest, ended.seconds)
            found = ended.differences() + oracle.differences()
            report.findings += [f"race {number}: fsmount {' '.join(map(ascii, ended.arguments))}: {it}" for it in found]
            report.findings += clear(scene, known)
            if report.findings:
                oracle.learn()
            if length.reached(report):
                break
    finally:
        for attacker in attackers:
            end(attacker)
    return report


def _command(scene: Scene, source: random.Random, traps: Traps) -> commands.Ended:
    place = os.fsdecode(source.choice(traps.mountpoints))
    file = os.fsdecode(source.choice(traps.files))
    region = os.fsdecode(source.choice(traps.regions))
    small = ["--groups", "64", "--cells", "1024", "--watchdog", "0"]
    choices: list[list[str]] = [
        ["mount", place, *small],
        ["mount", place, *small, "--config", file],
        ["mount", place, *small, "--region", region],
        ["umount", place],
        ["umount", "--keep", place],
        ["umount", "--stale", place],
        ["save", place, "-"],
        ["save", place, file],
        ["save", os.fsdecode(scene.mount), file],
        ["save", region, "-"],
        ["doctor", place],
        ["doctor", "--repair", place],
        ["doctor", "--repair", region],
        ["exporter", place],
    ]
    arguments = source.choice(choices)
    return commands.export(arguments[1]) if arguments[0] == "exporter" else commands.run(arguments)


def clear(scene: Scene, known: set[int]) -> list[str]:
    """Unmounts the mounts of root's commands and waits for the daemons to end; returns a line about those that stay."""
    for fields in mount_table():
        separator = fields.index(b"-", 6)
        path = fields[4].replace(b"\\040", b" ").replace(b"\\012", b"\n").replace(b"\\134", b"\\")
        is_roots = fields[separator + 1] == b"fuse.fsmount" and b"user_id=0," in fields[separator + 3]
        if is_roots and path != bytes(scene.mount):
            subprocess.run(["umount", "-l", "--", path], capture_output=True, check=False)
    try:
        wait_until(lambda: not _strays(known), "root's daemons end when they are unmounted")
    except TimeoutError as error:
        strays = _strays(known)
        for pid in strays:
            end(pid)
        return [f"{error}: {strays}"]
    return []


def _strays(known: set[int]) -> list[int]:
    """The daemons of root in the background, which are children of this process, the first of its pid namespace."""
    with contextlib.suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and dead.si_pid not in known:
            os.waitpid(dead.si_pid, 0)
    children = Path("/proc/self/task", str(os.getpid()), "children").read_text().split()
    return [pid for pid in map(int, children) if pid not in known and _owner(pid) == 0]


def _owner(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1


def end_of_child(pid: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"the attacker cannot begin: status {status}"

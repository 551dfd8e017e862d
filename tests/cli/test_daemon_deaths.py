"""Tests that kill the daemon again and again under load.

Processes that charge in the region never notice. Processes that use the files get an error. The next mount has every
charge. The tests print their seed: FSMOUNT_SEED repeats a run, and FSMOUNT_SOAK=1 makes it longer.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsmount import Tree
from fsmount.shm import PROCESS, Group, process_start_time
from tests.cli.place import Place, has_ended, run
from tests.engine.workers import Progress, Worker
from tests.holder_process import HolderProcess
from tests.mounts import AS_ROOT, STOCK_KEYS, GroupFiles, eventually

UNITS = {"memory": "bytes", "tokens": "count"}
DEPTH = 8
WORKERS = 3
LOST = {"ENOTCONN", "ECONNABORTED"}
SHELLS = (["bash"], ["dash"], ["busybox", "sh"])

#: Charges and uncharges the group itself until a file fails; prints the net charge, and the error of cat.
SHELL_CHARGER = """
given=$2
while :; do
    echo 5 >"$1/memory.charge" || break
    given=$((given + 5))
    cat "$1/memory.usage_in_bytes" >/dev/null || break
    if [ "$given" -gt 500 ]; then
        echo 400 >"$1/memory.uncharge" || break
        given=$((given - 400))
    fi
done 2>/dev/null
echo "$given"
cat "$1/memory.usage_in_bytes" 2>&1
"""

#: Makes, renames and removes groups and changes their modes and limits until a command fails.
SHELL_STORM = """
n=0
while :; do
    n=$((n + 1))
    mkdir "$1/s$n" || break
    chmod "7$((n % 8))0" "$1/s$n" || break
    echo "$((n * 1000))" >"$1/s$n/memory.limit_in_bytes" || break
    chmod 600 "$1/s$n/tokens.limit" || break
    [ "$((n % 3))" -ne 0 ] || mv "$1/s$n" "$1/r$n" || break
    [ "$((n % 4))" -ne 0 ] || rmdir "$1"/[sr]"$n" || break
done 2>/dev/null
echo "$n"
ls "$1" 2>&1
"""

#: Holds 100, and 7 from time to time, through a file until an operation fails; prints the error. A line of input
#: makes it attach again.
LEASE_HOLDER = """
import errno, os, sys
import fsmount
kind, path = sys.argv[1:]
if kind == "files":
    memory = fsmount.attach(path, transport="files")["memory"]
    charge, uncharge = memory.charge, memory.uncharge
else:
    lease = os.open(path + "/memory.lease", os.O_RDWR)
    charge, uncharge = (lambda n: os.pwrite(lease, b"+%d" % n, 0)), (lambda n: os.pwrite(lease, b"-%d" % n, 0))
charge(100)
print("up", flush=True)
try:
    while True:
        charge(7)
        uncharge(7)
except OSError as error:
    print(type(error).__name__, errno.errorcode[error.errno], flush=True)
if sys.stdin.readline() and kind == "files":
    with fsmount.attach(path, transport="files") as group:
        group["memory"].charge(9)
        print(group["memory"].held, flush=True)
sys.stdin.read()
"""


class FileUser:
    """A process that uses the files until they fail."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def rest(self) -> str:
        """The output up to the end of the process, which must come."""
        output, _ = self.process.communicate(timeout=60)
        return output

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


class Scene:
    """A mounted tree with processes of each kind, and the state that the test expects."""

    def __init__(self, place: Place, rng: random.Random, progress: Progress) -> None:
        self.place, self.rng, self.progress = place, rng, progress
        place.mount("--resource", "memory", "--resource", "tokens:count", run=run)
        assert place.region is not None
        self.tree = Tree.open(place.region)
        root = GroupFiles(place.path, UNITS)
        self.groups = [root.mkdir("top")]
        for number in range(14):
            parent = self.groups[-1] if number < DEPTH - 1 else rng.choice(self.groups)
            self.groups.append(parent.mkdir(f"g{number}"))
        self.groups[0].set_limit(60_000)
        self.groups[3].set_limit(20_000, "tokens")
        self.charged, self.storm, self.leased = (root.mkdir(name) for name in ("charged", "storm", "leased"))
        self.attributes: dict[Path, tuple[int, int, int, int]] = {}
        self.given = 0
        self.workers: list[Worker] = []
        self.visitors: list[tuple[HolderProcess, Path]] = []
        self.hire()

    # ---- processes that charge in the region

    def group(self, path: Path) -> Group:
        group = self.tree.root
        for name in path.relative_to(self.place.path).parts:
            group = group.child(name)
        return group

    def hire(self) -> None:
        while len(self.workers) < WORKERS:
            slots = {worker.slot for worker in self.workers}
            worker = Worker(self.tree, self.progress, next(slot for slot in range(WORKERS) if slot not in slots))
            for group in self.rng.sample(self.groups, 3):
                worker.attach(self.group(group.path))
            self.workers.append(worker)
            self.start(worker)

    def start(self, worker: Worker) -> None:
        worker.start_work(self.rng.randrange(2**32), 2000)

    def kill_one(self) -> None:
        victim = self.workers.pop(self.rng.randrange(WORKERS))
        victim.kill()
        victim.bury()

    def visit(self) -> None:
        """Starts a process that attaches through the mount."""
        group = self.rng.choice(self.groups[1:])
        visitor = HolderProcess(group.path, transport="memory")
        visitor.charge_nofail(50)
        self.visitors.append((visitor, group.path))

    def kill_visitor(self) -> None:
        if self.visitors:
            self.visitors.pop(self.rng.randrange(len(self.visitors)))[0].kill()

    # ---- expectations

    def set_something(self) -> None:
        """Sets modes, owners and limits, just before the daemon dies."""
        rng = self.rng
        for group in rng.sample(self.groups[1:], 3):
            mode, owner, soft = rng.randrange(0o700, 0o777), rng.randrange(1, 60_000), rng.randrange(10**6)
            os.chmod(group.path, mode)
            os.chmod(group.file("stat"), mode & 0o444 | 0o400)
            if AS_ROOT:
                os.chown(group.path, owner, owner + 1)
            group.write("soft_limit", soft)
            status = os.stat(group.path)
            self.attributes[group.path] = (status.st_mode, status.st_uid, status.st_gid, soft)

    def check_attributes(self) -> None:
        for path, expected in self.attributes.items():
            status, group = os.stat(path), GroupFiles(path, UNITS)
            assert (status.st_mode, status.st_uid, status.st_gid, group.soft_limit) == expected, path
            assert os.stat(group.file("stat")).st_mode & 0o777 == status.st_mode & 0o444 | 0o400
        assert (self.groups[0].limit, self.groups[3].number("limit", "tokens")) == (60_000, 20_000)

    def expected(self, reports: list[dict[str, Any]]) -> dict[tuple[Path, str], int]:
        """The usage of each group: the charges of live processes and common charges, there and below."""
        charges = [(Path(path), resource, held) for report in reports for path, resource, held in report["held"]]
        charges += [(path, "memory", 50) for _, path in self.visitors]
        charges += [
            (group.path, resource, group.stat(resource)["common"])
            for group in (*self.groups, self.charged)
            for resource in UNITS
        ]
        return {
            (group.path, resource): sum(
                held for path, what, held in charges if what == resource and path.is_relative_to(group.path)
            )
            for group in (*self.groups, self.charged, self.leased)
            for resource in UNITS
        }

    def settle(self) -> None:
        """Pauses the workers, and checks that each usage equals the sum of the charges."""
        reports = [worker.stop_work() for worker in self.workers]
        wanted = self.expected(reports)

        def differences() -> list[str]:
            return [
                f"{path} {resource}: {usage}, held are {expected}"
                for (path, resource), expected in wanted.items()
                if (usage := GroupFiles(path, UNITS).number("usage", resource)) != expected
            ]

        deadline = time.monotonic() + 60
        while (found := differences()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not found, "\n".join(found)
        assert self.tree.check() == []
        for worker in self.workers:
            self.start(worker)

    def contents(self, group: Group | None = None) -> dict[str, Any]:
        """Names, attributes and counters in the region."""
        group = group or self.tree.root
        slots = 1 + len(UNITS) * 11
        result: dict[str, Any] = {
            group.path: (
                [group.attributes(slot) for slot in range(slots)],
                [{k: v for k, v in group[resource].stat().items() if k not in STOCK_KEYS} for resource in UNITS],
            )
        }
        for child in group.children():
            result |= self.contents(child)
        return result

    def clear_storm(self) -> None:
        for child in self.storm.children():
            os.rmdir(child.path)

    def end(self) -> None:
        for worker in self.workers:
            worker.stop_work()
            worker.end()
        for visitor, _ in self.visitors:
            visitor.end()
        self.clear_storm()
        self.tree.close()

    def abandon(self) -> None:
        for worker in self.workers:
            worker.__exit__()
        for visitor, _ in self.visitors:
            visitor.kill()


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def scene(place: Place, rng: random.Random) -> Iterator[Scene]:
    with Progress() as progress:
        scene = Scene(place, rng, progress)
        try:
            yield scene
        finally:
            scene.abandon()


def anonymous_memory(pid: int) -> int:
    """The anonymous memory of the process in KiB."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def mount_twice(place: Place) -> None:
    """Runs two mounts at once: one succeeds, and the other names the reason of its failure."""
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], outputs
    [(_, loser)] = [text for process, text in zip(both, outputs, strict=True) if process.returncode]
    place.daemons.add(place.daemon)
    reasons = ("already an fsmount mount", f"(pid {place.daemon})", "in use by another daemon")
    assert any(reason in loser for reason in reasons), loser


@pytest.mark.timeout(3600)
def test_a_daemon_killed_under_load_loses_no_charge_and_processes_in_the_region_never_notice(
    place: Place, scene: Scene, rng: random.Random, soak: bool
) -> None:
    seconds, memory, ends = [], [], Tally[str]()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(200 if soak else 3):
        quiet, waits, twice = rng.random() < 0.3, rng.random() < 0.6, rng.random() < 0.2
        shell = rng.choice(SHELLS)
        charger = FileUser(*shell, "-c", SHELL_CHARGER, "sh", str(scene.charged.path), str(scene.given))
        storm = FileUser(*shell, "-c", SHELL_STORM, "sh", str(scene.storm.path))
        holders = {
            kind: FileUser(sys.executable, "-c", LEASE_HOLDER, kind, str(scene.leased.path))
            for kind in ("lease", "files")
        }
        users = [charger, storm, *holders.values()]
        try:
            for holder in holders.values():
                assert holder.line() == "up"
            if rng.random() < 0.7:
                scene.visit()
            end = time.monotonic() + rng.uniform(0, 0.3)
            while time.monotonic() < end:
                assert scene.groups[0].usage <= 60_000 + 50 * len(scene.visitors)
            if rng.random() < 0.3:
                scene.kill_one()
            scene.set_something()
            place.signal(signal.SIGKILL)

            # No daemon serves: operations on files fail, and processes in the region continue.
            scene.progress.wait_for([worker.slot for worker in scene.workers], 3)
            for kind, holder in holders.items():
                name, number = holder.line().split()
                assert number in LOST and (name == "TreeGone") == (kind == "files"), (name, number)
                ends[number] += 1
            if waits:
                for user in (charger, storm):
                    first, _, last = user.rest().partition("\n")
                    assert re.search("not connected|connection abort", last), last
                    if user is charger:
                        scene.given = int(first)
            if rng.random() < 0.5:
                scene.kill_visitor()
            if rng.random() < 0.5 and len(scene.workers) == WORKERS:
                scene.kill_one()
            if rng.random() < 0.5:
                scene.hire()
            reports = [worker.stop_work() for worker in scene.workers] if quiet else []
            scene.tree.reap()
            before = scene.contents() if quiet and waits else {}

            start = time.monotonic()
            if twice:
                mount_twice(place)
            else:
                place.mount(run=run)
                seconds.append(time.monotonic() - start)
            assert len(place.mounts) == 1
            if before:
                assert scene.contents() == before
            for worker, _ in zip(scene.workers, reports, strict=False):
                scene.start(worker)
            scene.check_attributes()

            # The files work again.
            holders["files"].tell()
            assert holders["files"].line() == "9"
            scene.hire()
            scene.progress.wait_for([worker.slot for worker in scene.workers], 3)
            for user in users:
                user.kill()
            if waits:
                common = scene.charged.stat()["common"]
                assert common - scene.given in (0, 5, -400), (
                    "except for one operation that was pending when the daemon died"
                )
            scene.given = scene.charged.stat()["common"]
            scene.settle()
            memory.append(anonymous_memory(place.daemon))
            scene.clear_storm()
        finally:
            for user in users:
                user.kill()
    scene.end()
    eventually(scene.groups[0].empty)
    place.umount()
    assert not place.mounts and place.region is None
    assert all(has_ended(pid) for pid in place.daemons)
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert max(memory) <= 1.05 * memory[0] + 512, memory
    seconds.sort()
    print(
        f"from the command to its return: median {statistics.median(seconds):.2f} s, at most {seconds[-1]:.2f} s; "
        f"leases ended by {dict(ends)}; memory {memory[0]} to {memory[-1]} KiB"
    )


@pytest.mark.slow
def test_a_daemon_takes_over_ten_thousand_groups_and_a_thousand_holders(place: Place) -> None:
    """The takeover releases the charges of the dead half, and keeps those of the live half."""
    place.mount()
    assert place.region is not None
    place.signal(signal.SIGKILL)
    dead = subprocess.Popen(["true"])
    dead.wait()
    with Tree.open(place.region) as tree:
        groups = [parent.mkdir(f"{n}") for parent in (tree.root.mkdir(f"{n}") for n in range(100)) for n in range(99)]
        for number in range(1000):
            pid, start = (os.getpid(), process_start_time(os.getpid())) if number % 2 else (dead.pid, 12345)
            holder = tree.region.holder_create(pid, start, PROCESS, 0)
            tree.region.holder_join(holder, groups[number * 7].id)
            tree.lease(groups[number * 7], ("memory",), pid, start).change({"memory": 10})
        assert tree.root["memory"].usage == 10_000
        start_of_mount = time.monotonic()
        place.mount()
        print(f"served after {time.monotonic() - start_of_mount:.2f} s")
        assert tree.check() == []
        assert (tree.root["memory"].usage, len(tree.holders()), place.root.usage) == (5000, 1000, 5000)
        for holder_left in tree.holders():
            tree.end_holder(holder_left.id)
        assert place.root.usage == 0
    place.umount()


# ---- kills during a mount, a takeover or an unmount


def killed_after(place: Place, delay: float, *arguments: str) -> None:
    """Runs a command on the mount point, and kills it after the delay with its daemon and helpers."""
    command = [sys.executable, "-m", "fsmount", *arguments, str(place.path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        while processes := place.processes:  # again, since a process may have forked meanwhile
            for pid in processes:
                # fusermount3 runs as root and unmounts by path, so it must end before the next mount.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(3600)
def test_the_next_mount_has_every_charge_after_a_kill_at_any_moment_of_a_mount_or_unmount(
    place: Place, rng: random.Random, soak: bool
) -> None:
    took = -time.monotonic()
    place.mount(run=run)
    took += time.monotonic()
    group = place.root.mkdir("group", 0o750)
    for turn in range(100 if soak else 3):
        group.charge(1000)
        group.set_limit(10_000 + turn)
        os.chmod(group.file("limit"), 0o600 + turn % 8)
        wanted = (group.tree_counters(), os.stat(group.path).st_mode, os.stat(group.file("limit")).st_mode)
        what = rng.choice(("mount", "take over", "umount --keep", "umount"))
        if what == "mount":
            place.umount("--keep")
        elif what == "take over":
            place.signal(signal.SIGKILL)
        if what.startswith("umount"):
            killed_after(place, rng.uniform(0, 1.2 * took), *what.split())
        else:
            killed_after(place, rng.uniform(0.3 * took, 1.2 * took), "mount", *rng.choice(([], ["-f"])))
        place.mount(run=run)
        assert len(place.mounts) == 1, what
        if what == "umount" and not group.path.exists():
            group = place.root.mkdir("group", 0o750)
        else:
            assert group.tree_counters() == wanted[0], what
            assert (os.stat(group.path).st_mode, os.stat(group.file("limit")).st_mode) == wanted[1:], what
            group.uncharge(1000)
            group.write("max_usage", "0")
    place.umount()
    assert not place.mounts and place.region is None

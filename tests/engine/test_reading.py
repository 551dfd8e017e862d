"""Names, attributes and plain values are read without the lock, and never half changed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fsmount import Tree
from fsmount.engine import ROOT
from fsmount.errors import LockTimeout
from fsmount.shm import SET_GID, SET_MODE, SET_UID, set_patience
from tests.companions import companion
from tests.engine.test_recovery import stop_with_the_lock
from tests.engine.workers import Progress, Worker
from tests.process_state import state

LONG, SHORT = b"a" * 250, b"b" * 77

CHANGER = f"""
import sys
from fsmount import Tree
tree = Tree.open(sys.argv[1])
region = tree.region
renamed = region.lookup({ROOT}, b"a" * 250)
print(flush=True)
turn = 0
while True:
    turn += 1
    region.rename(renamed, b"b" * 77 if turn % 2 else b"a" * 250, turn)
    for slot in (0, 1):
        region.set_attr(renamed, slot, {SET_MODE | SET_UID | SET_GID}, turn & 0o777, turn, turn, 0, 0, turn)
    made = region.mkdir({ROOT}, b"%d" % turn, 0o755, 0, 0, turn)
    inner = region.mkdir(made, b"inner", 0o755, 0, 0, turn)
    region.rmdir(inner, turn)
    region.rmdir(made, turn)
"""


@pytest.fixture
def tree() -> Iterator[Tree]:
    with Tree.create(None, groups=64) as tree:
        for name in (b"first", LONG, b"last"):
            tree.root.mkdir(name)
        yield tree


@pytest.fixture
def changer(tree: Tree) -> Iterator[subprocess.Popen[bytes]]:
    """A process that renames the group with the long name, sets its attributes, and makes and removes other groups."""
    with subprocess.Popen(companion(sys.executable, "-c", CHANGER, tree.path), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        try:
            yield process
        finally:
            process.kill()


def look(tree: Tree, group: int) -> tuple[bytes, int, tuple[int, ...]]:
    """Reads the groups without the lock, and checks that name, number of groups and owner are consistent."""
    region = tree.region
    name = region.name(group)
    assert name in (LONG, SHORT)
    listed = [found for found, _ in region.children(ROOT)]
    assert listed[0] == b"first" and b"last" in listed and len({LONG, SHORT} & set(listed)) == 1
    assert all(found in (b"first", b"last", LONG, SHORT) or found.isdigit() for found in listed), listed
    last = region.lookup(ROOT, b"last")
    assert last is not None
    assert region.parent(group) == region.parent(last) == ROOT
    owners = []
    for slot in (0, 1):
        mode, uid, gid, *_ = region.get_attr(group, slot)
        assert (uid, mode) == (gid, uid & 0o777) or uid == os.getuid(), (mode, uid, gid)
        owners.append(uid)
    return name, region.child_count(ROOT), tuple(owners)


def test_a_read_during_a_change_returns_the_state_before_or_after(
    tree: Tree, changer: subprocess.Popen[bytes], soak: bool
) -> None:
    renamed = next(number for name, number in tree.region.children(ROOT) if name in (LONG, SHORT))
    seen: set[tuple[bytes, int, tuple[int, ...]]] = set()

    def all_sorts() -> bool:
        return len(seen) > 10 and {name for name, _, _ in seen} == {LONG, SHORT} and {n for _, n, _ in seen} == {3, 4}

    end = time.monotonic() + (60 if soak else 1.5)
    while time.monotonic() < end or not all_sorts():
        seen.add(look(tree, renamed))
    changer.kill()
    changer.wait()
    look(tree, renamed)
    assert tree.check() == []


def stop_in_a_change(tree: Tree, process: subprocess.Popen[bytes], rng: random.Random) -> int:
    """Stops and continues a process until it is stopped within a change of groups; returns the pid in the error."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        process.send_signal(signal.SIGSTOP)
        while state(process.pid) != "T":
            pass
        try:
            tree.root.children()
        except LockTimeout as error:
            return error.pid
        process.send_signal(signal.SIGCONT)
        end = time.monotonic() + rng.uniform(0, 0.002)
        while time.monotonic() < end:
            pass
    raise AssertionError("it never was")


def test_a_process_that_dies_within_a_change_leaves_consistent_groups(
    tree: Tree, changer: subprocess.Popen[bytes], seed: int
) -> None:
    renamed = next(number for name, number in tree.region.children(ROOT) if name in (LONG, SHORT))
    set_patience(0.01)
    try:
        assert stop_in_a_change(tree, changer, random.Random(seed)) == changer.pid
    finally:
        set_patience(3)
    changer.kill()
    changer.wait()
    assert tree.region.name(renamed) in (LONG, SHORT)
    assert {child.name for child in tree.root.children()} >= {"first", "last"}
    assert tree.check() == []
    tree.root.mkdir("next").mkdir("inner")
    assert tree.root.child("next").child("inner").path == "/next/inner"


def test_a_process_that_is_stopped_with_the_lock_hides_no_name_attribute_or_limit() -> None:
    with Tree.create(None, batch=0) as tree, Progress() as progress, Worker(tree, progress) as worker:
        group = tree.root.mkdir("group")
        group["memory"].limit = 5000
        worker.attach(group)
        worker.start_work(1, 1000)
        progress.wait_for([0], 1)
        set_patience(0.01)
        try:
            stop_with_the_lock(tree, worker.pid)
            set_patience(100)  # a wait lasts until the timeout of the test
            memory = group["memory"]
            assert (memory.limit, memory.soft_limit, memory.failcnt >= 0) == (5000, 2**63 - 1, True)
            assert [child.name for child in tree.root.children()] == ["group"]
            assert tree.root.child("group").name == "group"
            assert group.parent == tree.root
            assert tree.root.find("other") is None
            assert (group.exists, tree.root.child_count, group.attributes(0).mode) == (True, 1, 0o755)
        finally:
            set_patience(3)
        os.kill(worker.pid, signal.SIGCONT)
        worker.stop_work()

"""The word of the lock is overwritten, or its owner ends in other ways than kill -9."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import fsmount
from fsmount import RegionCorrupt, Tree
from fsmount.errors import LockTimeout
from fsmount.shm import set_patience
from tests.companions import companion
from tests.engine.programs import ENGINE, FLAGS
from tests.mounts import mounted

OWNER_DIED = 0x40000000
WAITERS = 0x80000000


def number_in_c(directory: Path, expression: str) -> int:
    program = directory / "number"
    text = (
        f'#include "region/layout.h"\n#include <stdio.h>\nint main(void) {{ printf("%zu", {expression}); return 0; }}\n'
    )
    command = ["gcc", *FLAGS, "-I", str(ENGINE), "-x", "c", "-", "-o", str(program)]
    subprocess.run(command, input=text, text=True, check=True)
    return int(subprocess.check_output([program]))


@pytest.fixture(scope="module")
def lock_offset(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The offset of the lock's word in a region."""
    return number_in_c(tmp_path_factory.mktemp("offset"), "offsetof(header, lock)")


@pytest.fixture(scope="module")
def header_size(tmp_path_factory: pytest.TempPathFactory) -> int:
    return number_in_c(tmp_path_factory.mktemp("size"), "sizeof(header)")


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with Tree.create(tmp_path / "region") as tree:
        tree.root.mkdir("group")["memory"].charge_common(5)
        yield tree


def write_lock(tree: Tree, offset: int, word: int) -> None:
    descriptor = os.open(tree.path, os.O_RDWR)
    os.pwrite(descriptor, struct.pack("=I", word), offset)
    os.close(descriptor)


@pytest.fixture
def strangers() -> Iterator[dict[str, int]]:
    """Numbers of threads that cannot be inside a region."""
    with subprocess.Popen(["sleep", "60"]) as alive, subprocess.Popen(["true"]) as dead:
        dead.wait()
        yield {
            "nobody": 0,
            "a dead process": dead.pid,
            "a process without the region": alive.pid,
            "no number": 0x3FFFFFFF,
        }
        alive.kill()


@pytest.mark.parametrize("flags", [0, WAITERS, OWNER_DIED], ids=["", "WAITERS", "OWNER_DIED"])
@pytest.mark.parametrize("who", ["nobody", "a dead process", "a process without the region", "no number"])
def test_a_process_takes_a_lock_whose_word_was_overwritten(
    tree: Tree, lock_offset: int, strangers: dict[str, int], who: str, flags: int
) -> None:
    write_lock(tree, lock_offset, strangers[who] | flags)
    assert tree.root["memory"].usage == 5
    assert tree.check() == []


def test_a_lock_is_not_taken_from_a_process_that_has_mapped_the_region(tree: Tree, lock_offset: int) -> None:
    set_patience(0.2)
    write_lock(tree, lock_offset, os.getpid())
    try:
        with pytest.raises(LockTimeout) as caught:
            tree.root["memory"].usage  # noqa: B018
    finally:
        set_patience(3)
    assert caught.value.pid == os.getpid()
    write_lock(tree, lock_offset, 0)
    assert tree.root["memory"].usage == 5


def test_no_other_word_of_the_header_keeps_a_lock_from_being_taken(
    tree: Tree, header_size: int, lock_offset: int, strangers: dict[str, int]
) -> None:
    """A process that opens the region afterwards is not misled, even while others have it open."""
    for who in ("a dead process", "a process without the region"):
        for offset in range(lock_offset + 4, min(lock_offset + 128, header_size), 4):
            with Tree.create(Path(tree.path).with_name(f"{who} {offset}")) as other:
                other.root.mkdir("group")["memory"].charge_common(5)
                for word in (0x6E676965, 0xFFFFFFFF):
                    write_lock(other, offset, word)
                    write_lock(other, lock_offset, strangers[who])
                    with suppress(RegionCorrupt), Tree.open(other.path) as opened:  # never LockTimeout
                        opened.repair()
                        assert opened.root["memory"].usage == 5
                        assert opened.check() == []


@pytest.mark.parametrize("who", ["a dead process", "a process without the region"])
def test_doctor_frees_a_lock_whose_owner_cannot_exist_in_a_mount_that_is_served(
    lock_offset: int, header_size: int, strangers: dict[str, int], who: str
) -> None:
    with mounted() as mount:
        group = mount.root.mkdir("group")
        group.charge(5)
        assert mount.region is not None
        with fsmount.attach(group.path, transport="memory") as attached, Tree.open(mount.region) as tree:
            write_lock(tree, lock_offset + 4, 0xFFFFFFFF)
            write_lock(tree, lock_offset, strangers[who])
            doctor = [sys.executable, "-m", "fsmount", "doctor", "--repair", str(mount.path)]
            done = subprocess.run(doctor, capture_output=True, text=True, timeout=60, check=False)
            assert "lock" not in done.stdout + done.stderr, done
            attached["memory"].charge(2)
            assert group.usage == 7
            assert tree.check() == []


OWNS_IN_A_NAMESPACE = """
import os, sys
from fsmount import Tree
tree = Tree.open(sys.argv[1])
os.pwrite(os.open(sys.argv[1], os.O_RDWR), os.getpid().to_bytes(4, "little"), int(sys.argv[2]))
print(os.getpid(), flush=True)
input()
"""


@pytest.mark.root
def test_a_lock_is_not_taken_from_a_live_owner_in_another_pid_namespace(tree: Tree, lock_offset: int) -> None:
    """Its number is that of another process here, which has not mapped the region."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = companion(*unshare, sys.executable, "-c", OWNS_IN_A_NAMESPACE, tree.path, lock_offset)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "1\n"
        set_patience(0.3)
        try:
            with pytest.raises(LockTimeout):
                tree.repair()
            with Tree.open(tree.path) as other, pytest.raises(LockTimeout):
                other.root["memory"].usage  # noqa: B018
        finally:
            set_patience(3)
        process.kill()
    write_lock(tree, lock_offset, 0)  # this user may not inspect the process with that number
    assert tree.root["memory"].usage == 5
    assert tree.check() == []


FORKS_INTO_A_NAMESPACE = """
import os, sys
from fsmount import Tree
tree = Tree.open(sys.argv[1])
os.unshare(os.CLONE_NEWPID) if hasattr(os, "unshare") else __import__("ctypes").CDLL(None).unshare(0x20000000)
if os.fork() == 0:
    assert os.getpid() == 1 and tree.root["memory"].usage == 5
    os.pwrite(os.open(sys.argv[1], os.O_RDWR), os.getpid().to_bytes(4, "little"), int(sys.argv[2]))
    print("owns", flush=True)
    input()
    os._exit(0)
os.wait()
"""


@pytest.mark.root
def test_a_lock_is_not_taken_from_an_owner_that_was_forked_into_another_pid_namespace(
    tree: Tree, lock_offset: int
) -> None:
    command = companion(sys.executable, "-c", FORKS_INTO_A_NAMESPACE, tree.path, lock_offset)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "owns\n"
        set_patience(0.3)
        try:
            with pytest.raises(LockTimeout):
                tree.repair()
        finally:
            set_patience(3)
        process.communicate("\n")
    write_lock(tree, lock_offset, 0)
    assert tree.root["memory"].usage == 5


IN_A_NAMESPACE = """
import os, sys
from fsmount import Tree
tree = Tree.open(sys.argv[1])
counter = tree.root.child("group").attach()["memory"]
print(os.getpid(), flush=True)
while True:
    counter.charge(1)
    counter.uncharge(1)
"""


@pytest.mark.root
def test_an_owner_in_another_pid_namespace_releases_the_lock_when_it_is_killed(tree: Tree) -> None:
    tree.batch = 0
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = companion(*unshare, sys.executable, "-c", IN_A_NAMESPACE, tree.path)
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout and process.stdout.readline() == "1\n"
            for _ in range(200):
                assert tree.root["memory"].usage in range(5, 11)
            process.kill()
    assert tree.root["memory"].usage in range(5, 11)
    assert tree.check() == []


EXEC_BY_A_THREAD = """
import os, sys, threading
from fsmount import Tree
tree = Tree.open(sys.argv[1])
counter = tree.root.child("group").attach()["memory"]
threading.Timer(0.05, os.execv, ["/bin/echo", ["echo", "gone"]]).start()
while True:
    counter.charge(1)
    counter.uncharge(1)
"""


def test_an_owner_that_calls_exec_releases_the_lock(tree: Tree) -> None:
    tree.batch = 0
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", EXEC_BY_A_THREAD, tree.path], stdout=subprocess.PIPE) as process:
            assert process.stdout
            while not select.select([process.stdout], [], [], 0)[0]:
                assert tree.root["memory"].usage in range(5, 11)
            assert process.stdout.read() == b"gone\n"
        assert tree.root["memory"].usage in range(5, 11)
    tree.reap()
    assert tree.root["memory"].usage == 5
    assert tree.check() == []

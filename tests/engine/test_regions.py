"""The region itself: capacity, memory, recognition, and damage."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsmount import Tree
from fsmount.engine import LEASE, PROCESS, EngineError, process_start_time
from fsmount.shm import Group

SELF = os.getpid()


def new_holder(tree: Tree, kind: int = PROCESS) -> int:
    return tree.region.holder_create(SELF, process_start_time(SELF), kind, 0)


def everything(tree: Tree) -> list[Any]:
    """Everything that can be seen of a tree."""

    def see(group: Group) -> list[Any]:
        stats = [list(group[resource].stat().values()) for resource in group.resources]
        holders = [group[resource].holders() for resource in group.resources]
        return [group.path, stats, holders, [see(child) for child in group.children()]]

    return [see(tree.root), tree.holders()]


# ---- full -----------------------------------------------------------------------------------------------


def test_a_group_above_the_capacity_is_refused_and_changes_nothing() -> None:
    with Tree.create(None, groups=5) as tree:
        a = tree.root.mkdir("a")
        for name in "bcd":
            a.mkdir(name)
        before = everything(tree)
        for parent in (tree.root, a, a.child("b")):
            with pytest.raises(OSError) as caught:
                parent.mkdir("one too many")
            assert caught.value.errno == errno.ENOSPC
        assert everything(tree) == before
        assert tree.check() == []
        a.rmdir("c")
        assert tree.root.mkdir("in its place").path == "/in its place"


def test_a_holder_above_the_capacity_is_refused_and_changes_nothing() -> None:
    with Tree.create(None, holders=3, cells=10) as tree:
        holders = [new_holder(tree) for _ in range(3)]
        group = tree.root.mkdir("group")
        before = everything(tree)
        with pytest.raises(EngineError) as refused:
            new_holder(tree)
        assert refused.value.errno == errno.ENOSPC
        with pytest.raises(OSError) as caught:
            group.attach()
        assert caught.value.errno == errno.ENOSPC
        assert everything(tree) == before
        new_holder(tree, LEASE)  # leases have room of their own
        assert tree.check() == []
        tree.region.holder_end(holders[1])
        with group.attach() as attached:
            attached["memory"].charge(1)


def test_a_cell_above_the_capacity_is_refused_and_changes_nothing() -> None:
    with Tree.create(None, ["memory", "tokens:count"], cells=5) as tree:
        first, second = tree.root.mkdir("first"), tree.root.mkdir("second")
        holders = [new_holder(tree) for _ in range(3)]
        tree.region.holder_join(holders[0], first.id)
        tree.region.holder_join(holders[1], first.id)
        before = everything(tree)
        with pytest.raises(EngineError) as refused:
            tree.region.holder_join(holders[2], second.id)  # one cell is left, but two are needed
        assert refused.value.errno == errno.ENOSPC
        assert everything(tree) == before
        assert tree.check() == []
        tree.region.holder_join_one(holders[2], second.id, 1)
        with pytest.raises(EngineError) as refused:
            tree.region.holder_join_one(holders[2], second.id, 0)
        assert refused.value.errno == errno.ENOSPC
        tree.region.holder_leave(holders[0], first.id, 0)
        tree.region.holder_join_one(holders[2], second.id, 0)
        assert tree.check() == []


def test_dead_processes_make_room_for_holders() -> None:
    with Tree.create(None, holders=2) as tree:
        process = subprocess.Popen(["true"])
        start_time = process_start_time(process.pid)
        for _ in range(2):
            tree.region.holder_create(process.pid, start_time, PROCESS, 0)
        process.wait()
        with tree.root.attach() as root:
            root["memory"].charge(5)
            assert [holder.pid for holder in tree.holders()] == [SELF]


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": 0},
        {"holders": 0},
        {"cells": 0},
        {"resources": []},
        {"resources": ["memory"] * 2},
        {"resources": [""]},
        {"resources": ["a/b"]},
        {"resources": ["a.b"]},
        {"resources": ["white space"]},
        {"resources": ["a=b"]},
        {"resources": ["a,b"]},
        {"resources": ["-a"]},
        {"resources": ["x" * 64]},
        {"resources": ["memory:pages"]},
        {"resources": [f"r{number}" for number in range(33)]},
        {"batch": -2},
        {"batch": "many"},
    ],
    ids=str,
)
def test_an_impossible_region_is_not_made(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Tree.create(tmp_path / "region", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_region_can_have_the_highest_number_of_resources() -> None:
    names = [f"{'n' * 60}{number}" for number in range(32)]
    with Tree.create(None, names, groups=2, cells=64) as tree:
        group = tree.root.mkdir("group")
        with group.attach() as attached:
            for number, name in enumerate(names):
                attached[name].charge(number)
        assert [group[name].max_usage for name in names] == list(range(32))


# ---- memory -----------------------------------------------------------------------------------------


def test_capacity_takes_no_memory_until_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "region"
    with Tree.create(path) as tree:
        assert tree.region.capacity == (65536, 4096, 1 << 20)
        empty = path.stat()
        assert empty.st_mode & 0o777 == 0o600
        assert empty.st_size > 100 << 20
        assert empty.st_blocks * 512 < 512 << 10
        for number in range(1000):
            tree.root.mkdir(f"{number}")
        with tree.root.child("7").attach() as group:
            group["memory"].charge(1)
            assert (path.stat().st_blocks - empty.st_blocks) * 512 < 1000 * 1024


# ---- recognition ------------------------------------------------------------------------------------


def make_region(path: Path, **options: Any) -> None:
    Tree.create(path, ["memory", "tokens:count"], groups=16, holders=4, cells=32, **options).close()


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def lengthen(path: Path, by: int) -> None:
    os.truncate(path, path.stat().st_size + by)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: os.truncate(path, 0), "too short"),
    "cut in the header": (lambda path: os.truncate(path, 100), "too short"),
    "cut in the records": (lambda path: lengthen(path, -4096), "bytes long"),
    "longer": (lambda path: lengthen(path, 4096), "bytes long"),
    "text": (lambda path: path.write_text("counters\n" * 10000), "not a region"),
    "not finished": (lambda path: patch(path, 0, bytes(8)), "not a region"),
    "another version": (lambda path: patch(path, 8, struct.pack("=I", 99)), "version 99"),
    "another architecture": (lambda path: patch(path, 12, struct.pack("=I", 0x1804)), "architecture"),
    "another size": (lambda path: patch(path, 16, struct.pack("=Q", 1 << 40)), "bytes long"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_is_no_region_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    path = tmp_path / "region"
    make_region(path)
    damage, why = DAMAGES[name]
    damage(path)
    before = path.read_bytes()
    with pytest.raises(OSError) as caught:
        Tree.open(path)
    assert caught.value.errno == errno.EPROTO
    assert caught.value.filename == str(path)
    assert why in str(caught.value)
    assert path.read_bytes() == before


def test_a_path_without_a_region_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        Tree.open(tmp_path / "missing")
    assert missing.value.filename == str(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        Tree.open(tmp_path)
    with pytest.raises(OSError) as device:
        Tree.open("/dev/null")
    assert device.value.errno == errno.EPROTO


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "region"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        Tree.create(path)
    assert path.read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Tree.create(link)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.root
def test_another_users_region_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "region"
    make_region(path)
    path.chmod(0o666)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == SELF and directory != directory.parent:
            directory.chmod(directory.stat().st_mode | 0o011)
    fd = os.open(path, os.O_RDWR)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            try:
                Tree.open(f"/proc/self/fd/{fd}")
            except PermissionError:
                status = 0
        finally:
            os._exit(status)
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_region_keeps_everything_between_its_users(tmp_path: Path) -> None:
    path = tmp_path / "region"
    with Tree.create(path, ["memory", "tokens:count"], batch=64, groups=10) as tree:
        identity = tree.id
        group = tree.root.mkdir("a").mkdir_for("b", mode=0o700, uid=12, gid=34)
        group["tokens"].limit = 100
        group["tokens"].charge_common(70)
        with pytest.raises(OSError):
            group["tokens"].charge_common(31)
        before = everything(tree)
    with Tree.open(path) as tree:
        assert (tree.id, tree.resources, tree.batch) == (identity, {"memory": "bytes", "tokens": "count"}, 64)
        assert everything(tree) == before
        group = tree.root.child("a").child("b")
        assert group.attributes(0)[:3] == (0o700, 12, 34)
        assert group["tokens"].failcnt == 1
        assert tree.check() == []
    with Tree.create(tmp_path / "other") as other:
        assert other.id != identity


# ---- overwritten ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)  # FSMOUNT_SOAK=1 takes minutes
def test_an_overwritten_region_raises_an_error_and_never_crashes_or_hangs(
    tmp_path: Path, seed: int, soak: bool
) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.engine.scribbles"]
    command += [str(tmp_path), str(seed), "0", "20000" if soak else "400"]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    print(result.stdout[-500:])
    assert (result.returncode, result.stderr) == (0, "")

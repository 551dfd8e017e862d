"""The kernel's cache of the tree is never stale, whichever process changes the tree, and in whichever way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from tests.mounts import GroupFiles, Mount, fails_with

IN_THE_REGION = """
import sys
from fsmount import Tree
with Tree.open(sys.argv[1]) as tree:
    [group] = [child for child in tree.root.children() if child.name == sys.argv[2]]
    {statement}
"""


def in_the_region(mount: Mount, group: GroupFiles, statement: str) -> None:
    """Another process runs the statement in the region, past the mount."""
    command = [sys.executable, "-c", IN_THE_REGION.format(statement=statement), str(mount.region), group.path.name]
    subprocess.run(command, check=True, timeout=60)


def test_a_group_made_or_removed_in_the_region_appears_or_vanishes_at_once(mount: Mount, group: GroupFiles) -> None:
    child = group / "child"
    for _ in range(2):
        assert not child.exists()
        assert "child" not in os.listdir(group.path)
        assert os.stat(group.path).st_nlink == 2
        in_the_region(mount, group, "group.mkdir('child')")
        assert child.is_dir()
        assert "child" in os.listdir(group.path)
        assert os.stat(group.path).st_nlink == 3
        assert (child / "memory.stat").exists()
        in_the_region(mount, group, "group.rmdir('child')")
    assert not child.exists()
    with fails_with(errno.ENOENT):
        os.stat(child / "memory.stat")


def test_a_group_renamed_in_the_region_has_its_new_name_at_once(mount: Mount, group: GroupFiles) -> None:
    group.mkdir("before").charge(5)
    assert not (group / "after").exists()
    in_the_region(mount, group, "group.rename('before', 'after')")
    assert not (group / "before").exists()
    assert group.child("after").usage == 5
    assert [child.path.name for child in group.children()] == ["after"]


def test_a_group_removed_and_made_again_in_the_region_has_a_new_inode(mount: Mount, group: GroupFiles) -> None:
    child = group.mkdir("child")
    child.set_limit(5)
    before = os.stat(child.path).st_ino
    in_the_region(mount, group, "group.rmdir('child'); group.mkdir('child')")
    assert os.stat(child.path).st_ino != before
    assert child.limit == 2**63 - 1
    child.set_limit(7)


@pytest.mark.parametrize("name", ["limit", "soft_limit"])
def test_a_limit_set_in_the_region_is_read_at_once(mount: Mount, group: GroupFiles, name: str) -> None:
    fd = os.open(group.file(name), os.O_RDONLY)
    try:
        for value in (5, 77):
            in_the_region(mount, group, f"group['memory'].{name} = {value}")
            assert os.pread(fd, 100, 0) == f"{value}\n".encode()
            assert group.number(name) == value
    finally:
        os.close(fd)


def test_a_mode_changed_through_one_path_shows_in_the_other(group: GroupFiles) -> None:
    fd = os.open(group / "memory.limit_in_bytes", os.O_RDONLY)
    directory = os.open(group.path, os.O_RDONLY)
    try:
        for bits in (0o600, 0o640, 0o644):
            os.chmod("memory.limit_in_bytes", bits, dir_fd=directory)
            assert os.fstat(fd).st_mode & 0o777 == bits
            assert os.stat(group / "memory.limit_in_bytes").st_mode & 0o777 == bits
    finally:
        os.close(fd)
        os.close(directory)


def test_a_missing_name_is_found_as_soon_as_the_group_exists(group: GroupFiles) -> None:
    for number in range(50):
        path = group / f"child{number}"
        assert not path.exists()
        os.mkdir(path)
        assert path.is_dir()
        os.rename(path, group / "other")
        assert not path.exists()
        os.rmdir(group / "other")
        assert not (group / "other").exists()

"""The hidden files .R.groups: every group of a subtree with its counter, in one read."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from fsmount.cli.ui import snapshot
from fsmount.files import group_at
from tests.holder_process import HolderProcess
from tests.mounts import AS_ROOT, GroupFiles, Mount, fails_with

NAME = ".memory.groups"


@pytest.mark.parametrize("resource", ["memory", "tokens"])
def test_a_snapshot_has_the_numbers_of_the_whole_subtree(mount: Mount, group: GroupFiles, resource: str) -> None:
    beside, child = group.mkdir("beside"), group.mkdir("child")
    grandchild = child.mkdir("grandchild")
    group.set_limit(5000, resource)
    child.write("soft_limit", 1000, resource)
    grandchild.charge(4096, resource)
    with fails_with(errno.ENOMEM):
        beside.charge(5000, resource)
    with HolderProcess(grandchild.path, transport="memory"):
        for top, below in ((mount.root, [group, beside, child, grandchild]), (child, [grandchild])):
            rows = group_at(str(top.path))[resource].snapshot()
            found = snapshot.paths(rows)
            assert found[rows[0].id] == "" and rows[0].name == ("" if top is not child else "child")
            assert set(found.values()) == {"", *(str(each.path.relative_to(top.path)) for each in below)}
            for row in rows:
                assert snapshot.stat(row) == GroupFiles(top.path / found[row.id], top.units).stat(resource)


def test_a_snapshot_shows_names_unchanged(group: GroupFiles) -> None:
    names = [b" a  b ", b"\xff\xc3", b"\r\x0b\x85", "ü\u2028€".encode(), b"7 7 7 7", b"-"]
    for name in names:
        os.mkdir(os.fsencode(group.path) + b"/" + name)
    first, *rows = group_at(str(group.path))["memory"].snapshot()
    assert first.name == group.path.name
    assert sorted(os.fsencode(row.name) for row in rows) == sorted(names)
    assert {row.parent for row in rows} == {first.id}


def test_every_directory_has_a_snapshot_and_none_lists_it(mount: Mount, group: GroupFiles) -> None:
    for directory in (mount.path, group.path):
        for name in (NAME, ".tokens.groups"):
            assert name not in os.listdir(directory)
            assert (directory / name).read_bytes().count(b"\n") >= 1
            with fails_with(errno.EEXIST):
                os.mkdir(directory / name)
        assert not (directory / ".beans.groups").exists()
    child = group.mkdir("child")
    with fails_with(errno.ENOTDIR):
        os.rename(child.path, group.path / NAME)
    with fails_with(errno.EPERM):
        os.unlink(group.path / NAME)


def test_a_snapshot_is_readable_by_users_that_may_list_the_directory(group: GroupFiles) -> None:
    path = group.path / NAME
    assert stat.filemode(path.stat().st_mode) == "-r--r--r--"
    group.path.chmod(0o751)
    assert stat.filemode(path.stat().st_mode) == "-r--r-----"
    assert (path.stat().st_size, path.stat().st_uid) == (1 << 16, os.geteuid())
    with fails_with(errno.EPERM):
        path.chmod(0o444)
    if not AS_ROOT:
        group.path.chmod(0o311)
        with fails_with(errno.EACCES):
            path.read_bytes()
    group.path.chmod(0o755)


def test_a_read_continues_in_the_text_that_it_started_with(group: GroupFiles) -> None:
    child = group.mkdir("child")
    fd = os.open(group.path / NAME, os.O_RDONLY)
    try:
        begun = os.pread(fd, 10, 0)
        child.charge(77)
        child.path.rename(group.path / "renamed")
        rest = os.pread(fd, 1 << 16, 10)
        assert (begun + rest).endswith(b" child\n") and b" 77 " not in rest
        assert os.pread(fd, 1 << 16, 0).endswith(b" renamed\n")
        (group.path / "renamed" / "memory.uncharge").write_text("77")
        group.child("renamed").remove()
    finally:
        os.close(fd)


def test_the_snapshot_of_a_removed_group_answers_enodev(group: GroupFiles) -> None:
    child = group.mkdir("child")
    fd = os.open(child.path / NAME, os.O_RDONLY)
    try:
        child.remove()
        with fails_with(errno.ENODEV):
            os.pread(fd, 100, 0)
    finally:
        os.close(fd)


def test_a_snapshot_cannot_be_written(group: GroupFiles) -> None:
    with fails_with(*((errno.EINVAL,) if AS_ROOT else (errno.EACCES,))):
        (group.path / NAME).write_bytes(b"1")

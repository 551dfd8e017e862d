"""Opening, reading, writing, seeking and truncating, as the kernel's own control files answer."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from functools import partial

import pytest

from tests.mounts import GroupFiles, fails_with, poll_events, resource_files

pytestmark = pytest.mark.any_user

WRITABLE = [name for name, mode in resource_files().items() if mode & 0o200]
READABLE = [name for name, mode in resource_files().items() if mode & 0o400]


@pytest.fixture
def limit(group: GroupFiles) -> Iterator[int]:
    """An open limit file."""
    fd = os.open(group / "memory.limit_in_bytes", os.O_RDWR)
    yield fd
    os.close(fd)


# ---- flags and truncation


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize(
    "flags",
    [os.O_TRUNC, os.O_APPEND, os.O_CREAT, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_APPEND, os.O_SYNC, os.O_NONBLOCK],
    ids=["TRUNC", "APPEND", "CREAT", "CREAT|TRUNC", "CREAT|APPEND", "SYNC", "NONBLOCK"],
)
def test_open_flags_have_no_effect(group: GroupFiles, name: str, flags: int) -> None:
    group.set_limit(9000)
    group.charge(100)
    before = group.counters()
    fd = os.open(group / name, os.O_WRONLY | flags)
    try:
        assert group.counters() == before
        command = b"above 100" if name == "memory.threshold" else b"100"
        assert os.write(fd, command) == len(command)
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 30])
def test_truncate_and_ftruncate_succeed_without_effect(group: GroupFiles, name: str, size: int) -> None:
    group.set_limit(9000)
    group.charge(100)
    before = group.counters()
    shown = os.stat(group / name).st_size
    os.truncate(group / name, size)
    fd = os.open(group / name, os.O_WRONLY)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
    assert group.counters() == before
    assert os.stat(group / name).st_size == shown


@pytest.mark.parametrize("name", WRITABLE)
def test_fsync_succeeds_without_effect(group: GroupFiles, name: str) -> None:
    fd = os.open(group / name, os.O_WRONLY)
    try:
        os.fsync(fd)
        os.fdatasync(fd)
    finally:
        os.close(fd)


# ---- writing


@pytest.mark.parametrize("offset", [0, 1, 7, 4096, 1 << 40])
def test_each_pwrite_is_one_whole_command_at_any_offset(limit: int, offset: int) -> None:
    assert os.pwrite(limit, b"12345", offset) == 5
    assert os.pread(limit, 100, 0) == b"12345\n"
    assert os.pwrite(limit, b"6", offset) == 1
    assert os.pread(limit, 100, 0) == b"6\n"


def test_successive_writes_are_commands_of_their_own_and_the_position_advances(limit: int) -> None:
    positions = []
    for text in (b"1", b"2345\n", b"0x10"):
        os.write(limit, text)
        positions.append(os.lseek(limit, 0, os.SEEK_CUR))
    assert positions == [1, 6, 10]
    assert os.pread(limit, 100, 0) == b"16\n"


def test_a_refused_write_does_not_advance_the_position(limit: int) -> None:
    os.write(limit, b"10")
    with fails_with(errno.EINVAL):
        os.write(limit, b"nonsense")
    assert os.lseek(limit, 0, os.SEEK_CUR) == 2


def test_writev_is_one_command(limit: int) -> None:
    assert os.writev(limit, [b"40", b"9", b"", b"6k\n"]) == 6
    assert os.pread(limit, 100, 0) == f"{4096 << 10}\n".encode()
    assert os.pwritev(limit, [b"7", b"8"], 100) == 2
    assert os.pread(limit, 100, 0) == b"78\n"


def test_a_write_through_a_duplicated_descriptor_is_the_same(limit: int) -> None:
    copy = os.dup(limit)
    os.write(copy, b"55")
    os.close(copy)
    assert os.pread(limit, 100, 0) == b"55\n"


# ---- reading


@pytest.mark.parametrize("name", READABLE)
def test_a_file_reads_the_same_in_pieces_as_at_once(group: GroupFiles, name: str) -> None:
    group.charge(123456)
    whole = (group / name).read_bytes()
    fd = os.open(group / name, os.O_RDONLY)
    try:
        pieces = []
        while piece := os.read(fd, 3):
            pieces.append(piece)
        assert b"".join(pieces) == whole
        assert os.read(fd, 100) == b""
    finally:
        os.close(fd)


def test_reads_honour_the_offset(limit: int) -> None:
    os.pwrite(limit, b"123456", 0)
    assert os.pread(limit, 100, 0) == b"123456\n"
    assert os.pread(limit, 2, 3) == b"45"
    assert os.pread(limit, 100, 6) == b"\n"
    assert os.pread(limit, 100, 7) == b""
    assert os.pread(limit, 100, 1 << 40) == b""


def test_a_first_read_elsewhere_than_at_the_start_honours_the_offset(group: GroupFiles) -> None:
    group.set_limit(123456)
    fd = os.open(group / "memory.limit_in_bytes", os.O_RDONLY)
    try:
        assert os.pread(fd, 2, 3) == b"45"
    finally:
        os.close(fd)


def test_a_continued_read_stays_in_its_snapshot(group: GroupFiles, limit: int) -> None:
    group.set_limit(123456)
    assert os.read(limit, 3) == b"123"
    group.set_limit(999999)
    assert os.read(limit, 100) == b"456\n"
    assert os.read(limit, 100) == b""


def test_a_read_at_0_takes_a_new_snapshot(group: GroupFiles, limit: int) -> None:
    group.set_limit(123456)
    assert os.pread(limit, 3, 0) == b"123"
    group.set_limit(999999)
    assert os.pread(limit, 3, 3) == b"456"
    assert os.pread(limit, 3, 0) == b"999"
    group.set_limit(1)
    assert os.pread(limit, 3, 3) == b"999"
    os.lseek(limit, 0, os.SEEK_SET)
    assert os.read(limit, 100) == b"1\n"


def test_each_open_file_has_its_own_snapshot(group: GroupFiles, limit: int) -> None:
    group.set_limit(123456)
    other = os.open(group / "memory.limit_in_bytes", os.O_RDONLY)
    try:
        assert os.read(limit, 3) == b"123"
        group.set_limit(777888)
        assert os.read(other, 3) == b"777"
        group.set_limit(5)
        assert (os.read(limit, 3), os.read(other, 3)) == (b"456", b"888")
    finally:
        os.close(other)


def test_the_snapshot_of_stat_is_of_one_moment(group: GroupFiles) -> None:
    group.charge(111)
    with open(group / "memory.stat", "rb", buffering=0) as stat:
        start = stat.read(10)
        group.charge(222)
        rest = stat.readall()
    values = dict(line.split(b" ") for line in (start + rest).splitlines())
    assert values[b"usage"] == values[b"usage_local"] == values[b"common"] == b"111"


def test_readv_fills_its_buffers_in_turn(limit: int) -> None:
    os.pwrite(limit, b"123456", 0)
    one, two = bytearray(4), bytearray(10)
    assert os.preadv(limit, [one, two], 0) == 7
    assert (bytes(one), bytes(two[:3])) == (b"1234", b"56\n")


def test_a_seek_from_the_end_starts_behind_the_text(limit: int) -> None:
    os.write(limit, b"123456")
    assert os.lseek(limit, 0, os.SEEK_END) == 4096
    assert os.read(limit, 100) == b""
    assert os.lseek(limit, 0, os.SEEK_SET) == 0
    assert os.read(limit, 100) == b"123456\n"
    assert os.lseek(limit, 1000, os.SEEK_SET) == 1000
    assert os.read(limit, 100) == b""
    with fails_with(errno.EINVAL):
        os.lseek(limit, -1, os.SEEK_SET)


def test_a_value_read_is_never_stale(group: GroupFiles) -> None:
    fd = os.open(group / "memory.usage_in_bytes", os.O_RDONLY)
    try:
        for expected in range(1, 201):
            group.charge(1)
            assert os.pread(fd, 100, 0) == group.read("usage").encode() == f"{expected}\n".encode()
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", READABLE)
def test_poll_of_a_live_file_reports_no_error(group: GroupFiles, name: str) -> None:
    fd = os.open(group / name, os.O_RDONLY)
    try:
        os.read(fd, 4096)
        assert poll_events(fd, select.POLLIN) & (select.POLLERR | select.POLLNVAL | select.POLLHUP) == 0
    finally:
        os.close(fd)


# ---- groups that are removed while their files are open


@pytest.mark.parametrize("name", resource_files())
def test_an_open_file_of_a_removed_group_answers_enodev(group: GroupFiles, name: str) -> None:
    child = group.mkdir("child")
    os.chmod(child / name, 0o600)
    fds = [os.open(child / name, os.O_RDWR) for _ in range(2)]
    try:
        if name in READABLE:
            os.read(fds[0], 1)
        os.rmdir(child.path)
        for fd in fds:
            with fails_with(errno.ENODEV):
                os.pread(fd, 100, 0)
            with fails_with(errno.ENODEV):
                os.pwrite(fd, b"1", 0)
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("name", [*resource_files(), ".fsmount"])
def test_attributes_of_an_open_file_of_a_removed_group_cannot_be_changed(group: GroupFiles, name: str) -> None:
    child = group.mkdir("child")
    fd = os.open(child / name, os.O_WRONLY if name not in READABLE else os.O_RDONLY)
    try:
        mode = os.fstat(fd).st_mode
        os.rmdir(child.path)
        for action in (
            partial(os.fchmod, fd, 0o600),
            partial(os.fchown, fd, os.geteuid(), -1),
            partial(os.utime, fd, (1, 2)),
            *([partial(os.ftruncate, fd, 0)] if name not in READABLE else []),
        ):
            with fails_with(errno.ENODEV):
                action()
        assert os.fstat(fd).st_mode == mode
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", resource_files())
def test_poll_of_an_open_file_of_a_removed_group_reports_pollerr(group: GroupFiles, name: str) -> None:
    child = group.mkdir("child")
    os.chmod(child / name, 0o600)
    fd = os.open(child / name, os.O_RDWR)
    try:
        os.rmdir(child.path)
        assert poll_events(fd) & select.POLLERR
    finally:
        os.close(fd)


def test_an_open_file_of_a_removed_group_never_becomes_a_file_of_its_successor(group: GroupFiles) -> None:
    for _ in range(20):
        child = group.mkdir("child")
        fd = os.open(child / "memory.limit_in_bytes", os.O_RDWR)
        try:
            os.rmdir(child.path)
            child = group.mkdir("child")
            with fails_with(errno.ENODEV):
                os.pwrite(fd, b"5", 0)
            with fails_with(errno.ENODEV):
                os.pread(fd, 100, 0)
        finally:
            os.close(fd)
        assert child.read("limit") == f"{2**63 - 1}\n"
        os.rmdir(child.path)


def test_a_removed_open_directory_finds_and_makes_nothing(group: GroupFiles) -> None:
    child = group.mkdir("child")
    fd = os.open(child.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rmdir(child.path)
        with fails_with(errno.ENOENT):
            os.open("memory.stat", os.O_RDONLY, dir_fd=fd)
        with fails_with(errno.ENOENT):
            os.mkdir("grandchild", dir_fd=fd)
        group.mkdir("child")
        with fails_with(errno.ENOENT):
            os.mkdir("grandchild", dir_fd=fd)
    finally:
        os.close(fd)
    assert group.child("child").children() == []

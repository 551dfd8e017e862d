"""
Another user in a tree mounted with allow_other: each operation depends on exactly the mode bits that it needs, and the
control channel serves only processes of the daemon's own user.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

import fsmount
from fsmount.files import LeaseGroup
from tests.filesystem.model import READ, SEARCH, WRITE, User
from tests.filesystem.user_process import Failed, Operation, UserProcess
from tests.holder_process import HolderProcess
from tests.mounts import GroupFiles, Mount, as_user, eventually, fails_with, mounted, resource_files

pytestmark = pytest.mark.root

# User numbers without an account.
COMMON_GROUP = 60_200
ALICE = User(60_101, 60_101, frozenset({60_101, COMMON_GROUP}), umask=0)
BOB = User(60_102, 60_102, frozenset({60_102}), umask=0)


@pytest.fixture(scope="module")
def shared() -> Iterator[Mount]:
    """A mount every user sees."""
    with mounted("-o", "allow_other") as mount:
        yield mount


@pytest.fixture
def group(shared: Mount, new_group: Callable[[Mount], GroupFiles]) -> Iterator[GroupFiles]:
    yield new_group(shared)
    shared.check()


@contextlib.contextmanager
def process_of(user: User, directory: Path) -> Iterator[Callable[..., object]]:
    """Yields a function that does an operation as the user, below the directory; an OSError becomes its errno."""
    process = UserProcess(user, str(directory))

    def do(*operation: object) -> object:
        process.send([operation])
        (answer,) = process.answers()
        return errno.errorcode[answer.number] if isinstance(answer, Failed) else answer

    try:
        yield do
    finally:
        process.close()


def delegate(group: GroupFiles, user: User) -> None:
    for path in [group.path, *(group / name for name in os.listdir(group.path))]:
        os.chown(path, user.uid, user.gid)


# ---- the mode bits of an operation


class Need(NamedTuple):
    """An operation in a directory `d` with a group `child`: the node and the bits that it needs, and its result."""

    operation: Operation
    of: str
    bits: int
    allowed: object = None


LIMIT = b"d/memory.limit_in_bytes"
FILE_NEEDS = [
    Need(("cat", LIMIT), "memory.limit_in_bytes", READ, b"1000\n"),
    Need(("echo", LIMIT, b"1000", 0), "memory.limit_in_bytes", WRITE, 4),
    Need(("echo", LIMIT, b"1000", os.O_CREAT | os.O_TRUNC), "memory.limit_in_bytes", WRITE, 4),
    Need(("open", 1, LIMIT, os.O_RDWR), "memory.limit_in_bytes", READ | WRITE),
    Need(("open", 1, LIMIT, os.O_RDONLY | os.O_TRUNC), "memory.limit_in_bytes", READ | WRITE),
    Need(("truncate", LIMIT, 0), "memory.limit_in_bytes", WRITE),
    Need(("utime", LIMIT, None), "memory.limit_in_bytes", WRITE),
    Need(("getxattr", LIMIT), "memory.limit_in_bytes", READ, "ENOTSUP"),
    Need(("setxattr", LIMIT), "memory.limit_in_bytes", WRITE, "ENOTSUP"),
    Need(("cat", b"d/memory.stat"), "memory.stat", READ, ...),
    Need(("cat", b"d/memory.holders"), "memory.holders", READ, b""),
    Need(("echo", b"d/memory.usage_in_bytes", b"1", 0), "memory.usage_in_bytes", WRITE, "EINVAL"),
    Need(("echo", b"d/memory.soft_limit_in_bytes", b"7", 0), "memory.soft_limit_in_bytes", WRITE, 1),
    Need(("echo", b"d/memory.max_usage_in_bytes", b"0", 0), "memory.max_usage_in_bytes", WRITE, 1),
    Need(("echo", b"d/memory.failcnt", b"0", 0), "memory.failcnt", WRITE, 1),
    Need(("echo", b"d/memory.charge", b"0", 0), "memory.charge", WRITE, 1),
    Need(("echo", b"d/memory.uncharge", b"0", 0), "memory.uncharge", WRITE, 1),
    Need(("echo", b"d/memory.force_empty", b"0", 0), "memory.force_empty", WRITE, 1),
    Need(("echo", b"d/memory.lease", b"5", 0), "memory.lease", WRITE, 1),
    Need(("cat", b"d/memory.lease"), "memory.lease", READ, b"0\n"),
]
DIRECTORY_NEEDS = [
    Need(("listdir", b"d"), ".", READ, ...),
    Need(("stat", LIMIT), ".", SEARCH, ...),
    Need(("cat", LIMIT), ".", SEARCH, b"1000\n"),
    Need(("stat", b"d/child"), ".", SEARCH, ...),
    Need(("listdir", b"d/child"), ".", SEARCH, ...),
    Need(("mkdir", b"d/new", 0o777), ".", WRITE | SEARCH),
    Need(("rmdir", b"d/child"), ".", WRITE | SEARCH),
    Need(("rename", b"d/child", b"d/renamed"), ".", WRITE | SEARCH),
    Need(("unlink", LIMIT), ".", WRITE | SEARCH, "EPERM"),
    Need(("symlink", b"d/new"), ".", WRITE | SEARCH, "EPERM"),
    Need(("mknod", b"d/new", stat.S_IFREG), ".", WRITE | SEARCH, "EPERM"),
    Need(("mknod", b"d/new", stat.S_IFIFO), ".", WRITE | SEARCH, "EPERM"),
    Need(("open", 1, b"d/new", os.O_WRONLY | os.O_CREAT), ".", WRITE | SEARCH, "EPERM"),
    Need(("utime", b"d", None), ".", WRITE),
    Need(("getxattr", b"d"), ".", READ, "ENOTSUP"),
    Need(("setxattr", b"d"), ".", WRITE, "ENOTSUP"),
]
# The owner may set the times under any mode.
OWNERS_OWN = "utime"


@pytest.mark.parametrize("need", [*FILE_NEEDS, *DIRECTORY_NEEDS], ids=lambda need: f"{need.operation[0]} by {need.of}")
def test_an_operation_depends_on_exactly_the_mode_bits_that_it_needs(group: GroupFiles, need: Need) -> None:
    directory = group.mkdir("d")
    directory.set_limit(1000)
    os.chmod(directory.path, 0o777)
    path = directory / need.of
    with process_of(ALICE, group.path) as do:
        for shift, uid, gid in ((6, ALICE.uid, 0), (3, 0, COMMON_GROUP), (0, 0, 0)):
            os.chown(path, uid, gid)
            for bits in range(8):
                if not (directory / "child").exists():
                    directory.mkdir("child")
                # the bits of the other classes say the opposite, and do not count
                os.chmod(path, 0o777 & ~(7 << shift) & ~(bits * 0o111) | bits << shift)
                before = directory.counters()
                answer = do(*need.operation)
                context = f"{bits:o} shifted by {shift}: {answer!r}"
                if bits & need.bits == need.bits or (need.operation[0] == OWNERS_OWN and uid == ALICE.uid):
                    assert need.allowed in (..., answer), context
                    assert need.allowed is not ... or not isinstance(answer, str), context
                else:
                    assert answer == "EACCES", context
                    assert directory.counters() == before
                os.chmod(path, 0o777)
                for made in ("new", "renamed"):
                    with contextlib.suppress(FileNotFoundError):
                        os.rmdir(directory / made)


@pytest.mark.parametrize("name", [".", *resource_files()])
def test_only_the_owner_changes_attributes_under_any_mode(group: GroupFiles, name: str) -> None:
    path, relative = group / name, os.fsencode(name)
    os.chmod(path, 0o777)
    os.chown(path, BOB.uid, COMMON_GROUP)
    before = os.stat(path)
    with process_of(ALICE, group.path) as do:
        for operation in (
            ("chmod", relative, 0o700),
            ("chown", relative, ALICE.uid, -1),
            ("chown", relative, -1, ALICE.gid),
            ("utime", relative, (1, 2)),
        ):
            assert do(*operation) == "EPERM"
    after = os.stat(path)
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    os.chown(path, ALICE.uid, 0)
    with process_of(ALICE, group.path) as do:
        assert do("chmod", relative, 0o750) is None
        assert do("utime", relative, (1, 2)) == (1, 2)
        assert do("chown", relative, -1, COMMON_GROUP) is None
        assert do("chown", relative, -1, BOB.gid) == "EPERM"
        assert do("chown", relative, BOB.uid, -1) == "EPERM"
    after = os.stat(path)
    assert (oct(stat.S_IMODE(after.st_mode)), after.st_uid, after.st_gid) == ("0o750", ALICE.uid, COMMON_GROUP)


def test_users_of_a_sticky_directory_remove_and_rename_only_their_own_groups(group: GroupFiles) -> None:
    os.chmod(group.path, 0o1777)
    with process_of(ALICE, group.path) as alice, process_of(BOB, group.path) as bob:
        assert alice("mkdir", b"of-alice", 0o777) is None
        assert bob("mkdir", b"of-bob", 0o777) is None
        for do, others in ((alice, b"of-bob"), (bob, b"of-alice")):
            assert do("rmdir", others) == "EPERM"
            assert do("rename", others, b"new") == "EPERM"
        assert alice("rename", b"of-alice", b"of-bob") == "EPERM"
        assert alice("rename", b"of-alice", b"renamed") is None
        assert alice("rmdir", b"renamed") is None
    os.rmdir(group / "of-bob")


# ---- the control channel


def command(group: GroupFiles, *texts: bytes) -> None:
    fd = os.open(group / ".fsmount", os.O_RDWR)
    try:
        for text in texts:
            os.write(fd, text)
    finally:
        os.close(fd)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_the_control_channel_of_a_group_is_closed_to_other_users(group: GroupFiles, flags: int) -> None:
    os.chmod(group.path, 0o777)
    with fails_with(errno.EACCES):
        as_user(ALICE.uid, lambda: os.open(group / ".fsmount", flags))
    for action in (
        lambda: os.chmod(group / ".fsmount", 0o666),
        lambda: os.chown(group / ".fsmount", ALICE.uid, -1),
        lambda: os.unlink(group / ".fsmount"),
    ):
        with fails_with(errno.EPERM):
            as_user(ALICE.uid, action)


@pytest.mark.parametrize("text", [b"umount", b"umount keep", b"umount\n", b" umount\0"])
def test_the_owner_of_a_delegated_group_cannot_end_the_mount(shared: Mount, group: GroupFiles, text: bytes) -> None:
    delegate(group, ALICE)
    with fails_with(errno.EPERM):
        as_user(ALICE.uid, lambda: command(group, text))
    shared.check()


def test_a_command_in_parts_is_no_command(shared: Mount, group: GroupFiles) -> None:
    delegate(group, ALICE)
    for texts in ((b"umo", b"unt"), (b"holder ", b"1"), (b"umount"[:1], b"umount"[1:]), (b"umount, please",)):
        with fails_with(errno.EINVAL):
            as_user(ALICE.uid, partial(command, group, *texts))
    shared.check()


def test_no_user_ends_the_holder_of_another_users_process(shared: Mount, group: GroupFiles) -> None:
    delegated = group.mkdir("delegated")
    delegate(delegated, ALICE)
    with HolderProcess(group.path, transport="memory") as process:
        process.charge(100)
        with fsmount.Tree.open(str(shared.region)) as tree:
            holders = [holder.id for holder in tree.holders()]
        assert holders
        for holder in holders:
            with fails_with(errno.EPERM):
                as_user(ALICE.uid, partial(command, delegated, b"holder %d" % holder))
        assert (group.usage, process.held) == (100, 100)
        process.charge(1)
        assert group.usage == 101


def test_the_holder_of_a_lease_cannot_be_bound(shared: Mount, group: GroupFiles) -> None:
    with group.lease() as lease:
        lease.write("10")
        with fsmount.Tree.open(str(shared.region)) as tree:
            (holder,) = (holder.id for holder in tree.holders())
        with fails_with(errno.EPERM):
            command(group, b"holder %d" % holder)
        assert group.usage == 10


def test_a_false_report_of_changed_groups_changes_nothing(shared: Mount, group: GroupFiles) -> None:
    delegated, other = group.mkdir("delegated"), group.mkdir("other")
    delegate(delegated, ALICE)
    other.charge(5)
    before = group.tree_counters()
    numbers = [json.loads((directory / ".fsmount").read_bytes())["group"] for directory in (shared.path, group.path)]

    def abuse() -> None:
        for number in (*numbers, 0, 1, 2**60 - 1, 2**63, 2**64 - 1):
            for _ in range(20):
                with contextlib.suppress(OSError):
                    command(delegated, b"changed %d" % number)

    as_user(ALICE.uid, abuse)
    assert group.tree_counters() == before
    assert sorted(child.path.name for child in group.children()) == ["delegated", "other"]
    other.uncharge(5)


# ---- leases and the region


def test_an_open_lease_of_another_user_is_out_of_reach(group: GroupFiles) -> None:
    delegate(group, ALICE)
    os.chmod(group.path, 0o777)
    with process_of(ALICE, group.path) as alice, process_of(BOB, group.path) as bob:
        assert alice("open", 1, b"memory.lease", os.O_RDWR) is None
        assert alice("pwrite", 1, b"100", 0) == 3
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            assert bob("open", 1, b"memory.lease", flags) == "EACCES"
        os.chmod(group / "memory.lease", 0o666)
        # the user's own open is a separate lease
        assert bob("echo", b"memory.lease", b"-100", 0) == "ERANGE"
        assert bob("open", 1, b"memory.lease", os.O_RDWR) is None
        assert bob("pwrite", 1, b"0", 0) == 1
        assert bob("pwrite", 1, b"take 1", 0) == "ERANGE"
        assert group.usage == 100
        commands = sorted((line.held, line.command.split(":")[0]) for line in group.holders())
        assert commands == [(0, "lease"), (100, "lease")]
        assert bob("cat", b"memory.holders") == (group / "memory.holders").read_bytes()
    eventually(group.empty)


def test_no_path_leads_another_user_to_the_region(shared: Mount) -> None:
    assert shared.region is not None and shared.daemon is not None
    pid = shared.daemon.pid
    region = shared.region.stat()
    leading = [path for path in Path(f"/proc/{pid}/fd").iterdir() if os.path.samestat(path.stat(), region)]
    assert leading
    for path in (shared.region, *leading):
        for flags in (os.O_RDONLY, os.O_RDWR):
            with fails_with(errno.EACCES):
                as_user(ALICE.uid, partial(os.open, path, flags))
        with fails_with(errno.EACCES):
            as_user(ALICE.uid, partial(fsmount.Tree.open, path))
    for action in (
        partial(os.unlink, shared.region),
        partial(os.rename, shared.region, "/dev/shm/mine"),
        partial(os.link, shared.region, "/dev/shm/mine"),
        partial(os.listdir, shared.region.parent),
    ):
        with fails_with(errno.EACCES):
            as_user(ALICE.uid, action)


def test_the_owner_of_a_delegated_group_and_control_channel_charges_through_files(group: GroupFiles) -> None:
    delegate(group, ALICE)
    group.set_limit(10)

    def charge() -> list[object]:
        with fsmount.attach(group.path) as attached:
            memory = attached["memory"]
            memory.charge(7)
            return [isinstance(attached, LeaseGroup), memory.held, memory.usage, memory.try_charge(4)]

    with fails_with(errno.EACCES) as raised:
        as_user(ALICE.uid, lambda: bool(fsmount.attach(group.path, transport="memory")))
    assert '"files"' in str(raised.value)
    assert as_user(ALICE.uid, charge) == [True, 7, 7, False]
    eventually(group.empty)

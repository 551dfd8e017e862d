"""Modes, owners and delegation: allowed and denied operations, before and after the daemon's death."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mounts import GROUP_FILES, UNLIMITED, GroupFiles, Mount, as_user, fails_with, mounted, resource_files

pytestmark = pytest.mark.any_user

FILES = resource_files() | GROUP_FILES
# User numbers without an account.
ALICE, BOB = 60_101, 60_102

root = pytest.mark.root
user = pytest.mark.user


@pytest.fixture(scope="module")
def shared() -> Iterator[Mount]:
    """A mount every user sees."""
    with mounted("-o", "allow_other") as mount:
        yield mount


@pytest.fixture
def shared_group(shared: Mount, new_group: Callable[[Mount], GroupFiles]) -> Iterator[GroupFiles]:
    yield new_group(shared)
    shared.check()


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(os.stat(path).st_mode))


def read(path: Path) -> str:
    return path.read_text()


def write(path: Path, text: str) -> int:
    fd = os.open(path, os.O_WRONLY)
    try:
        return os.write(fd, text.encode())
    finally:
        os.close(fd)


def delegate(group: GroupFiles, owner: int) -> None:
    for path in [group.path, *(group / name for name in os.listdir(group.path))]:
        os.chown(path, owner, owner)


# ---- chmod


@pytest.mark.parametrize("name", [*FILES, "."])
@pytest.mark.parametrize("bits", [0o600, 0o444, 0o000, 0o777, 0o1755, 0o4755, 0o2755], ids=oct)
def test_stat_shows_the_mode_that_chmod_sets(group: GroupFiles, name: str, bits: int) -> None:
    path = group / name
    before = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, bits)
    assert mode(path) == oct(bits)
    os.chmod(path, before)
    assert mode(path) == oct(before)


def test_stat_shows_the_mode_that_fchmod_sets(group: GroupFiles) -> None:
    fd = os.open(group / "memory.limit_in_bytes", os.O_RDONLY)
    try:
        os.fchmod(fd, 0o640)
        assert oct(stat.S_IMODE(os.fstat(fd).st_mode)) == "0o640"
    finally:
        os.close(fd)


def test_chmod_of_one_file_changes_no_other(group: GroupFiles) -> None:
    child = group.mkdir("child")
    os.chmod(group / "memory.limit_in_bytes", 0o600)
    others = {name: FILES[name] for name in FILES if name != "memory.limit_in_bytes"}
    assert {name: mode(group / name) for name in others} == {name: oct(bits) for name, bits in others.items()}
    assert mode(child / "memory.limit_in_bytes") == "0o644"


@user
def test_a_mode_without_w_keeps_its_owner_from_writing(group: GroupFiles) -> None:
    os.chmod(group / "memory.limit_in_bytes", 0o444)
    with fails_with(errno.EACCES):
        group.set_limit(5)
    os.chmod(group / "memory.limit_in_bytes", 0o644)
    group.set_limit(5)


@user
def test_a_directory_without_w_takes_no_groups(group: GroupFiles) -> None:
    os.chmod(group.path, 0o555)
    with fails_with(errno.EACCES):
        group.mkdir("child")
    os.chmod(group.path, 0o755)
    group.mkdir("child")


@user
@pytest.mark.parametrize("name", ["memory.limit_in_bytes", "."])
def test_an_ordinary_user_cannot_give_a_group_away(group: GroupFiles, name: str) -> None:
    with fails_with(errno.EPERM):
        os.chown(group / name, 0, -1)
    assert os.stat(group / name).st_uid == os.geteuid()


@user
def test_an_ordinary_user_needs_user_allow_other_for_a_mount_that_others_see() -> None:
    allowed = any(line.strip() == "user_allow_other" for line in Path("/etc/fuse.conf").read_text().splitlines())
    if allowed:
        pytest.skip("/etc/fuse.conf says user_allow_other")
    mount = Mount("-o", "allow_other")
    try:
        with pytest.raises(AssertionError, match="exit status 1"):
            mount.start()
        assert "allow_other" in mount.log.read_text()
    finally:
        mount.destroy()


# ---- other users


@root
def test_another_user_sees_nothing_of_a_mount_without_allow_other(mount: Mount, group: GroupFiles) -> None:
    for action in (lambda: os.listdir(mount.path), lambda: read(group / "memory.usage_in_bytes")):
        with fails_with(errno.EACCES):
            as_user(ALICE, action)


@root
def test_another_user_reads_world_readable_files(shared_group: GroupFiles) -> None:
    shared_group.charge(4097)
    for name, bits in FILES.items():
        if bits & 0o004:
            assert as_user(ALICE, partial(read, shared_group / name)) == read(shared_group / name)
        else:
            with fails_with(errno.EACCES):
                as_user(ALICE, partial(read, shared_group / name))


@root
@pytest.mark.parametrize("name", [name for name in FILES if name != "memory.probe"])
def test_another_user_writes_nothing(shared_group: GroupFiles, name: str) -> None:
    before = shared_group.counters()
    with fails_with(errno.EACCES):
        as_user(ALICE, lambda: write(shared_group / name, "1"))
    assert shared_group.counters() == before


@root
def test_another_user_may_probe_a_charge(shared_group: GroupFiles) -> None:
    def ask() -> str:
        fd = os.open(shared_group / "memory.probe", os.O_RDWR)
        os.write(fd, b"11")
        return os.read(fd, 4096).decode()

    shared_group.set_limit(10)
    assert "\nfits 0\n" in as_user(ALICE, ask)


@root
def test_another_user_makes_removes_and_renames_no_groups(shared_group: GroupFiles) -> None:
    child = shared_group.mkdir("child")
    for action in (
        lambda: os.mkdir(shared_group / "theirs"),
        lambda: os.rmdir(child.path),
        lambda: os.rename(child.path, shared_group / "theirs"),
    ):
        with fails_with(errno.EACCES):
            as_user(ALICE, action)


@root
@pytest.mark.parametrize("name", [".", "memory.limit_in_bytes"])
def test_another_user_changes_no_attributes(shared_group: GroupFiles, name: str) -> None:
    path = shared_group / name
    before = os.stat(path)
    for action in (
        lambda: os.chmod(path, 0o777),
        lambda: os.chown(path, ALICE, ALICE),
        lambda: os.utime(path, (0, 0)),
    ):
        with fails_with(errno.EPERM):
            as_user(ALICE, action)
    after = os.stat(path)
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


# ---- delegation


@root
def test_stat_shows_the_owner_that_chown_sets(shared_group: GroupFiles) -> None:
    for name in (".", *FILES):
        path = shared_group / name
        os.chown(path, ALICE, -1)
        os.chown(path, -1, BOB)
        status = os.stat(path)
        assert (status.st_uid, status.st_gid) == (ALICE, BOB), name
    assert os.stat(shared_group.path.parent).st_uid == 0


@root
def test_the_owner_of_a_delegated_group_sets_its_limits_and_charges_it(shared_group: GroupFiles) -> None:
    delegate(shared_group, ALICE)
    as_user(ALICE, lambda: write(shared_group / "memory.limit_in_bytes", "4097"))
    as_user(ALICE, lambda: write(shared_group / "memory.charge", "4000"))
    with fails_with(errno.ENOMEM):
        as_user(ALICE, lambda: write(shared_group / "memory.charge", "98"))
    as_user(ALICE, lambda: write(shared_group / "memory.uncharge", "1"))
    assert (shared_group.limit, shared_group.usage) == (4097, 3999)
    with fails_with(errno.EACCES):
        as_user(BOB, lambda: write(shared_group / "memory.limit_in_bytes", "1M"))


@root
def test_the_owner_of_a_delegated_group_may_hold_a_lease_in_it(shared_group: GroupFiles) -> None:
    delegate(shared_group, ALICE)

    def hold() -> tuple[int, int]:
        with shared_group.lease() as lease:
            lease.write("100")
            return lease.held, shared_group.usage

    assert as_user(ALICE, hold) == [100, 100]


@root
def test_the_owner_of_a_delegated_group_owns_the_groups_made_in_it(shared_group: GroupFiles) -> None:
    delegate(shared_group, ALICE)
    child = shared_group.child("child")

    def work() -> None:
        os.mkdir(child.path)
        write(child / "memory.limit_in_bytes", "1000")
        os.chmod(child / "memory.limit_in_bytes", 0o600)
        os.rename(child.path, shared_group / "renamed")
        os.mkdir(child.path)
        os.rmdir(shared_group / "renamed")

    as_user(ALICE, work)
    for path in (child.path, *(child / name for name in FILES)):
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (ALICE, ALICE)
    for action in (lambda: os.rmdir(child.path), lambda: os.mkdir(child / "grandchild")):
        with fails_with(errno.EACCES):
            as_user(BOB, action)


@root
def test_a_delegated_group_is_bound_by_the_limits_above(shared_group: GroupFiles) -> None:
    child = shared_group.mkdir("child")
    shared_group.set_limit(1000)
    delegate(child, ALICE)
    as_user(ALICE, lambda: write(child / "memory.limit_in_bytes", "max"))
    with fails_with(errno.ENOMEM):
        as_user(ALICE, lambda: write(child / "memory.charge", "1001"))
    with fails_with(errno.EACCES):
        as_user(ALICE, lambda: write(shared_group / "memory.limit_in_bytes", "max"))
    with fails_with(errno.EACCES):
        as_user(ALICE, lambda: os.mkdir(shared_group / "sibling"))
    assert (child.limit, shared_group.limit, shared_group.failcnt) == (UNLIMITED, 1000, 1)


@root
def test_one_file_can_be_delegated_without_the_others(shared_group: GroupFiles) -> None:
    os.chown(shared_group / "memory.charge", ALICE, -1)
    as_user(ALICE, lambda: write(shared_group / "memory.charge", "10"))
    with fails_with(errno.EACCES):
        as_user(ALICE, lambda: write(shared_group / "memory.uncharge", "10"))
    assert shared_group.usage == 10


@root
def test_the_group_of_a_file_may_write_if_the_mode_says_so(shared_group: GroupFiles) -> None:
    path = shared_group / "memory.limit_in_bytes"
    os.chown(path, -1, BOB)
    os.chmod(path, 0o664)
    as_user(ALICE, lambda: write(path, "77"), gid=BOB)
    assert shared_group.limit == 77
    with fails_with(errno.EACCES):
        as_user(ALICE, lambda: write(path, "78"))


# ---- the daemon's death


def attributes(group: GroupFiles) -> dict[str, tuple[str, int, int, int]]:
    """Modes, owners and times of a group and all groups below."""
    found = {}
    for directory, _, names in os.walk(group.path):
        for path in [Path(directory), *(Path(directory, name) for name in names)]:
            status = os.stat(path)
            name = str(path.relative_to(group.path))
            found[name] = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
    return found


def end_by_kill(mount: Mount) -> None:
    mount.kill()
    with fails_with(errno.ENOTCONN):
        os.listdir(mount.path)


def end_by_umount(mount: Mount) -> None:
    mount.umount("--keep")
    assert os.listdir(mount.path) == []


@pytest.mark.parametrize("end", [end_by_kill, end_by_umount], ids=["kill -9", "umount --keep"])
def test_modes_and_times_survive_the_daemon(end: Callable[[Mount], None]) -> None:
    with mounted("--resource", "memory", "--resource", "tokens:count") as mount:
        child = mount.root.mkdir("group").mkdir("child")
        os.chmod(mount.path, 0o750)
        os.chmod(mount.root / "tokens.limit", 0o640)
        os.chmod(child.path, 0o700)
        os.chmod(child / "memory.charge", 0o220)
        os.utime(child / "memory.stat", (1, 2))
        before = attributes(mount.root)
        end(mount)
        mount.start()
        assert attributes(mount.root) == before
        os.rmdir(child.path)
        os.rmdir(mount.root / "group")


@root
@pytest.mark.parametrize("end", [end_by_kill, end_by_umount], ids=["kill -9", "umount --keep"])
def test_delegation_survives_the_daemon(end: Callable[[Mount], None]) -> None:
    with mounted("-o", "allow_other") as mount:
        group = mount.root.mkdir("group")
        delegate(group, ALICE)
        os.chmod(group / "memory.limit_in_bytes", 0o600)
        as_user(ALICE, lambda: os.mkdir(group / "child"))
        before = attributes(mount.root)
        end(mount)
        mount.start()
        assert attributes(mount.root) == before
        as_user(ALICE, lambda: write(group / "memory.limit_in_bytes", "5"))
        as_user(ALICE, lambda: os.rmdir(group / "child"))
        with fails_with(errno.EACCES):
            as_user(BOB, lambda: read(group / "memory.limit_in_bytes"))
        os.rmdir(group.path)

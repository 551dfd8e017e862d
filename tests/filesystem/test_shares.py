"""Shares: no user can use up groups, leases, cells, marks, waiters or open files, and root always has room."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmount
from fsmount.filesystem.shares import Shares
from fsmount.shm import SET_UID
from tests.mounts import GroupFiles, Lease, Mount, as_user, eventually, fails_with, mounted

root = pytest.mark.root

# User numbers without an account.
ALICE, BOB = 60_101, 60_102
GROUPS, CELLS = 64, 64
RESERVED = 16  # the divisor of the part that is for root and the owner alone


@contextlib.contextmanager
def shared_mount() -> Iterator[Mount]:
    """A mount with a small capacity in which every user may make groups."""
    resources = ("--resource", "memory", "--resource", "tokens:count")
    with mounted("-o", "allow_other", "--groups", str(GROUPS), "--cells", str(CELLS), *resources) as mount:
        mount.expected_log.append("the share of user [0-9]+ is used up")
        os.chmod(mount.path, 0o1777)
        yield mount


def remove_groups(mount: Mount) -> None:
    for group in mount.root.children():
        group.remove()


@pytest.fixture(scope="module")
def module_mount() -> Iterator[Mount]:
    with shared_mount() as mount:
        yield mount


@pytest.fixture
def mount(module_mount: Mount) -> Iterator[Mount]:
    """The module's mount, without groups before and after the test."""
    yield module_mount
    remove_groups(module_mount)
    module_mount.check()


def until_refused(action: Callable[[int], object], number: int = errno.ENOSPC) -> int:
    """The number of successes of the action before it is refused."""
    for done in range(10_000):
        try:
            action(done)
        except OSError as error:
            if error.errno != number:
                raise
            return done
    raise AssertionError("it is never refused")


def makes_groups(uid: int, directory: GroupFiles) -> int:
    return int(as_user(uid, lambda: until_refused(lambda n: os.mkdir(directory / f"{uid}-{n}"))))


def opens_leases(path: Path, text: bytes) -> int:
    """The number of leases that this process can open and write before it is refused; they stay open."""
    opened: list[int] = []

    def open_one(_: int) -> None:
        opened.append(os.open(path, os.O_RDWR))
        os.write(opened[-1], text)

    return until_refused(open_one)


def delegated(mount: Mount, uid: int, name: str = "delegated") -> GroupFiles:
    group = mount.root.mkdir(name)
    for path in [group.path, *(group / file for file in os.listdir(group.path))]:
        os.chown(path, uid, uid)
    return group


def fair(room: int, used: int) -> int:
    """The share of a user: as much as is left for users afterwards."""
    return (room - room // RESERVED - used) // 2


# ---- groups


@root
def test_each_user_gets_half_of_the_free_groups_and_root_any_number(mount: Mount) -> None:
    alice = makes_groups(ALICE, mount.root)
    assert alice == fair(GROUPS, 1)
    bob = makes_groups(BOB, mount.root)
    assert bob == fair(GROUPS, 1 + alice) > 0
    left = GROUPS - 1 - alice - bob
    assert until_refused(lambda n: mount.root.mkdir(f"{n}")) == left
    remove_groups(mount)
    assert makes_groups(BOB, mount.root) == alice


@root
def test_a_user_with_many_user_numbers_leaves_a_sixteenth_for_root(mount: Mount) -> None:
    for uid in range(70_000, 70_012):
        makes_groups(uid, mount.root)
    assert until_refused(lambda n: mount.root.mkdir(f"{n}")) >= GROUPS // RESERVED


@root
def test_groups_count_against_the_owner_of_the_topmost_group_for_any_maker() -> None:
    with shared_mount() as mount:
        owned = delegated(mount, ALICE)
        os.chmod(owned.path, 0o777)
        bob = makes_groups(BOB, owned)
        assert bob == fair(GROUPS, 1) - 1
        with fails_with(errno.ENOSPC):
            as_user(ALICE, lambda: os.mkdir(mount.path / "one more"))
        assert f"the share of user {ALICE} is used up: it has {bob + 1} groups" in mount.log.read_text()
        assert makes_groups(BOB, mount.root) == fair(GROUPS, 2 + bob)
        remove_groups(mount)


@root
def test_groups_that_root_makes_in_a_users_group_count_and_are_not_refused(mount: Mount) -> None:
    owned = delegated(mount, ALICE)
    for number in range(fair(GROUPS, 1) + 5):
        owned.mkdir(f"{number}")
    with fails_with(errno.ENOSPC):
        as_user(ALICE, lambda: os.mkdir(owned / "one more"))


def make_again(group: Path) -> None:
    group.rmdir()
    group.mkdir()


@root
def test_a_removed_group_returns_to_the_share_at_once(mount: Mount) -> None:
    made = makes_groups(ALICE, mount.root)
    for _ in range(3 * GROUPS):
        as_user(ALICE, lambda: make_again(mount.path / f"{ALICE}-0"))
    os.rmdir(mount.path / f"{ALICE}-1")
    os.rename(mount.path / f"{ALICE}-0", mount.path / "renamed")
    assert makes_groups(ALICE, mount.root.child("renamed")) == 1
    assert len(mount.root.children()) == made - 1


@root
def test_a_chown_moves_a_group_and_all_below_to_another_share(mount: Mount) -> None:
    owned = delegated(mount, ALICE)
    made = makes_groups(ALICE, owned)
    os.chown(owned.path, BOB, -1)
    with fails_with(errno.ENOSPC):
        as_user(BOB, lambda: os.mkdir(mount.path / "bob"))
    as_user(ALICE, lambda: os.mkdir(mount.path / "alice"))
    os.chown(owned.path, 0, -1)
    # the groups below belong to ALICE, and each is a topmost group now
    with fails_with(errno.ENOSPC):
        as_user(ALICE, lambda: until_refused(lambda n: os.mkdir(mount.path / f"a{n}"), errno.EEXIST))
    as_user(BOB, lambda: os.mkdir(mount.path / "bob"))
    assert made > 0


@root
def test_changes_by_root_in_the_region_count_before_a_user_is_refused(mount: Mount) -> None:
    with fsmount.Tree.open(str(mount.region)) as tree:
        owned = delegated(mount, ALICE)
        made = makes_groups(ALICE, owned)
        group = tree.root.child("delegated")
        for number in range(made):
            group.rmdir(f"{ALICE}-{number}")
        assert makes_groups(ALICE, owned) == made
        for number in range(made):
            group.rmdir(f"{ALICE}-{number}")
        group.set_attributes(0, SET_UID, uid=BOB)
        os.chmod(owned.path, 0o777)
        for number in range(made):
            group.mkdir_for(f"{number}", uid=ALICE)
        with fails_with(errno.ENOSPC):
            as_user(BOB, lambda: os.mkdir(owned / "one more"))
        as_user(ALICE, lambda: os.mkdir(mount.path / "alice"))
        group.set_attributes(0, SET_UID, uid=0)


@root
def test_a_daemon_that_takes_over_a_region_knows_the_owners_of_groups_and_leases() -> None:
    with shared_mount() as mount:
        mount.expected_log.append("the previous daemon died")
        owned = delegated(mount, ALICE)
        makes_groups(ALICE, owned)
        files = [owned.lease() for _ in range(fair(CELLS, 0) - 1)]
        for lease in files:
            lease.write("1")
        mount.kill()
        mount.start()
        with fails_with(errno.ENOSPC):
            as_user(ALICE, lambda: os.mkdir(owned / "one more"))

        # with the older leases, one uses up the share
        assert as_user(ALICE, lambda: opens_leases(owned / "memory.lease", b"1")) == 1
        for lease in files:
            with contextlib.suppress(OSError):
                lease.close()
        os.chown(owned.path, 0, 0)
        with fsmount.Tree.open(str(mount.region)) as tree:
            for holder in tree.holders():
                if holder.pid == os.getpid():
                    tree.end_holder(holder.id)
        remove_groups(mount)


# ---- leases, cells, marks and waiters


@root
def test_leases_and_their_cells_are_shared_and_return_after_a_kill(mount: Mount) -> None:
    owned = delegated(mount, ALICE)
    for _ in range(3):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.setresuid(ALICE, ALICE, ALICE)
            try:
                os.write(writer, b"%d" % opens_leases(owned / "lease", b"memory=1"))
                signal.pause()
            finally:
                os._exit(1)
        os.close(writer)
        taken = int(os.read(reader, 10) or b"-1")
        os.close(reader)
        # two cells each
        assert taken == fair(CELLS, 0) // 2
        with owned.lease() as lease:  # root opens it
            lease.write("1")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        eventually(owned.empty)


@root
def test_a_lease_in_a_group_of_root_counts_against_the_user_that_opens_it(mount: Mount) -> None:
    group = mount.root.mkdir("roots")
    os.chmod(group / "memory.lease", 0o666)

    def takes(uid: int) -> int:
        def take_all() -> int:
            opened = [group.lease() for _ in range(CELLS)]
            taken = until_refused(lambda n: opened[n].write("1"))
            opened[0].write("2")  # a lease with charges can still change them
            return taken

        return int(as_user(uid, take_all))

    for uid in (ALICE, BOB, ALICE):
        assert takes(uid) == fair(CELLS, 0)
        eventually(group.empty)
    assert re.search(f"the share of user {BOB} is used up: it has [0-9]+ leases", mount.log.read_text())


@root
def test_marks_are_shared_and_return_when_they_are_replaced_or_closed(mount: Mount) -> None:
    group = mount.root.mkdir("roots")
    os.chmod(group / "memory.threshold", 0o666)
    share = fair(CELLS, 0)

    def marks(number: int) -> bytes:
        return b"\n".join(b"above %d" % (n + 1) for n in range(number))

    def mark() -> None:
        fd = os.open(group / "memory.threshold", os.O_RDWR)
        for _ in range(3):
            os.write(fd, marks(share))
            with fails_with(errno.ENOSPC):
                os.write(fd, marks(share + 1))
            os.write(fd, marks(1))
        os.close(fd)

    for _ in range(3):
        as_user(ALICE, mark)
    fd = os.open(group / "memory.threshold", os.O_RDWR)
    os.write(fd, marks(CELLS))
    with fails_with(errno.ENOSPC):
        as_user(ALICE, lambda: os.write(os.open(group / "memory.threshold", os.O_RDWR), b"above 1"))
    os.close(fd)


@root
def test_waiting_requests_are_shared(mount: Mount) -> None:
    group = mount.root.mkdir("roots")
    for name in ("lease", "memory.lease"):
        os.chmod(group / name, 0o666)
    group.set_limit(10)
    group.charge(10)

    def wait() -> list[int]:
        counts = []
        for _ in range(3):
            opened = [group.lease() for _ in range(CELLS)]

            def ask(n: int, opened: list[Lease] = opened) -> None:
                with contextlib.suppress(BlockingIOError):
                    opened[n].write("wait 1")

            counts.append(until_refused(ask))
            poll = select.poll()
            poll.register(opened[0].fd, select.POLLOUT)
            assert poll.poll(0) == []
            opened[0].write("wait")
            with contextlib.suppress(BlockingIOError):
                opened[1].write("wait 2")
            for lease in opened:
                lease.close()
            eventually(lambda: group.stat()["holders"] == 0)
        return counts

    assert as_user(ALICE, wait) == [fair(CELLS, 0)] * 3
    group.uncharge(10)


# ---- open files


def test_open_files_of_the_mount_are_shared() -> None:
    with fsmount.Tree.create() as tree:
        shares = Shares(tree)
        capacity = shares.report()["open_files"].capacity
        alice = until_refused(lambda _: shares.open_file(ALICE), errno.ENFILE) if capacity < 10_000 else 0
        while not alice:
            for done in range(capacity):
                try:
                    shares.open_file(ALICE)
                except OSError as error:
                    assert error.errno == errno.ENFILE
                    assert str(ALICE) in str(error) and "open files" in str(error)
                    alice = done
                    break
        assert alice == fair(capacity, 0)
        for _ in range(capacity):
            shares.open_file(0)
        assert shares.report()["open_files"].used == alice + capacity
        with fails_with(errno.ENFILE):
            shares.open_file(BOB)
        for _ in range(capacity):
            shares.close_file(0)
        for _ in range(alice):
            shares.close_file(ALICE)
        shares.open_file(BOB)
        assert shares.report()["open_files"][1:] == (1, [(BOB, 1)])


@root
def test_open_files_and_directories_count_against_their_opener_until_the_last_close(mount: Mount) -> None:
    def held(mount: Mount) -> dict[int, int]:
        with (mount.path / ".fsmount.status").open() as status:
            largest = re.search(r'"open_files": {[^]]*"largest": \[(.*?)\]', status.read())
        assert largest is not None
        return {int(uid): int(used) for uid, used in re.findall(r'"uid": (\d+), "used": (\d+)', largest[1])}

    before = held(mount)
    assert before == {os.geteuid(): 1}  # the status itself
    reader, writer = os.pipe()
    go, finish = os.pipe()
    child = os.fork()
    if child == 0:
        os.setresuid(ALICE, ALICE, ALICE)
        opened = [os.open(mount.path / "memory.stat", os.O_RDONLY) for _ in range(10)]
        opened += [os.open(mount.path, os.O_RDONLY) for _ in range(5)]
        os.dup(opened[0])
        os.write(writer, b"x")
        os.close(finish)
        os.read(go, 1)
        os._exit(0)
    os.read(reader, 1)
    assert held(mount) == before | {ALICE: 15}
    os.close(finish)
    os.waitpid(child, 0)
    eventually(lambda: held(mount) == before)
    for descriptor in (reader, writer, go):
        os.close(descriptor)


@root
@pytest.mark.parametrize("uid", [ALICE, os.geteuid()], ids=["a user", "the owner"])
def test_a_removed_open_group_is_remembered_until_its_last_close(mount: Mount, uid: int) -> None:
    def remembered(mount: Mount) -> int:
        text = (mount.path / ".fsmount.status").read_text()
        found = re.search(r'"removed_groups": {"capacity": \d+, "used": (\d+)', text)
        assert found is not None
        return int(found[1])

    def remove() -> int:
        os.mkdir(mount.path / "group")
        fd = os.open(mount.path / "group", os.O_PATH)
        os.rmdir(mount.path / "group")
        used = remembered(mount)
        assert os.fstat(fd).st_uid == uid
        os.close(fd)
        return used

    assert as_user(uid, remove) == 1
    eventually(lambda: remembered(mount) == 0)

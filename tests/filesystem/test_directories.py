"""Directory operations: they make, remove and rename groups, and nothing but groups."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.mounts import GROUP_FILES, UNLIMITED, GroupFiles, Mount, fails_with, mounted, resource_files

pytestmark = pytest.mark.any_user

FILES = [*resource_files("memory", "bytes"), *resource_files("tokens", "count"), *GROUP_FILES]
# A hidden file, whose name is reserved all the same.
CHANNEL_FILE = ".fsmount"
NAMES = [
    "web",
    "a b",
    " ",
    ".hidden",
    "...",
    "-n",
    "*",
    "a\tb",
    "a\\b",
    "quote\"'",
    "\x01\x7f",
    "größe",
    "日本",
    "\udcff\udcfe",  # bytes that are no UTF-8
    "memory",
    "memory.",
    "memory.limit",
    "MEMORY.USAGE_IN_BYTES",
    "tokens.usage_in_bytes",
    "x" * 255,
    "é" * 127,
]


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


# ---- mkdir


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_mkdir_takes_any_name_without_a_newline(group: GroupFiles, name: str) -> None:
    child = group.mkdir(name)
    assert name in os.listdir(group.path)
    child.charge(1)
    assert (child.usage, child.limit, group.usage) == (1, UNLIMITED, 1)


@pytest.mark.parametrize("name", ["a\nb", "\n", "\na", "a\n"], ids=ascii)
def test_mkdir_of_a_name_with_a_newline_is_einval(group: GroupFiles, name: str) -> None:
    with fails_with(errno.EINVAL):
        os.mkdir(group / name)
    assert group.children() == []


@pytest.mark.parametrize("name", [*FILES, CHANNEL_FILE])
def test_mkdir_of_the_name_of_a_control_file_is_eexist(group: GroupFiles, name: str) -> None:
    with fails_with(errno.EEXIST):
        os.mkdir(group / name)
    assert group.children() == []


def test_mkdir_of_an_existing_group_is_eexist(group: GroupFiles) -> None:
    group.mkdir("child").charge(5)
    with fails_with(errno.EEXIST):
        os.mkdir(group / "child")
    assert group.child("child").usage == 5


def test_mkdir_below_a_missing_group_is_enoent(group: GroupFiles) -> None:
    with fails_with(errno.ENOENT):
        os.mkdir(group / "nowhere" / "child")


def test_mkdir_below_a_control_file_is_enotdir(group: GroupFiles) -> None:
    with fails_with(errno.ENOTDIR):
        os.mkdir(group / "memory.stat" / "child")


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("asked", "made"), [(0o777, 0o755), (0o700, 0o700), (0o755, 0o755), (0o770, 0o750)])
def test_mkdir_applies_the_umask_to_the_mode(group: GroupFiles, asked: int, made: int) -> None:
    status = os.stat(group.mkdir("child", asked).path)
    assert stat.S_ISDIR(status.st_mode)
    assert oct(stat.S_IMODE(status.st_mode)) == oct(made)


def test_groups_nest_16_deep_and_charges_count_at_every_level(mount: Mount, group: GroupFiles) -> None:
    deepest = group
    for level in range(16):
        deepest = deepest.mkdir(f"level{level}")
    deepest.charge(4097)
    above = deepest.path
    while above != mount.path:
        assert GroupFiles(above).usage == 4097
        above = above.parent
    assert mount.root.usage == 4097


def test_many_children_are_all_listed_once(group: GroupFiles) -> None:
    names = [f"child-{number}-{'x' * (number % 97)}" for number in range(1000)]
    for name in names:
        os.mkdir(group / name)
    assert sorted(os.listdir(group.path)) == sorted([*names, *FILES])
    assert os.stat(group.path).st_nlink == 2 + 1000


def test_a_listing_shows_groups_that_stay_while_others_come_and_go(group: GroupFiles) -> None:
    lasting = {f"lasting{number}" for number in range(300)}
    for name in lasting:
        os.mkdir(group / name)
    for number in range(100):
        os.mkdir(group / f"going{number}")
    with os.scandir(group.path) as entries:
        seen = [next(entries).name for _ in range(50)]
        for number in range(100):
            os.rmdir(group / f"going{number}")
            os.mkdir(group / f"new{number}")
        seen += [entry.name for entry in entries]
    assert lasting | set(FILES) <= set(seen)
    assert len(seen) == len(set(seen))


# ---- nlink


def test_nlink_of_a_directory_is_2_plus_the_number_of_children(group: GroupFiles) -> None:
    links = [os.stat(group.path).st_nlink]
    for change in (
        partial(os.mkdir, group / "a"),
        partial(os.mkdir, group / "b"),
        partial(os.mkdir, group / "a" / "c"),
        partial(os.rename, group / "b", group / "d"),
        partial(os.rmdir, group / "a" / "c"),
        partial(os.rmdir, group / "a"),
        partial(os.rmdir, group / "d"),
    ):
        change()
        links.append(os.stat(group.path).st_nlink)
    assert links == [2, 3, 4, 4, 4, 4, 3, 2]


# ---- rmdir


def test_rmdir_removes_an_unused_group_with_any_limits(group: GroupFiles) -> None:
    child = group.mkdir("child")
    child.charge(10)
    child.uncharge(10)
    child.set_limit(0)
    child.write("soft_limit", 5)
    os.rmdir(child.path)
    assert not child.path.exists()
    assert group.children() == []


def test_rmdir_with_children_is_ebusy(group: GroupFiles) -> None:
    child = group.mkdir("child").mkdir("grandchild")
    with fails_with(errno.EBUSY):
        os.rmdir(group / "child")
    os.rmdir(child.path)
    os.rmdir(group / "child")


def test_rmdir_with_usage_is_ebusy_and_changes_nothing(group: GroupFiles) -> None:
    child = group.mkdir("child")
    child.charge(1)
    before = group.tree_counters()
    with fails_with(errno.EBUSY):
        os.rmdir(child.path)
    assert group.tree_counters() == before
    child.uncharge(1)
    os.rmdir(child.path)


def test_rmdir_with_usage_of_another_resource_is_ebusy(group: GroupFiles) -> None:
    child = group.mkdir("child")
    child.charge(1, "tokens")
    with fails_with(errno.EBUSY):
        os.rmdir(child.path)
    child.uncharge(1, "tokens")
    os.rmdir(child.path)


def test_rmdir_of_the_mount_itself_is_ebusy(mount: Mount) -> None:
    with fails_with(errno.EBUSY):
        os.rmdir(mount.path)


def test_rmdir_of_a_missing_group_is_enoent(group: GroupFiles) -> None:
    with fails_with(errno.ENOENT):
        os.rmdir(group / "nowhere")


@pytest.mark.parametrize("name", FILES)
def test_rmdir_of_a_control_file_is_enotdir(group: GroupFiles, name: str) -> None:
    with fails_with(errno.ENOTDIR):
        os.rmdir(group / name)


def test_a_group_removed_and_made_again_starts_fresh(group: GroupFiles) -> None:
    child = group.mkdir("child")
    child.set_limit(10)
    with fails_with(errno.ENOMEM):
        child.charge(11)
    os.chmod(child.path, 0o700)
    os.chmod(child / "memory.limit_in_bytes", 0o600)
    os.rmdir(child.path)
    child = group.mkdir("child")
    assert (child.limit, child.failcnt, child.max_usage) == (UNLIMITED, 0, 0)
    assert stat.S_IMODE(os.stat(child / "memory.limit_in_bytes").st_mode) == 0o644


# ---- rename


def test_rename_leaves_limits_and_charges_untouched(group: GroupFiles) -> None:
    before = group.mkdir("before")
    below = before.mkdir("below")
    before.set_limit(1000)
    below.charge(300)
    with fails_with(errno.ENOMEM):
        below.charge(701)
    counters = before.tree_counters()
    os.rename(before.path, group / "after")
    after = group.child("after")
    assert not before.path.exists()
    assert after.tree_counters() == counters
    after.child("below").uncharge(300)
    assert group.usage == 0


def test_files_opened_before_a_rename_keep_working(group: GroupFiles) -> None:
    child = group.mkdir("before")
    with child.lease() as lease:
        lease.write("10")
        os.rename(child.path, group / "after")
        lease.write("+1")
        assert (lease.held, group.child("after").usage) == (11, 11)
        assert os.fstat(lease.fd).st_ino == os.stat(group / "after" / "memory.lease").st_ino


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_rename_takes_any_name_without_a_newline(group: GroupFiles, name: str) -> None:
    group.mkdir("child").charge(5)
    os.rename(group / "child", group / name)
    assert group.child(name).usage == 5
    assert [child.path.name for child in group.children()] == [name]


def test_rename_to_a_name_with_a_newline_is_einval(group: GroupFiles) -> None:
    group.mkdir("child")
    with fails_with(errno.EINVAL):
        os.rename(group / "child", group / "chi\nld")
    assert [child.path.name for child in group.children()] == ["child"]


def test_rename_to_its_own_name_changes_nothing(group: GroupFiles) -> None:
    group.mkdir("child").charge(5)
    os.rename(group / "child", group / "child")
    assert group.child("child").usage == 5


def test_rename_onto_another_group_is_eexist(group: GroupFiles) -> None:
    group.mkdir("one").charge(1)
    group.mkdir("two")
    with fails_with(errno.EEXIST):
        os.rename(group / "one", group / "two")
    assert (group.child("one").usage, group.child("two").usage) == (1, 0)


def test_rename_to_another_parent_is_eperm_and_changes_nothing(mount: Mount, group: GroupFiles) -> None:
    one, two = group.mkdir("one"), group.mkdir("two")
    one.mkdir("child").charge(5)
    before = group.tree_counters()
    for target in (two / "child", two / "other", group / "child", mount.path / "child"):
        with fails_with(errno.EPERM):
            os.rename(one / "child", target)
    assert group.tree_counters() == before


def test_rename_into_its_own_child_is_einval(group: GroupFiles) -> None:
    group.mkdir("one").mkdir("two")
    with fails_with(errno.EINVAL):
        os.rename(group / "one", group / "one" / "two" / "one")


@pytest.mark.parametrize("name", ["memory.limit_in_bytes", "tokens.stat", ".fsmount"])
def test_rename_of_or_onto_a_control_file_is_enotdir(group: GroupFiles, name: str) -> None:
    child = group.mkdir("child")
    for source, target in ((name, "new"), (name, "memory.failcnt"), ("child", name)):
        with fails_with(errno.ENOTDIR):
            os.rename(group / source, group / target)
    assert child.path.is_dir()
    assert not (group / "new").exists()


@pytest.mark.parametrize("name", ["memory.events", "tokens.events"])
def test_rename_to_the_name_of_a_control_file_is_refused(group: GroupFiles, name: str) -> None:
    group.mkdir("child")
    with fails_with(errno.EEXIST, errno.ENOTDIR):
        os.rename(group / "child", group / name)
    assert [child.path.name for child in group.children()] == ["child"]


def test_rename_of_a_missing_group_is_enoent(group: GroupFiles) -> None:
    with fails_with(errno.ENOENT):
        os.rename(group / "nowhere", group / "child")


# ---- other operations


NEW_NAMES = ["new", "memory.new", "memory.limit", ".new"]


@pytest.mark.parametrize("name", NEW_NAMES)
@pytest.mark.parametrize("flags", [0, os.O_EXCL, os.O_TRUNC, os.O_APPEND], ids=["", "O_EXCL", "O_TRUNC", "O_APPEND"])
def test_creating_a_file_is_eperm(group: GroupFiles, name: str, flags: int) -> None:
    with fails_with(errno.EPERM):
        os.open(group / name, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    assert not (group / name).exists()


@pytest.mark.parametrize("name", FILES)
def test_creating_an_existing_file_with_o_excl_is_eexist(group: GroupFiles, name: str) -> None:
    with fails_with(errno.EEXIST):
        os.open(group / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)


@pytest.mark.parametrize("name", FILES)
def test_unlink_of_a_control_file_is_eperm(group: GroupFiles, name: str) -> None:
    with fails_with(errno.EPERM):
        os.unlink(group / name)
    assert (group / name).exists()


def test_unlink_of_a_group_is_refused(group: GroupFiles) -> None:
    child = group.mkdir("child")
    with fails_with(errno.EISDIR, errno.EPERM):
        os.unlink(child.path)
    assert child.path.is_dir()


OPERATIONS: list[Callable[[GroupFiles], None]] = [
    lambda group: os.link(group / "memory.failcnt", group / "new"),
    lambda group: os.symlink("memory.failcnt", group / "new"),
    lambda group: os.mkfifo(group / "new"),
    lambda group: os.mknod(group / "new", stat.S_IFREG | 0o644),
    lambda group: os.mknod(group / "new", stat.S_IFSOCK | 0o644),
    lambda group: os.mknod(group / "new", stat.S_IFCHR | 0o644, os.makedev(1, 3)),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=["link", "symlink", "fifo", "file", "socket", "device"])
def test_link_symlink_and_mknod_are_eperm(group: GroupFiles, operation: Callable[[GroupFiles], None]) -> None:
    with fails_with(errno.EPERM):
        operation(group)
    assert not (group / "new").exists()


# ---- a full region


def test_mkdir_is_enospc_in_a_full_region_and_works_again_after_an_rmdir() -> None:
    with mounted("--groups", "10") as mount:
        made = []
        with fails_with(errno.ENOSPC):
            for number in range(11):
                made.append(mount.root.mkdir(f"group{number}"))
        assert 9 <= len(made) <= 10
        made[0].charge(5)
        assert mount.root.usage == 5
        with fails_with(errno.ENOSPC):
            made[0].mkdir("child")
        for _ in range(3):
            os.rmdir(made.pop().path)
            made.append(made[0].mkdir("again"))
            with fails_with(errno.ENOSPC):
                made[0].mkdir("more")
        made[0].uncharge(5)
        for group in reversed(made):
            os.rmdir(group.path)

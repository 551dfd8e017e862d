"""Rights: those of the directories and files for the transport "files", those of the region for "memory"."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest

import fsmount
from tests.mounts import GroupFiles, Mount, as_user, mounted

ALICE = 12345


@pytest.fixture(scope="module")
def shared() -> Iterator[Mount]:
    with mounted("-o", "allow_other", "--resource", "memory", "--resource", "tokens:count") as mount:
        yield mount


@pytest.fixture
def hers(shared: Mount) -> Iterator[GroupFiles]:
    """A group that belongs to Alice, with one group of hers and one of root."""
    group = shared.root.mkdir("hers")
    give_to_alice(group)
    give_to_alice(group.mkdir("own"))
    group.mkdir("roots").set_limit(100)
    yield group
    group.remove()
    shared.check()


def give_to_alice(group: GroupFiles) -> None:
    os.chown(group.path, ALICE, ALICE)
    os.chmod(group.path, 0o755)
    for entry in os.scandir(group.path):
        if entry.is_file() and not entry.name.startswith(".fsmount"):
            os.chown(entry.path, ALICE, ALICE)


def by_alice(group: GroupFiles, action: Callable[[fsmount.Group], object]) -> object:
    """The result of an action on the group, attached by Alice; an error as its errno and path below the group."""

    def act() -> object:
        with fsmount.attach(group.path) as attached:
            assert isinstance(attached, fsmount.Group)
            try:
                return action(attached)
            except OSError as error:
                assert isinstance(error, PermissionError) or error.errno not in (errno.EACCES, errno.EPERM)
                return [errno.errorcode[error.errno or 0], os.path.relpath(str(error.filename), group.path)]

    return as_user(ALICE, act)


@pytest.mark.root
def test_a_user_makes_renames_and_removes_groups_in_a_group_of_her_own(hers: GroupFiles) -> None:
    def use(group: fsmount.Group) -> list[object]:
        made = group.mkdir("made", 0o750)
        status = os.stat(made.path)
        group.rename("made", "named")
        with made.attach() as holder:
            holder.charge(memory=3, tokens=1)
            usage = group["memory"].usage
        made["memory"].limit = 5
        made["memory"].charge_common(2)
        made["memory"].force_empty()
        group.rmdir("named")
        names = sorted(child.name for child in group.children())
        return [oct(status.st_mode), status.st_uid, status.st_gid, usage, made.exists, names]

    assert by_alice(hers, use) == ["0o40750", ALICE, ALICE, 3, False, ["own", "roots"]]


@pytest.mark.root
@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda roots: roots.mkdir("new"), ["EACCES", "roots/new"]),
        (lambda roots: roots.rename("below", "new"), ["EACCES", "roots/below"]),
        (lambda roots: roots.rmdir("below"), ["EACCES", "roots/below"]),
        (lambda roots: roots.attach(), ["EACCES", "roots/lease"]),
        (lambda roots: roots.charge(memory=1), ["EACCES", "roots/memory.lease"]),
        (lambda roots: roots.charge(memory=1, tokens=1), ["EACCES", "roots/lease"]),
        (lambda roots: roots["memory"].charge(1), ["EACCES", "roots/memory.lease"]),
        (lambda roots: roots["memory"].charge_common(1), ["EACCES", "roots/memory.charge"]),
        (lambda roots: roots["memory"].uncharge_common(1), ["EACCES", "roots/memory.uncharge"]),
        (lambda roots: roots["memory"].force_empty(), ["EACCES", "roots/memory.force_empty"]),
        (lambda roots: setattr(roots["memory"], "limit", 3), ["EACCES", "roots/memory.limit_in_bytes"]),
        (lambda roots: setattr(roots["memory"], "soft_limit", 3), ["EACCES", "roots/memory.soft_limit_in_bytes"]),
        (lambda roots: roots["memory"].reset_failcnt(), ["EACCES", "roots/memory.failcnt"]),
        (lambda roots: roots["memory"].reset_max_usage(), ["EACCES", "roots/memory.max_usage_in_bytes"]),
        # everybody may read
        (lambda roots: [roots["memory"].limit, roots["memory"].usage, roots.exists], [100, 0, True]),
        (lambda roots: [child.name for child in roots.children()], ["below"]),
        (lambda roots: roots.child("below").name, "below"),
        (lambda roots: roots["memory"].probe(101).fits, False),
    ],
)  # fmt: skip
def test_a_user_reads_and_cannot_change_a_group_of_another(
    hers: GroupFiles, action: Callable[[fsmount.Group], object], expected: object
) -> None:
    hers.child("roots").mkdir("below")
    before = hers.child("roots").tree_counters()
    assert by_alice(hers, lambda group: action(group.child("roots"))) == expected
    assert hers.child("roots").tree_counters() == before


@pytest.mark.root
def test_a_group_of_another_that_the_owner_of_the_parent_may_remove_is_removed(hers: GroupFiles) -> None:
    def remove(group: fsmount.Group) -> list[str]:
        group.rename("roots", "mine")
        group.rmdir("mine")
        return [child.name for child in group.children()]

    assert by_alice(hers, remove) == ["own"]


@pytest.mark.root
def test_a_busy_group_whose_files_are_closed_is_in_use(hers: GroupFiles) -> None:
    roots = hers.child("roots")
    roots.charge(3)
    os.chmod(roots / "memory.usage_in_bytes", 0)
    assert by_alice(hers, lambda group: group.rmdir("roots")) == ["EBUSY", "roots"]
    os.chmod(roots.path, 0o700)
    assert by_alice(hers, lambda group: group.rmdir("roots")) == ["EBUSY", "roots"]
    assert by_alice(hers, lambda group: group.child("roots").path.endswith("roots")) is True
    assert by_alice(hers, lambda group: [child.name for child in group.children()]) == ["own", "roots"]


@pytest.mark.root
def test_a_closed_directory_hides_its_groups(hers: GroupFiles) -> None:
    roots = hers.child("roots")
    roots.mkdir("below")
    os.chmod(roots.path, 0o700)
    assert by_alice(hers, lambda group: group.child("roots").children()) == ["EACCES", "roots"]
    assert by_alice(hers, lambda group: group.child("roots").child("below")) == ["EACCES", "roots/below"]
    assert by_alice(hers, lambda group: group.child("roots")["memory"].usage) == [
        "EACCES",
        "roots/memory.usage_in_bytes",
    ]
    assert by_alice(hers, lambda group: repr(group.child("roots"))) == f"<Group {roots.path}: Permission denied>"
    os.chmod(roots.path, 0o711)
    assert by_alice(hers, lambda group: group.child("roots").child("below").name) == "below"


@pytest.mark.root
def test_the_region_is_for_root_and_the_owner_of_the_mount_alone(hers: GroupFiles) -> None:
    with pytest.raises(OSError, match='transport "files" works without') as refused:
        as_user(ALICE, lambda: bool(fsmount.attach(hers.path, transport="memory")))
    assert refused.value.errno == errno.EACCES


@pytest.mark.user
def test_the_modes_of_directories_bind_the_files_and_not_the_region(group: GroupFiles) -> None:
    group.mkdir("child")
    os.chmod(group.path, 0o500)
    try:
        with fsmount.attach(group.path, transport="files") as files:
            for action in (
                lambda: files.mkdir("new"),
                lambda: files.rename("child", "new"),
                lambda: files.rmdir("child"),
            ):
                with pytest.raises(PermissionError) as refused:
                    action()
                assert (refused.value.errno, os.path.dirname(refused.value.filename)) == (errno.EACCES, str(group.path))
            assert [child.name for child in files.children()] == ["child"]
        with fsmount.attach(group.path, transport="memory") as memory:
            memory.mkdir("new")
            memory.rmdir("new")
            memory.rename("child", "renamed")
            memory.rmdir("renamed")
    finally:
        os.chmod(group.path, 0o755)


@pytest.mark.any_user
@pytest.mark.parametrize("umask", [0o000, 0o027, 0o777])
@pytest.mark.parametrize("mode", [0o755, 0o2750])
def test_a_new_group_belongs_to_its_maker_and_has_the_mode_whatever_the_umask(
    attached: fsmount.Group, mode: int, umask: int
) -> None:
    before = os.umask(umask)
    try:
        made = attached.mkdir("made", mode)
    finally:
        os.umask(before)
    status = os.stat(made.path)
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, os.geteuid(), os.getegid())
    attached.rmdir("made")


@pytest.mark.any_user
def test_a_set_group_id_group_passes_on_its_group_and_the_bit(attached: fsmount.Group) -> None:
    os.chmod(attached.path, 0o2750)
    made = attached.mkdir("made", 0o700)
    assert (os.stat(made.path).st_mode & 0o7777, os.stat(made.path).st_gid) == (0o2700, os.stat(attached.path).st_gid)
    attached.rmdir("made")

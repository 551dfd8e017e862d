"""Groups: their names, children, renames and removal."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fsmount
from fsmount import Tree
from fsmount.shm import MODE_UNSET, SET_MODE, SET_UID, SLOTS, Counter, Group


def test_the_root_has_no_name_and_no_parent(tree: Tree) -> None:
    assert (tree.root.name, tree.root.path, tree.root.parent) == ("", "/", None)
    assert tree.root.resources == ("memory", "tokens")


def test_a_group_knows_its_name_its_path_and_its_parent(tree: Tree, group: Group) -> None:
    assert (group.name, group.path) == ("api", "/web/api")
    assert group.parent == tree.root.child("web")
    assert group == tree.group(group.id)
    assert group.exists
    assert hash(group) == hash(tree.group(group.id))
    assert group != tree.root


def test_children_come_oldest_first(tree: Tree) -> None:
    names = [f"group-{n}" for n in (3, 1, 2)]
    for name in names:
        tree.root.mkdir(name)
    assert [child.name for child in tree.root.children()] == names
    assert [child.path for child in tree.root.children()] == ["/" + name for name in names]
    assert tree.root.child_count == 3


def test_a_thousand_children_are_listed(tree: Tree) -> None:
    made = {tree.root.mkdir(f"{n}").id for n in range(1000)}
    assert {child.id for child in tree.root.children()} == made


def test_mkdir_returns_the_group_and_child_finds_it(tree: Tree) -> None:
    made = tree.root.mkdir("web")
    assert made == tree.root.child("web") == tree.root.child(b"web")
    with pytest.raises(FileNotFoundError) as caught:
        tree.root.child("api")
    assert caught.value.filename == "/api"


def test_mkdir_of_an_existing_group_is_eexist(tree: Tree) -> None:
    tree.root.mkdir("web")
    with pytest.raises(FileExistsError) as caught:
        tree.root.mkdir("web")
    assert caught.value.filename == "/web"


@pytest.mark.parametrize(
    "name", ["memory.usage_in_bytes", "tokens.usage", "memory.lease", "tokens.holders", "lease", ".fsmount"]
)
def test_the_name_of_a_control_file_is_eexist(tree: Tree, name: str) -> None:
    with pytest.raises(FileExistsError):
        tree.root.mkdir(name)
    tree.root.mkdir("web")
    with pytest.raises(FileExistsError):
        tree.root.rename("web", name)


def test_the_name_of_a_file_of_the_root_is_eexist_only_in_the_root(tree: Tree) -> None:
    with pytest.raises(FileExistsError):
        tree.root.mkdir("metrics")
    web = tree.root.mkdir("web")
    with pytest.raises(FileExistsError):
        tree.root.rename("web", "metrics")
    assert web.mkdir("metrics").name == "metrics"


def test_names_of_other_units_and_resources_are_free(tree: Tree) -> None:
    for name in ("memory.usage", "tokens.usage_in_bytes", "swap.usage", "memory", ".hidden", "a b", "a.b"):
        assert tree.root.mkdir(name).name == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "\n", "a\0b", "x" * 256])
def test_an_invalid_name_is_refused(tree: Tree, name: str) -> None:
    expected = errno.EINVAL if len(name) < 256 else errno.ENAMETOOLONG
    with pytest.raises(OSError, match="a group's name") as caught:
        tree.root.mkdir(name)
    assert caught.value.errno == expected
    tree.root.mkdir("web")
    with pytest.raises(OSError) as caught:
        tree.root.rename("web", name)
    assert caught.value.errno == expected


def test_a_name_is_any_other_bytes(tree: Tree) -> None:
    for raw in (b"x" * 255, b"\xff\xfe", "käse".encode(), b"\x01", b"-rf"):
        child = tree.root.mkdir(raw)
        assert os.fsencode(child.name) == raw
        assert tree.root.child(raw) == child
        assert tree.root.child(os.fsdecode(raw)) == child


def test_rmdir_removes_an_unused_group(tree: Tree) -> None:
    tree.root.mkdir("web")
    tree.root.rmdir("web")
    assert tree.root.children() == []
    with pytest.raises(FileNotFoundError):
        tree.root.rmdir("web")


def busy(group: Group) -> str:
    with pytest.raises(OSError) as caught:
        group.remove()
    assert caught.value.errno == errno.EBUSY
    assert caught.value.filename == group.path
    return str(caught.value)


def test_rmdir_is_ebusy_with_children_usage_or_holders_and_says_which(tree: Tree, group: Group) -> None:
    assert "root" in busy(tree.root)
    assert "1 groups" in busy(tree.root.child("web"))
    group["memory"].charge_common(5)
    assert "5 of memory" in busy(group)
    group["memory"].uncharge_common(5)
    with group.attach():
        assert str(os.getpid()) in busy(group)
    group.remove()


def test_rmdir_drains_stock_first(tree: Tree, group: Group) -> None:
    with group.attach() as attached:
        attached["memory"].charge(5)
        attached["memory"].uncharge(5)
        assert group["memory"].stat()["stock"] > 0
    group.remove()
    assert tree.root["memory"].stat()["reserved"] == 0


def test_rename_keeps_the_group_and_its_charges(tree: Tree, group: Group) -> None:
    counter = group["memory"]
    counter.charge(5)
    tree.root.rename("web", "www")
    assert group.path == "/www/api"
    assert (counter.usage, counter.held, tree.root.child("www")["memory"].usage) == (5, 5, 5)
    counter.charge(1)
    with pytest.raises(FileNotFoundError):
        tree.root.child("web")


def test_rename_to_a_taken_name_is_eexist(tree: Tree) -> None:
    tree.root.mkdir("a")
    tree.root.mkdir("b")
    with pytest.raises(FileExistsError):
        tree.root.rename("a", "b")
    with pytest.raises(FileNotFoundError):
        tree.root.rename("c", "d")
    tree.root.rename("a", "a")


def test_a_removed_group_is_group_removed_with_its_last_path(tree: Tree, group: Group, memory: Counter) -> None:
    group.remove()
    assert not group.exists
    uses: list[Callable[[], object]] = [
        lambda: group.path, lambda: group.name, lambda: group.parent, group.children, lambda: group.mkdir("x"),
        lambda: group.child("x"), group.attach, group.remove, lambda: memory.usage, lambda: memory.limit, memory.stat,
        lambda: memory.charge(1), lambda: memory.try_charge(1), lambda: memory.charge_nofail(1),
        lambda: memory.charge_common(1), memory.reset_failcnt, memory.holders, lambda: group.attributes(0),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(fsmount.GroupRemoved) as caught:
            use()
        assert caught.value.errno == errno.ENODEV
        assert caught.value.group == "/web/api"
    with pytest.raises(fsmount.GroupRemoved):
        memory.limit = 5


def test_a_new_group_of_the_same_name_is_another(tree: Tree) -> None:
    old = tree.root.mkdir("web")
    old.remove()
    new = tree.root.mkdir("web")
    assert new != old and new.id != old.id
    new["memory"].charge(5)
    with pytest.raises(fsmount.GroupRemoved):
        old["memory"].usage  # noqa: B018


def test_a_tree_can_be_deep(tree: Tree) -> None:
    group = tree.root
    for n in range(200):
        group = group.mkdir(f"{n}")
    group["memory"].charge(1)
    assert tree.root["memory"].usage == 1
    assert group.path == "/" + "/".join(map(str, range(200)))


def test_a_group_belongs_to_its_maker(tree: Tree) -> None:
    made = tree.root.mkdir("web", 0o750).attributes(0)
    assert (made.mode, made.uid, made.gid) == (0o750, os.geteuid(), os.getegid())
    told = tree.root.mkdir_for("api", uid=1000, gid=1001)
    assert told.attributes(0)[:3] == (0o755, 1000, 1001)
    file = told.attributes(1)
    assert (file.mode, file.uid, file.gid) == (MODE_UNSET, 1000, 1001)
    assert file.mtime == told.attributes(0).mtime


def test_attributes_are_set_one_by_one(group: Group) -> None:
    before = group.attributes(1 + SLOTS)
    group.set_attributes(1 + SLOTS, SET_MODE | SET_UID, mode=0o600, uid=77)
    after = group.attributes(1 + SLOTS)
    assert (after.mode, after.uid, after.gid, after.mtime) == (0o600, 77, before.gid, before.mtime)
    assert group.attributes(1).mode == MODE_UNSET


def test_each_file_has_attributes_of_its_own(group: Group) -> None:
    slots = range(1, 1 + len(group.resources) * SLOTS)
    for slot in slots:
        group.set_attributes(slot, SET_UID, uid=1000 + slot)
    assert [group.attributes(slot).uid for slot in slots] == [1000 + slot for slot in slots]
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        group.attributes(slots.stop)


def test_kinds_that_nobody_changes_take_no_memory(region_path: Path) -> None:
    with Tree.create(region_path, resources=["memory"]) as tree:
        groups = [tree.root.mkdir(str(number)) for number in range(100)]
        before = region_path.stat().st_blocks * 512
        for group in groups:
            group.set_attributes(1, SET_MODE, mode=0o600)
        taken = region_path.stat().st_blocks * 512 - before
    assert taken < len(groups) * 1024, "16 kinds of 64 take 640 bytes"


def test_a_full_region_is_enospc(region_path: Path) -> None:
    with Tree.create(region_path, groups=3, holders=1, cells=1, resources=["memory"]) as tree:
        tree.root.mkdir("a")
        tree.root.mkdir("b")
        with pytest.raises(OSError, match="no room for another group") as caught:
            tree.root.mkdir("c")
        assert caught.value.errno == errno.ENOSPC
        attached = tree.root.child("a").attach()
        with pytest.raises(OSError, match="no room for another holder") as caught:
            tree.root.child("b").attach()
        assert caught.value.errno == errno.ENOSPC
        attached["memory"].charge(1)

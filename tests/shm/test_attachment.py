"""Attaching: when a process is a holder, and the fate of its charges."""

from __future__ import annotations

import errno
import gc
import os

import pytest

import fsmount
from fsmount import Tree
from fsmount.shm import PROCESS, Counter, Group


def test_an_attached_process_is_a_holder_until_it_detaches(tree: Tree, group: Group) -> None:
    with group.attach() as attached:
        (holder,) = attached["memory"].all_holders()
        assert (holder.pid, holder.kind, holder.held, holder.keep) == (os.getpid(), PROCESS, 0, False)
        assert holder.start_time == fsmount.engine.process_start_time(os.getpid())
        with open("/proc/self/comm") as comm:
            assert holder.command == comm.read().strip()
        assert [h.id for h in tree.holders()] == [holder.id]
        assert tree.holder(holder.id) is not None
    assert group["memory"].all_holders() == tree.holders() == []
    assert tree.holder(holder.id) is None


def test_charges_are_released_at_the_end(tree: Tree, group: Group) -> None:
    with group.attach() as attached:
        attached["memory"].charge(100)
        attached["memory"].give(30)
    assert group["memory"].usage == tree.root["memory"].usage == 30


def test_charges_stay_with_the_group_with_keep(tree: Tree, group: Group) -> None:
    with group.attach(on_exit="keep") as attached:
        attached["memory"].charge(100)
        attached["tokens"].charge(7)
        assert [holder.keep for holder in tree.holders()] == [True]
    assert (group["memory"].usage, group["memory"].stat()["common"], group["tokens"].usage) == (100, 100, 7)
    assert tree.holders() == []
    with group.attach() as attached:
        attached["memory"].take(100)
    assert group["memory"].usage == 0


def test_any_other_on_exit_is_a_value_error(group: Group) -> None:
    with pytest.raises(ValueError, match="forget"):
        group.attach(on_exit="forget")  # type: ignore[arg-type]


def test_attachments_of_a_process_share_one_holder(tree: Tree, group: Group) -> None:
    with group.attach() as first:
        first["memory"].charge(5)
        with group.attach() as second, tree.root.attach() as root:
            assert len(tree.holders()) == 1
            assert second["memory"].held == 5
            second["memory"].uncharge(2)
            root["memory"].charge(1)
        assert (first["memory"].held, first["memory"].usage, tree.root["memory"].usage) == (3, 3, 3)
    assert group["memory"].usage == 0


def test_release_and_keep_do_not_mix(tree: Tree, group: Group) -> None:
    with group.attach() as release, group.attach(on_exit="keep") as keep:
        release["memory"].charge(10)
        keep["memory"].charge(5)
        assert (release["memory"].held, keep["memory"].held, group["memory"].usage) == (10, 5, 15)
        assert sorted(holder.keep for holder in tree.holders()) == [False, True]
        with pytest.raises(fsmount.NotHeld):
            keep["memory"].uncharge(6)
    assert (group["memory"].usage, group["memory"].stat()["common"]) == (5, 5)


def test_a_closed_attachment_can_be_read_but_not_charged(group: Group) -> None:
    attached = group.attach()
    attached["memory"].charge(5)
    attached.close()
    attached.close()
    assert attached.closed
    assert (attached["memory"].usage, attached["memory"].held, attached.path) == (0, 0, "/web/api")
    for operation in ("charge", "try_charge", "charge_nofail", "uncharge", "give", "take"):
        with pytest.raises(ValueError, match="/web/api was closed"):
            getattr(attached["memory"], operation)(1)
    with pytest.raises(ValueError, match="was closed"), attached["memory"].hold(1):
        pass
    with group.attach() as again:
        again["memory"].charge(5)


def test_a_closed_attachment_is_not_charged_through_another_one(group: Group) -> None:
    with group.attach() as other, group.attach() as attached:
        memory = attached["memory"]
        memory.charge(5)
        attached.close()
        for _ in range(2):  # also after it was asked what it holds
            with pytest.raises(ValueError, match="/web/api was closed"):
                memory.charge(1)
            assert (memory.held, other["memory"].held) == (0, 5)


def test_the_first_charge_attaches(tree: Tree, memory: Counter) -> None:
    assert (memory.held, tree.holders()) == (0, [])
    memory.charge(5)
    assert (memory.held, len(tree.holders())) == (5, 1)


def test_charges_outlive_the_python_objects(tree: Tree, group: Group) -> None:
    group.attach()["memory"].charge(5)
    tree.group(group.id)["memory"].charge(6)
    gc.collect()
    assert group["memory"].usage == 11
    assert tree.group(group.id)["memory"].held == 11
    tree.group(group.id)["memory"].uncharge(11)
    assert group["memory"].usage == 0


def test_close_ends_an_implicit_attachment(tree: Tree, group: Group) -> None:
    group["memory"].charge(5)
    with tree.group(group.id) as other:
        assert other["memory"].usage == 5
    assert group["memory"].usage == 5  # the other was never charged
    group.close()
    assert tree.group(group.id)["memory"].usage == 0
    assert tree.holders() == []


def test_two_implicit_attachments_end_together_and_can_begin_again(tree: Tree, group: Group) -> None:
    other = tree.group(group.id)
    group["memory"].charge(5)
    other["memory"].charge(6)
    group.close()
    assert (other["memory"].usage, other["memory"].held) == (0, 0)
    other["memory"].charge(7)
    assert other["memory"].held == 7


def test_reading_held_does_not_attach(tree: Tree, memory: Counter) -> None:
    assert memory.held == 0
    assert tree.holders() == []


def test_closing_the_tree_releases_the_charges_of_this_process(region_path: str) -> None:
    with fsmount.Tree.create(region_path) as outside:
        tree = fsmount.Tree.open(region_path)
        tree.root["memory"].charge(5)
        tree.root.attach(on_exit="keep")["memory"].charge(6)
        assert (outside.root["memory"].usage, len(outside.holders())) == (11, 2)
        tree.close()
        assert (outside.root["memory"].usage, len(outside.holders())) == (6, 0)


def test_a_holder_ended_by_another_process_is_noticed(tree: Tree, memory: Counter) -> None:
    memory.limit = 10
    memory.charge(5)
    tree.end_holder(tree.holders()[0].id)
    tree.end_holder(12345 << 32)
    assert memory.usage == 0
    with pytest.raises(fsmount.TreeGone, match="another process ended") as caught:
        memory.uncharge(5)
    assert caught.value.errno == errno.ENOTCONN
    memory.charge(10)
    assert (memory.held, memory.usage, len(tree.holders())) == (10, 10, 1)


def test_a_holder_that_could_not_join_a_full_tree_is_freed() -> None:
    with fsmount.Tree.create(cells=1) as tree:
        tree.root.mkdir("a")
        kept = tree.root.attach()
        with pytest.raises(OSError) as caught:
            tree.root.child("a").attach(on_exit="keep")
        assert caught.value.errno == errno.ENOSPC
        assert len(tree.holders()) == 1
        kept.close()

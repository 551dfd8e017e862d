"""The use of each pool, and the user that each group counts against."""

from __future__ import annotations

import pytest

import fsmount
from fsmount import Tree
from fsmount.protocol.thresholds import parse_marks
from fsmount.shm import SET_UID

OWNER, ALICE, BOB = 60_100, 60_101, 60_102


def used(tree: Tree) -> list[int]:
    return [used for _, used in tree.region.use()]


def test_each_pool_has_the_requested_capacity() -> None:
    with Tree.create(groups=10, holders=20, cells=30) as tree:
        assert [room for room, _ in tree.region.use()] == [10, 20, 30, 30, 30, 30]


def test_objects_use_their_pool_until_they_are_removed() -> None:
    with Tree.create(resources=["memory", "tokens:count"]) as tree:
        assert used(tree) == [1, 0, 0, 0, 0, 0]
        one, two = tree.root.mkdir("one"), tree.root.mkdir("two")
        with two.attach():
            assert used(tree) == [3, 1, 0, 2, 0, 0]
        lease = tree.lease(two, ("memory",), 1, 1)
        two["memory"].limit = 5
        lease.change({"memory": 5})
        lease.ask({"memory": 3})
        watches = two["memory"].watch(parse_marks(b"above 1\nbelow 2"), [])
        assert used(tree) == [3, 0, 1, 1, 2, 1]
        assert tree.repair() == []
        assert used(tree) == [3, 0, 1, 1, 2, 1]
        two["memory"].unwatch(watches)
        lease.close()
        one.remove()
        two.remove()
        assert used(tree) == [1, 0, 0, 0, 0, 0]
        assert tree.check() == []


@pytest.mark.parametrize("below_others", [False, True])
def test_a_group_counts_against_the_owner_of_the_topmost_group_of_no_exempt_user(below_others: bool) -> None:
    with Tree.create() as tree:
        top = tree.root
        top.set_attributes(0, SET_UID, uid=OWNER)
        if below_others:
            top = top.mkdir_for("roots", uid=0).mkdir_for("owners", uid=OWNER)
        alice = top.mkdir_for("alice", uid=ALICE)
        alice.mkdir_for("bob", uid=BOB).mkdir_for("root", uid=0).mkdir_for("owner", uid=OWNER)
        top.mkdir_for("bob", uid=BOB).mkdir_for("alice", uid=ALICE)
        counts = {OWNER: 1, ALICE: 4, BOB: 2}
        if below_others:
            counts |= {0: 1, OWNER: 2}
        assert tree.region.count_groups(0, OWNER) == counts


def test_a_group_in_the_place_of_a_removed_one_counts_once() -> None:
    """Then a parent may follow its children in memory."""
    with Tree.create() as tree:
        first = tree.root.mkdir_for("first", uid=ALICE)
        second = tree.root.mkdir_for("second", uid=BOB)
        first.remove()
        inner = second.mkdir_for("inner", uid=0)
        for number in range(500):
            inner = inner.mkdir_for(f"{number}", uid=0)
        assert tree.region.count_groups(0, 0) == {0: 1, BOB: 502}


def test_a_holder_is_listed_with_one_of_its_groups() -> None:
    with Tree.create() as tree:
        group = tree.root.mkdir("group").mkdir("inner")
        lease = tree.lease(group, ("memory",), 1, 1)
        lease.change({"memory": 1})
        assert [info.group for info in tree.region.all_holders()] == [group.id]
        lease.close()
        with tree.root.attach():
            assert [info.group for info in tree.region.all_holders()] == [fsmount.shm.ROOT]

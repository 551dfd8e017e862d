"""How much of what can be used up is used, and against which user the groups count."""

from __future__ import annotations

import pytest

import fsmount
from fsmount import Tree
from fsmount.protocol.thresholds import parse_marks
from fsmount.shm import SET_UID

OWNER, ALICE, BOB = 60_100, 60_101, 60_102


def used(tree: Tree) -> list[int]:
    return [used for _, used in tree.region.use()]


def test_each_pool_has_room_for_as_many_as_were_asked_for() -> None:
    with Tree.create(groups=10, holders=20, cells=30) as tree:
        assert [room for room, _ in tree.region.use()] == [10, 20, 30, 30, 30, 30]


def test_what_is_made_is_used_and_what_is_removed_is_free_again() -> None:
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
def test_a_group_counts_against_the_owner_of_the_topmost_that_is_no_exempt_users(below_others: bool) -> None:
    with Tree.create() as tree:
        top = tree.root
        top.set_attributes(0, SET_UID, uid=OWNER)
        if below_others:
            top = top.mkdir("roots", uid=0).mkdir("owners", uid=OWNER)
        alice = top.mkdir("alice", uid=ALICE)
        alice.mkdir("bob", uid=BOB).mkdir("root", uid=0).mkdir("owner", uid=OWNER)
        top.mkdir("bob", uid=BOB).mkdir("alice", uid=ALICE)
        counts = {OWNER: 1, ALICE: 4, BOB: 2}
        if below_others:
            counts |= {0: 1, OWNER: 2}
        assert tree.region.count_groups(0, OWNER) == counts


def test_a_group_that_came_into_the_place_of_a_removed_one_counts_once() -> None:
    """A parent may lie behind its children in memory then."""
    with Tree.create() as tree:
        first = tree.root.mkdir("first", uid=ALICE)
        second = tree.root.mkdir("second", uid=BOB)
        first.remove()
        inner = second.mkdir("inner", uid=0)
        for number in range(500):
            inner = inner.mkdir(f"{number}", uid=0)
        assert tree.region.count_groups(0, 0) == {0: 1, BOB: 502}


def test_holders_are_listed_with_a_group_that_they_are_in() -> None:
    with Tree.create() as tree:
        group = tree.root.mkdir("group").mkdir("inner")
        lease = tree.lease(group, ("memory",), 1, 1)
        lease.change({"memory": 1})
        assert [info.group for info in tree.region.all_holders()] == [group.id]
        lease.close()
        with tree.root.attach():
            assert [info.group for info in tree.region.all_holders()] == [fsmount.shm.ROOT]

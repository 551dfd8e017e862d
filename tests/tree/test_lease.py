"""A lease: a holder in the name of another process, as an open lease file is one."""

from __future__ import annotations

import os

import pytest

import fsmount
from fsmount import Counter, Group, Tree
from fsmount.tree import LEASE, Lease, process_start_time


@pytest.fixture
def lease(tree: Tree, group: Group) -> Lease:
    return tree.lease(group, "memory", os.getpid(), process_start_time(os.getpid()))


def test_a_lease_is_a_holder_from_its_first_success_to_its_end(tree: Tree, memory: Counter, lease: Lease) -> None:
    memory.limit = 10
    assert (lease.held, tree.holders()) == (0, [])
    with pytest.raises(fsmount.LimitExceeded):
        lease.resize(11)
    with pytest.raises(fsmount.NotHeld):
        lease.adjust(-1)
    assert tree.holders() == []
    lease.resize(0)
    (holder,) = memory.holders()
    assert (holder.kind, holder.pid, holder.held, holder.keep) == (LEASE, os.getpid(), 0, False)
    lease.close()
    lease.close()
    assert tree.holders() == []


def test_resize_sets_and_adjust_adds(memory: Counter, lease: Lease) -> None:
    lease.resize(100)
    lease.adjust(20)
    lease.adjust(-50)
    assert (lease.held, memory.usage) == (70, 70)
    lease.resize(30)
    assert (lease.held, memory.usage) == (30, 30)
    lease.close()
    assert memory.usage == 0


def test_a_refusal_leaves_a_lease_as_it_was(memory: Counter, lease: Lease) -> None:
    memory.limit = 100
    lease.resize(60)
    with pytest.raises(fsmount.LimitExceeded):
        lease.resize(101)
    with pytest.raises(fsmount.LimitExceeded):
        lease.adjust(41)
    with pytest.raises(fsmount.NotHeld) as caught:
        lease.adjust(-61)
    assert caught.value.held == lease.held == memory.usage == 60
    for amount, expected in ((-1, ValueError), (2**63, OverflowError)):
        with pytest.raises(expected):
            lease.resize(amount)
    lease.close()


def test_a_lease_holds_for_itself_and_not_for_the_process_it_is_in(tree: Tree, memory: Counter, lease: Lease) -> None:
    other = tree.lease(memory.group, "memory", os.getpid(), process_start_time(os.getpid()))
    memory.charge(1)
    lease.resize(10)
    other.resize(100)
    assert (memory.held, lease.held, other.held, memory.usage) == (1, 10, 100, 111)
    lease.close()
    assert (memory.held, other.held, memory.usage) == (1, 100, 101)
    other.close()


def test_a_lease_gives_takes_and_goes_beyond_the_limit(memory: Counter, lease: Lease) -> None:
    memory.limit = 100
    assert lease.nofail(100) is True
    assert lease.nofail(10) is False
    lease.give(60)
    lease.take(20)
    assert (lease.held, memory.stat()["common"], memory.usage) == (70, 40, 110)
    lease.close()
    assert memory.usage == 40


@pytest.mark.parametrize("early", [True, False])
def test_the_group_keeps_what_a_lease_held_if_told(memory: Counter, lease: Lease, early: bool) -> None:
    if early:
        lease.keep()
    lease.resize(5)
    if not early:
        lease.keep()
    lease.close()
    assert (memory.usage, memory.stat()["common"]) == (5, 5)


def test_a_lease_in_a_removed_group_is_group_removed(group: Group, lease: Lease) -> None:
    group.remove()
    with pytest.raises(fsmount.GroupRemoved):
        lease.resize(1)
    lease.close()


def test_a_closed_lease_may_begin_again(memory: Counter, lease: Lease) -> None:
    lease.resize(5)
    lease.close()
    lease.resize(6)
    assert (lease.held, memory.usage) == (6, 6)
    lease.close()

"""A lease: a holder in the name of another process, as for an open lease file."""

from __future__ import annotations

import os

import pytest

import fsmount
from fsmount import Tree
from fsmount.shm import LEASE, Counter, Group, Lease, process_start_time


@pytest.fixture
def lease(tree: Tree, group: Group) -> Lease:
    return lease_of(tree, group, "memory")


def lease_of(tree: Tree, group: Group, *resources: str) -> Lease:
    return tree.lease(group, resources, os.getpid(), process_start_time(os.getpid()))


def test_a_lease_is_a_holder_from_its_first_success_to_its_end(tree: Tree, memory: Counter, lease: Lease) -> None:
    memory.limit = 10
    assert (lease.held, tree.holders()) == ({"memory": 0}, [])
    with pytest.raises(fsmount.LimitExceeded):
        lease.change({"memory": 11})
    with pytest.raises(fsmount.NotHeld):
        lease.change({"memory": -1})
    assert tree.holders() == []
    lease.change({"memory": 0})
    (holder,) = memory.all_holders()
    assert (holder.kind, holder.pid, holder.held, holder.keep) == (LEASE, os.getpid(), 0, False)
    lease.close()
    lease.close()
    assert tree.holders() == []


def test_the_sum_of_charges_and_uncharges_is_exact(memory: Counter, lease: Lease) -> None:
    lease.change({"memory": 100})
    lease.change({"memory": 20})
    lease.change({"memory": -50})
    assert (lease.held, memory.usage) == ({"memory": 70}, 70)
    lease.close()
    assert memory.usage == 0


def test_a_refusal_leaves_a_lease_as_it_was(memory: Counter, lease: Lease) -> None:
    memory.limit = 100
    lease.change({"memory": 60})
    with pytest.raises(fsmount.LimitExceeded):
        lease.change({"memory": 41})
    with pytest.raises(fsmount.NotHeld) as caught:
        lease.change({"memory": -61})
    assert caught.value.held == lease.held["memory"] == memory.usage == 60
    for amount in (2**63, -(2**63)):
        with pytest.raises(OverflowError):
            lease.change({"memory": amount})
    lease.close()


def test_a_lease_is_a_holder_apart_from_its_process(tree: Tree, memory: Counter, lease: Lease) -> None:
    other = lease_of(tree, memory.group, "memory")
    memory.charge(1)
    lease.change({"memory": 10})
    other.change({"memory": 100})
    assert (memory.held, lease.held, other.held, memory.usage) == (1, {"memory": 10}, {"memory": 100}, 111)
    lease.close()
    assert (memory.held, other.held["memory"], memory.usage) == (1, 100, 101)
    other.close()


def test_a_lease_gives_takes_and_goes_beyond_the_limit(memory: Counter, lease: Lease) -> None:
    memory.limit = 100
    assert lease.nofail("memory", 100) is True
    assert lease.nofail("memory", 10) is False
    lease.move({"memory": 60})
    lease.move({"memory": -20})
    assert (lease.held["memory"], memory.stat()["common"], memory.usage) == (70, 40, 110)
    lease.close()
    assert memory.usage == 40


@pytest.mark.parametrize("early", [True, False])
def test_the_group_keeps_the_charges_of_a_lease_with_keep(memory: Counter, lease: Lease, early: bool) -> None:
    if early:
        lease.keep()
    lease.change({"memory": 5})
    if not early:
        lease.keep()
    lease.close()
    assert (memory.usage, memory.stat()["common"]) == (5, 5)


def test_a_lease_in_a_removed_group_is_group_removed(group: Group, lease: Lease) -> None:
    group.remove()
    with pytest.raises(fsmount.GroupRemoved):
        lease.change({"memory": 1})
    lease.close()


def test_a_closed_lease_may_begin_again(memory: Counter, lease: Lease) -> None:
    lease.change({"memory": 5})
    lease.close()
    lease.change({"memory": 6})
    assert (lease.held["memory"], memory.usage) == (6, 6)
    lease.close()


def test_a_lease_of_several_resources_is_one_holder_and_changes_them_at_once(tree: Tree, group: Group) -> None:
    group["tokens"].limit = 4
    lease = lease_of(tree, group, "memory", "tokens")
    lease.change({"memory": 10, "tokens": 3})
    assert len(tree.holders()) == 1
    with pytest.raises(fsmount.LimitExceeded) as refused:
        lease.change({"memory": -5, "tokens": 2})
    assert (refused.value.resource, refused.value.group, refused.value.requested) == ("tokens", group.path, 2)
    with pytest.raises(fsmount.NotHeld) as caught:
        lease.change({"tokens": 1, "memory": -11})
    assert (caught.value.resource, caught.value.requested, caught.value.held) == ("memory", 11, 10)
    with pytest.raises(fsmount.NotHeld):
        lease.move({"memory": 10, "tokens": -1})
    assert lease.held == {"memory": 10, "tokens": 3}
    lease.move({"memory": 10, "tokens": 2})
    lease.move({"memory": -1, "tokens": 1})
    assert lease.held == {"memory": 1, "tokens": 0}
    lease.close()
    assert [group[resource].usage for resource in group] == [9, 3]

"""group.charge, uncharge and hold: several resources at once, all amounts or nothing."""

from __future__ import annotations

import re
import threading
from functools import partial

import pytest
import trio

import fsmount
from fsmount import Tree
from fsmount.engine import change
from fsmount.shm import Group
from tests.shm.conftest import in_fork


def held(group: Group) -> tuple[int, int]:
    return group["memory"].held, group["tokens"].held


def test_a_hold_holds_all_amounts_inside_and_nothing_after(group: Group) -> None:
    hold = group.hold(memory=8 << 30, tokens=4000)
    with hold:
        assert held(group) == (8 << 30, 4000)
        with hold:
            assert held(group) == (16 << 30, 8000)
    assert held(group) == (0, 0)
    with pytest.raises(ZeroDivisionError), hold:
        raise ZeroDivisionError
    assert held(group) == (0, 0)


def test_a_refusal_names_resource_and_ancestor_and_changes_nothing(tree: Tree, group: Group) -> None:
    parent = group.parent
    assert parent is not None
    parent["tokens"].limit = 10
    group.charge(memory=5, tokens=7)
    for request in (partial(group.charge, memory=100, tokens=4), group.hold(memory=100, tokens=4).__enter__):
        with pytest.raises(fsmount.LimitExceeded) as caught:
            request()
        refusal = caught.value
        assert (refusal.group, refusal.resource) == (parent.path, "tokens")
        assert (refusal.requested, refusal.usage, refusal.limit) == (4, 7, 10)
    assert held(group) == (5, 7)
    assert (tree.root["memory"].usage, parent["tokens"].failcnt, group["memory"].failcnt) == (5, 2, 0)
    (record,) = tree.root["tokens"].why()
    assert (record.asked, record.refused, record.amount, record.short) == (group.path, parent.path, 4, 1)
    assert tree.root["memory"].why() == []


def test_stock_of_other_holders_becomes_room(group: Group) -> None:
    parent = group.parent
    assert parent is not None
    parent["memory"].limit = 1 << 20
    parent["memory"].charge(1 << 10)
    assert parent["memory"].stat()["stock"] > 0
    group.charge(memory=(1 << 20) - (1 << 10), tokens=1)
    assert parent["memory"].usage == 1 << 20


def test_uncharging_more_than_is_held_of_one_resource_changes_nothing(group: Group) -> None:
    group.charge(memory=5, tokens=7)
    with pytest.raises(fsmount.NotHeld) as caught:
        group.uncharge(memory=5, tokens=8)
    assert (caught.value.resource, caught.value.requested, caught.value.held) == ("tokens", 8, 7)
    assert held(group) == (5, 7)
    group.uncharge(memory=1, tokens=7)
    assert held(group) == (4, 0)


def test_charges_of_the_group_are_charges_of_its_counters(group: Group) -> None:
    group.charge(memory=100, tokens=1)
    group["memory"].uncharge(40)
    group.uncharge(memory=60)
    assert held(group) == (0, 1)


def test_one_resource_can_be_charged_while_another_is_uncharged(group: Group) -> None:
    group.charge(memory=5, tokens=7)
    group._change({"memory": 10, "tokens": -7})
    assert held(group) == (15, 0)


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({}, TypeError),
        ({"disk": 1}, KeyError),
        ({"memory": 1, "disk": 1}, KeyError),
        ({"memory": 1, "tokens": -1}, ValueError),
        ({"memory": 1, "tokens": 2**63}, OverflowError),
        ({"memory": 1.0}, TypeError),
        ({"memory": True}, TypeError),
        ({"memory": 1, "tokens": False}, TypeError),
    ],
)
@pytest.mark.parametrize("operation", ["charge", "uncharge", "hold"])
def test_an_invalid_request_is_refused(
    group: Group, operation: str, amounts: dict[str, int], expected: type[Exception]
) -> None:
    group.charge(memory=5, tokens=7)
    with pytest.raises(expected):
        getattr(group, operation)(**amounts)
    assert held(group) == (5, 7)


@pytest.mark.parametrize("wrong", [3, True, None, "memory", ["memory"], [("memory", 1)], 0, ""], ids=repr)
@pytest.mark.parametrize("operation", ["charge", "uncharge", "hold"])
def test_an_argument_that_is_no_mapping_is_a_type_error_with_the_right_form(
    group: Group, operation: str, wrong: object
) -> None:
    with pytest.raises(
        TypeError, match=rf"such as memory=4096 or .*, not {re.escape(repr(wrong))}; or charge a counter"
    ):
        getattr(group, operation)(wrong)
    assert held(group) == (0, 0)


def test_a_resource_is_not_named_twice(group: Group) -> None:
    with pytest.raises(TypeError, match="memory is named twice"):
        group.charge({"memory": 1}, memory=1)
    assert held(group) == (0, 0)


def test_a_resource_with_the_name_of_an_option_is_given_in_a_mapping() -> None:
    with Tree.create(resources=["wait:count", "timeout:count", "tokens:count"]) as tree:
        group = tree.root
        group["timeout"].limit = 4
        group.charge({"wait": 2, "timeout": 3}, tokens=1)
        with pytest.raises(fsmount.LimitExceeded), group.hold({"wait": 1, "timeout": 2}, wait=True, timeout=0.01):
            pytest.fail("it is held")
        with group.hold({"wait": 1, "timeout": 1}, wait=True, timeout=10):
            assert {resource: group[resource].held for resource in group} == {"wait": 3, "timeout": 4, "tokens": 1}
        group.uncharge({"wait": 1, "timeout": 3})
        trio.run(group.wait_charge, {"wait": 1})
        assert {resource: group[resource].held for resource in group} == {"wait": 2, "timeout": 0, "tokens": 1}


def test_a_child_that_is_forked_inside_a_hold_leaves_it_to_its_parent(group: Group) -> None:
    hold = group.hold(memory=5, tokens=7)

    def leave() -> tuple[int, int]:
        hold.__exit__(None, None, None)
        with group.hold(memory=1, tokens=1):
            return held(group)

    with hold:
        assert in_fork(leave) == (1, 1)
        assert held(group) == (5, 7)
    assert held(group) == (0, 0)


def test_a_closed_group_is_not_charged(group: Group) -> None:
    group.charge(memory=5, tokens=7)
    group.close()
    with pytest.raises(ValueError, match="closed"):
        group.charge(memory=5, tokens=7)
    assert group["memory"].usage == 0


def test_two_chargers_of_one_resource_are_no_multi_resource_request(group: Group) -> None:
    other = group.mkdir("other")
    group.charge(memory=5)
    other.charge(memory=5)
    with pytest.raises(OSError, match="Invalid argument"):
        change({group["memory"]: 1, other["memory"]: 1})
    assert (group["memory"].held, other["memory"].held) == (5, 5)


def test_threads_find_all_or_nothing_while_they_charge_through_the_counters_too(tree: Tree, group: Group) -> None:
    """The usages of tokens and memory differ only by the separate charges of each thread."""
    group["tokens"].limit = 40
    refused = []

    def work() -> None:
        for amount in range(200):
            try:
                with group.hold(tokens=amount % 20, memory=amount % 20), group["memory"].hold(3):
                    pass
            except fsmount.LimitExceeded:
                refused.append(amount)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held(group) == (0, 0)
    assert group["tokens"].failcnt == len(refused)

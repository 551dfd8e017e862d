"""Every method of a counter in Python."""

from __future__ import annotations

import contextlib
import enum
import errno
from collections.abc import Callable

import pytest

import fsmount
from fsmount import Tree
from fsmount.protocol.listings import STAT_KEYS
from fsmount.shm import Counter, Group

UNLIMITED = fsmount.UNLIMITED


def test_unlimited_is_the_largest_amount() -> None:
    assert UNLIMITED == 2**63 - 1


def test_a_charge_counts_in_the_group_and_in_every_ancestor(tree: Tree, memory: Counter) -> None:
    memory.charge(4096)
    assert memory.usage == tree.root.child("web")["memory"].usage == tree.root["memory"].usage == 4096
    assert memory.held == 4096


def test_resources_are_counted_apart(group: Group) -> None:
    group["memory"].charge(7)
    group["tokens"].charge(3)
    assert (group["memory"].usage, group["tokens"].usage) == (7, 3)
    assert (group["memory"].unit, group["tokens"].unit) == ("bytes", "count")
    assert (group["memory"].index, group["tokens"].index) == (0, 1)


def test_a_charge_of_zero_changes_nothing(memory: Counter) -> None:
    memory.limit = 0
    memory.charge(0)
    memory.uncharge(0)
    memory.give(0)
    memory.take(0)
    assert memory.try_charge(0) and memory.charge_nofail(0)
    assert (memory.usage, memory.held, memory.failcnt) == (0, 0, 0)


def test_uncharge_releases(tree: Tree, memory: Counter) -> None:
    memory.charge(100)
    memory.uncharge(40)
    assert (memory.held, memory.usage, tree.root["memory"].usage) == (60, 60, 60)


def test_limit_exceeded_names_the_ancestor_that_refused_and_leaves_no_trace(tree: Tree, memory: Counter) -> None:
    web = tree.root.child("web")
    web["memory"].limit = 1000
    memory.charge(900)
    with pytest.raises(fsmount.LimitExceeded) as caught:
        memory.charge(101)
    error = caught.value
    assert error.errno == errno.ENOMEM
    assert (error.group, error.resource, error.requested) == ("/web", "memory", 101)
    assert (error.usage, error.limit) == (900, 1000)
    assert "/web" in str(error) and "101" in str(error)
    assert [c["memory"].usage for c in (tree.root, web, memory.group)] == [900, 900, 900]
    assert [c["memory"].failcnt for c in (tree.root, web, memory.group)] == [0, 1, 0]
    memory.charge(100)


def test_a_charge_up_to_the_limit_is_allowed(memory: Counter) -> None:
    memory.limit = 4096
    memory.charge(4096)
    assert memory.margin == 0


def test_try_charge_is_true_or_false(memory: Counter) -> None:
    memory.limit = 10
    assert memory.try_charge(10) is True
    assert memory.try_charge(1) is False
    assert (memory.held, memory.failcnt) == (10, 1)


def test_charge_nofail_of_zero_says_whether_a_limit_is_exceeded(tree: Tree, memory: Counter) -> None:
    tree.root["memory"].limit = 4
    assert memory.charge_nofail(4) and memory.charge_nofail(0)
    assert not memory.charge_nofail(1) and not memory.charge_nofail(0)
    assert (memory.held, tree.root["memory"].failcnt) == (5, 1)


def test_charge_nofail_charges_past_the_limit_and_returns_false(tree: Tree, memory: Counter) -> None:
    tree.root["memory"].limit = 10
    assert memory.charge_nofail(10) is True
    assert memory.charge_nofail(5) is False
    assert memory.usage == tree.root["memory"].usage == 15
    assert tree.root["memory"].margin == 0
    memory.uncharge(15)
    assert memory.usage == 0


def test_a_charge_of_zero_fits_even_above_the_limit(memory: Counter) -> None:
    memory.limit = 0
    memory.charge_nofail(10)
    for _ in range(3):  # the first refusal switches stock off
        assert not memory.try_charge(1)
        memory.charge(0)
    assert (memory.usage, memory.failcnt, memory.stat()["global"]) == (10, 4, 1)


def test_charge_nofail_stops_at_the_largest_number(memory: Counter) -> None:
    assert memory.charge_nofail(UNLIMITED)
    with pytest.raises(OSError) as caught:
        memory.charge_nofail(1)
    assert caught.value.errno == errno.EOVERFLOW
    memory.uncharge(UNLIMITED)


def test_not_held_carries_the_held_amount_and_changes_nothing(memory: Counter) -> None:
    memory.charge(10)
    for give_back in (memory.uncharge, memory.give):
        with pytest.raises(fsmount.NotHeld) as caught:
            give_back(11)
        error = caught.value
        assert error.errno == errno.ERANGE
        assert (error.resource, error.requested, error.held) == ("memory", 11, 10)
        assert "/web/api" in str(error)
    assert (memory.held, memory.usage) == (10, 10)


def test_uncharge_never_touches_what_the_group_itself_holds(memory: Counter) -> None:
    memory.charge_common(100)
    with pytest.raises(fsmount.NotHeld):
        memory.uncharge(1)
    assert memory.usage == 100
    memory.uncharge_common(100)


def test_give_moves_an_amount_to_the_group_and_take_moves_it_back(tree: Tree, memory: Counter) -> None:
    memory.charge(100)
    memory.give(60)
    assert (memory.held, memory.usage, memory.stat()["common"]) == (40, 100, 60)
    memory.take(10)
    assert (memory.held, memory.usage, memory.stat()["common"]) == (50, 100, 50)
    assert tree.root["memory"].usage == 100


def test_taking_more_than_the_group_holds_is_not_held(memory: Counter) -> None:
    memory.charge(5)
    memory.give(5)
    with pytest.raises(fsmount.NotHeld) as caught:
        memory.take(6)
    assert (caught.value.requested, caught.value.held) == (6, 5)


def test_give_and_take_are_possible_at_the_limit(memory: Counter) -> None:
    memory.limit = 10
    memory.charge(10)
    memory.give(10)
    memory.take(10)
    assert (memory.held, memory.usage, memory.failcnt) == (10, 10, 0)


def test_hold_charges_inside_and_uncharges_after(memory: Counter) -> None:
    with memory.hold(1 << 20):
        assert memory.usage == memory.held == 1 << 20
    assert memory.usage == memory.held == 0


def test_hold_uncharges_once_after_an_exception(memory: Counter) -> None:
    memory.charge(10)
    with contextlib.suppress(ZeroDivisionError), memory.hold(5):
        assert memory.held == 15
        raise ZeroDivisionError
    assert memory.held == 10


def test_a_refused_hold_does_not_enter_and_uncharges_nothing(memory: Counter) -> None:
    memory.limit = 10
    memory.charge(8)
    with pytest.raises(fsmount.LimitExceeded), memory.hold(5):
        pytest.fail("entered")
    assert memory.held == 8


def test_a_hold_can_be_entered_again(memory: Counter) -> None:
    hold = memory.hold(5)
    with hold, hold:
        assert memory.held == 10
    assert memory.held == 0


@pytest.mark.parametrize(
    "operation", ["charge", "try_charge", "charge_nofail", "uncharge", "give", "take", "hold", "charge_common",
                  "uncharge_common", "probe", "limit", "soft_limit"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("amount", "expected"),
    [(-1, ValueError), (-(2**63), ValueError), (-(2**70), ValueError), (2**63, OverflowError), (2**64, OverflowError),
     (10**30, OverflowError), (1.0, TypeError), ("1", TypeError), (None, TypeError), (b"1", TypeError),
     (True, TypeError), (False, TypeError)],
)  # fmt: skip
def test_an_amount_is_an_int_from_0_to_unlimited(
    memory: Counter, operation: str, amount: object, expected: type[Exception]
) -> None:
    memory.charge(5)
    before = (memory.usage, memory.held, memory.limit, memory.soft_limit)
    do: Callable[[object], object]
    if operation in ("limit", "soft_limit"):
        do = lambda value: setattr(memory, operation, value)  # noqa: E731
    else:
        do = getattr(memory, operation)
    with pytest.raises(expected) as caught:
        do(amount)
    assert not isinstance(caught.value, OSError)
    assert (type(amount).__name__ if expected is TypeError else str(amount)) in str(caught.value)
    assert (memory.usage, memory.held, memory.limit, memory.soft_limit) == before


def test_any_index_of_python_is_an_amount(memory: Counter) -> None:
    class Index:
        def __index__(self) -> int:
            return 7

    class Members(enum.IntEnum):
        ONE = 1

    memory.charge(Index())  # type: ignore[arg-type]
    memory.charge(Members.ONE)
    assert memory.held == 8


def test_the_whole_range_can_be_charged(memory: Counter) -> None:
    memory.charge(UNLIMITED)
    assert memory.usage == UNLIMITED
    assert memory.try_charge(1) is False
    memory.uncharge(UNLIMITED)
    assert memory.usage == 0


def test_charge_takes_one_argument(memory: Counter) -> None:
    for arguments in ((), (1, 2)):
        with pytest.raises(TypeError):
            memory.charge(*arguments)


def test_limits_are_unlimited_until_they_are_set(memory: Counter) -> None:
    assert memory.limit == memory.soft_limit == memory.margin == UNLIMITED
    memory.limit = 1 << 30
    memory.soft_limit = 1 << 29
    assert (memory.limit, memory.soft_limit, memory.margin) == (1 << 30, 1 << 29, 1 << 30)
    memory.limit = UNLIMITED
    assert memory.limit == UNLIMITED


def test_a_limit_below_the_usage_is_ebusy_and_stays_as_it_was(memory: Counter) -> None:
    memory.charge(100)
    memory.limit = 200
    with pytest.raises(OSError) as caught:
        memory.limit = 99
    assert caught.value.errno == errno.EBUSY
    assert caught.value.filename == "/web/api"
    assert "99" in str(caught.value) and "100" in str(caught.value)
    assert memory.limit == 200


def test_a_limit_equal_to_the_usage_is_allowed(memory: Counter) -> None:
    memory.charge(100)
    memory.limit = 100
    assert memory.try_charge(1) is False


def test_a_soft_limit_is_never_busy_and_refuses_nothing(memory: Counter) -> None:
    memory.charge(100)
    memory.soft_limit = 30
    memory.charge(1)
    assert (memory.soft_limit, memory.soft_limit_excess) == (30, 71)
    memory.soft_limit = 200
    assert memory.soft_limit_excess == 0


def test_stock_is_not_usage_and_makes_no_charge_fail(memory: Counter) -> None:
    memory.charge(1)
    memory.uncharge(1)
    assert memory.stat()["stock"] > 0
    assert memory.usage == 0
    memory.limit = 0


@pytest.mark.parametrize("charge", [Counter.charge, Counter.charge_common])
def test_a_charge_of_all_room_drains_the_stock_of_other_cells(
    tree: Tree, memory: Counter, charge: Callable[[Counter, int], None]
) -> None:
    top = tree.root["memory"]
    top.limit = 1 << 20
    top.charge(1 << 10)
    assert top.stat()["stock"] > 0
    charge(memory, (1 << 20) - (1 << 10))
    assert (top.usage, top.failcnt) == (1 << 20, 0)


def test_max_usage_is_the_peak_until_it_is_reset() -> None:
    with Tree.create(batch=0) as tree:
        memory = tree.root["memory"]
        memory.charge(100)
        memory.uncharge(70)
        assert memory.max_usage == 100
        memory.reset_max_usage()
        assert memory.max_usage == 30


def test_failcnt_counts_refusals_until_it_is_reset(memory: Counter) -> None:
    memory.limit = 1
    for _ in range(3):
        assert not memory.try_charge(2)
    assert memory.failcnt == 3
    memory.reset_failcnt()
    assert memory.failcnt == 0


def test_stat_has_the_keys_in_their_order(tree: Tree, memory: Counter) -> None:
    tree.root["memory"].limit = 1000
    memory.soft_limit = 10
    memory.charge(30)
    memory.give(10)
    stat = memory.stat()
    assert tuple(stat) == STAT_KEYS == (
        "usage", "usage_local", "common", "reserved", "stock", "holders", "limit", "soft_limit", "hierarchical_limit",
        "margin", "hierarchical_margin", "soft_limit_excess", "max_usage", "min_usage", "failcnt", "global", "batch",
        "error_bound", "refills", "drains",
    )  # fmt: skip
    assert stat["usage"] == stat["usage_local"] == 30
    assert (stat["common"], stat["holders"], stat["soft_limit_excess"]) == (10, 1, 20)
    assert (stat["limit"], stat["hierarchical_limit"], stat["hierarchical_margin"]) == (UNLIMITED, 1000, 970)
    assert stat["reserved"] == stat["usage"] + stat["stock"]
    assert tree.root["memory"].stat()["usage_local"] == 0


def test_the_group_itself_can_be_charged_and_uncharged(memory: Counter) -> None:
    memory.limit = 100
    memory.charge_common(100)
    with pytest.raises(fsmount.LimitExceeded):
        memory.charge_common(1)
    with pytest.raises(fsmount.NotHeld) as caught:
        memory.uncharge_common(101)
    assert caught.value.held == 100
    memory.uncharge_common(40)
    assert (memory.usage, memory.held) == (60, 0)


def test_force_empty_uncharges_the_group_itself_and_no_holder(memory: Counter) -> None:
    memory.charge(10)
    memory.charge_common(100)
    memory.force_empty()
    assert (memory.usage, memory.held, memory.stat()["common"], memory.stat()["stock"]) == (10, 10, 0, 0)


def test_an_unknown_resource_is_a_key_error_that_names_the_known_ones(group: Group) -> None:
    with pytest.raises(KeyError, match=r"swap.*memory, tokens"):
        group["swap"]
    assert list(group) == ["memory", "tokens"]


def test_charge_is_a_method_in_c() -> None:
    for name in ("charge", "try_charge", "uncharge"):
        assert type(getattr(Counter, name)).__name__ == "method_descriptor"
        assert name not in vars(Counter)
    assert not hasattr(Tree.create().root["memory"], "__dict__")

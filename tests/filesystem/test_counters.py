"""Usage, limits, soft limits, peaks and failcnt through the files, on a mount with stock and on one without."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest

from tests.holder_process import HolderProcess, Refused
from tests.mounts import UNLIMITED, GroupFiles, Mount, fails_with, mounted


@pytest.fixture(scope="module", params=["auto", "0"], ids=["with stock", "batch 0"])
def mount(request: pytest.FixtureRequest) -> Iterator[Mount]:
    with mounted("--batch", request.param, "--resource", "memory", "--resource", "tokens:count") as tree:
        yield tree


@pytest.fixture
def chain(group: GroupFiles) -> list[GroupFiles]:
    """Nested groups, the topmost first."""
    groups = [group]
    for name in "abc":
        groups.append(groups[-1].mkdir(name))
    return groups


def usages(groups: list[GroupFiles]) -> list[int]:
    return [group.usage for group in groups]


def failcnts(groups: list[GroupFiles]) -> list[int]:
    return [group.failcnt for group in groups]


# ---- charging the group itself


def test_a_charge_is_counted_at_the_group_and_at_every_ancestor(mount: Mount, chain: list[GroupFiles]) -> None:
    chain[2].charge(1001)
    assert usages([mount.root, *chain]) == [1001, 1001, 1001, 1001, 0]


def test_siblings_add_up_in_their_parent(group: GroupFiles) -> None:
    for number in range(1, 6):
        group.mkdir(str(number)).charge(number)
    group.charge(100)
    assert group.usage == 115
    assert [child.usage for child in sorted(group.children(), key=lambda child: child.path)] == [1, 2, 3, 4, 5]


def test_a_charge_stays_until_it_is_uncharged(chain: list[GroupFiles]) -> None:
    chain[3].charge(5000)
    chain[3].charge(1)
    chain[3].uncharge(5000)
    assert usages(chain) == [1] * 4
    chain[3].uncharge(1)
    assert usages(chain) == [0] * 4


def test_uncharging_more_than_the_group_itself_holds_is_erange_and_changes_nothing(chain: list[GroupFiles]) -> None:
    chain[1].charge(10)
    chain[2].charge(20)
    before = chain[0].tree_counters()
    for group, amount in ((chain[0], 1), (chain[1], 11), (chain[1], 30), (chain[2], 21), (chain[3], 1)):
        with fails_with(errno.ERANGE):
            group.uncharge(amount)
    assert chain[0].tree_counters() == before


def test_a_group_cannot_uncharge_the_charges_of_a_lease(group: GroupFiles) -> None:
    with group.lease() as lease:
        lease.write("50")
        with fails_with(errno.ERANGE):
            group.uncharge(1)
        assert (lease.held, group.usage) == (50, 50)


def test_charging_and_uncharging_0_changes_nothing(group: GroupFiles) -> None:
    group.set_limit(0)
    before = group.counters()
    group.charge(0)
    group.uncharge(0)
    assert group.counters() == before


def test_the_largest_quantity_can_be_charged_and_not_one_more(group: GroupFiles) -> None:
    group.charge(UNLIMITED)
    assert group.usage == UNLIMITED
    with fails_with(errno.ENOMEM):
        group.charge(1)
    with fails_with(errno.ENOMEM):
        group.charge(UNLIMITED)
    assert (group.usage, group.failcnt) == (UNLIMITED, 2)


# ---- limits


def test_a_charge_up_to_the_limit_passes_and_one_more_is_enomem(group: GroupFiles) -> None:
    group.set_limit(4097)
    group.charge(4097)
    with fails_with(errno.ENOMEM):
        group.charge(1)
    assert (group.usage, group.failcnt) == (4097, 1)


def test_a_charge_across_the_limit_is_not_taken_in_part(group: GroupFiles) -> None:
    group.set_limit(100)
    group.charge(60)
    with fails_with(errno.ENOMEM):
        group.charge(41)
    assert group.usage == 60
    group.charge(40)


@pytest.mark.parametrize("refusing", range(4))
def test_a_refusal_is_counted_at_the_first_ancestor_that_refuses_and_nowhere_else(
    chain: list[GroupFiles], refusing: int
) -> None:
    for group in chain[: refusing + 1]:
        group.set_limit(1000)
    chain[3].charge(990)
    with fails_with(errno.ENOMEM):
        chain[3].charge(11)
    assert failcnts(chain) == [int(index == refusing) for index in range(4)]
    assert usages(chain) == [990] * 4


@pytest.mark.parametrize("refusing", range(4))
def test_a_refusal_leaves_no_trace_in_any_other_counter(chain: list[GroupFiles], refusing: int) -> None:
    chain[refusing].set_limit(5000)
    sibling = chain[0].mkdir("sibling")
    sibling.charge(7)
    chain[3].charge(4000)
    chain[3].charge(3, "tokens")
    before = chain[0].tree_counters()
    with fails_with(errno.ENOMEM):
        chain[3].charge(1001)
    after = chain[0].tree_counters()
    name = str(chain[refusing].path.relative_to(chain[0].path))
    assert after[name, "memory"].pop("failcnt") == before[name, "memory"].pop("failcnt") + 1
    assert after == before


def test_failcnt_counts_each_refusal(group: GroupFiles) -> None:
    group.set_limit(10)
    child = group.mkdir("child")
    for number in range(1, 21):
        with fails_with(errno.ENOMEM):
            (child if number % 2 else group).charge(11)
        assert (group.failcnt, child.failcnt) == (number, 0)


def test_a_limit_below_the_usage_is_ebusy_and_changes_nothing(chain: list[GroupFiles]) -> None:
    chain[3].charge(5000)
    chain[1].set_limit(6000)
    before = chain[0].tree_counters()
    for group in chain:
        for value in (0, 1, 4999):
            with fails_with(errno.EBUSY):
                group.set_limit(value)
    assert chain[0].tree_counters() == before


def test_a_limit_equal_to_the_usage_is_allowed(chain: list[GroupFiles]) -> None:
    chain[3].charge(5000)
    for group in chain:
        group.set_limit(5000)
        assert group.limit == 5000


def test_a_limit_of_0_is_allowed_in_an_unused_group(group: GroupFiles) -> None:
    group.set_limit(0)
    with fails_with(errno.ENOMEM):
        group.charge(1)


def test_a_limit_of_a_child_may_be_above_its_parents(chain: list[GroupFiles]) -> None:
    chain[0].set_limit(100)
    chain[1].set_limit(1000)
    assert (chain[0].limit, chain[1].limit) == (100, 1000)
    with fails_with(errno.ENOMEM):
        chain[1].charge(101)
    assert failcnts(chain) == [1, 0, 0, 0]


def test_a_new_child_of_a_limited_group_is_unlimited_itself(group: GroupFiles) -> None:
    group.set_limit(100)
    child = group.mkdir("child")
    assert (child.limit, child.stat()["hierarchical_limit"]) == (UNLIMITED, 100)


def test_the_root_group_has_a_limit_that_holds(mount: Mount, chain: list[GroupFiles]) -> None:
    mount.root.set_limit(100)
    try:
        chain[3].charge(100)
        with fails_with(errno.ENOMEM):
            chain[2].charge(1)
        assert (mount.root.failcnt, failcnts(chain)) == (1, [0] * 4)
        with fails_with(errno.EBUSY):
            mount.root.set_limit(99)
    finally:
        mount.root.set_limit("max")
        mount.root.write("failcnt", "0")


def test_the_root_group_itself_can_be_charged(mount: Mount, group: GroupFiles) -> None:
    mount.root.charge(77)
    assert (mount.root.usage, group.usage) == (77, 0)
    with fails_with(errno.ERANGE):
        mount.root.uncharge(78)
    mount.root.uncharge(77)
    assert mount.root.usage == 0


def test_a_raised_limit_lets_a_refused_charge_pass(group: GroupFiles) -> None:
    group.set_limit(100)
    with fails_with(errno.ENOMEM):
        group.charge(101)
    group.set_limit(101)
    group.charge(101)


# ---- a limit and stock


@pytest.fixture
def idle_stock(chain: list[GroupFiles]) -> Iterator[list[GroupFiles]]:
    """Two attached processes that have charged and uncharged nearly all of it, below a limit of 1 GiB."""
    chain[0].set_limit(1 << 30)
    with HolderProcess(chain[2].path) as first, HolderProcess(chain[3].path) as second:
        for holder in (first, second):
            for _ in range(50):
                holder.charge(4096)
            for _ in range(49):
                holder.uncharge(4096)
        yield chain


def test_stock_never_shows_as_usage(idle_stock: list[GroupFiles]) -> None:
    assert usages(idle_stock) == [8192, 8192, 8192, 4096]


def test_reserved_is_the_sum_of_usage_and_stock(idle_stock: list[GroupFiles]) -> None:
    for group in idle_stock:
        stat = group.stat()
        assert stat["reserved"] == stat["usage"] + stat["stock"] <= stat["limit"]


def test_holders_keep_stock_unless_the_batch_is_0(mount: Mount, idle_stock: list[GroupFiles]) -> None:
    stat = idle_stock[0].stat()
    if "0" in mount.options:
        assert (stat["stock"], stat["batch"], stat["error_bound"]) == (0, 0, 0)
    else:
        assert stat["stock"] > 0
        assert all(group.stat()["refills"] > 0 for group in idle_stock[2:])


def test_setting_a_limit_drains_the_stock_below_first(idle_stock: list[GroupFiles]) -> None:
    idle_stock[0].set_limit(8192)
    stat = idle_stock[0].stat()
    assert (stat["limit"], stat["stock"], stat["reserved"]) == (8192, 0, 8192)


def test_a_refused_limit_counts_only_the_usage_not_the_stock(idle_stock: list[GroupFiles]) -> None:
    with fails_with(errno.EBUSY):
        idle_stock[0].set_limit(8191)
    assert idle_stock[0].limit == 1 << 30
    assert usages(idle_stock) == [8192, 8192, 8192, 4096]


def charge_by_file(group: GroupFiles, amount: int) -> None:
    group.charge(amount)


def charge_by_lease(group: GroupFiles, amount: int) -> None:
    with group.lease() as lease:
        lease.write(str(amount))


def charge_by_process(group: GroupFiles, amount: int) -> None:
    with HolderProcess(group.path) as holder:
        holder.charge(amount)


@pytest.mark.parametrize("where", [0, 1, 3])
@pytest.mark.parametrize("charge", [charge_by_file, charge_by_lease, charge_by_process])
def test_no_refusal_while_stock_lies_idle(
    idle_stock: list[GroupFiles], charge: Callable[[GroupFiles, int], None], where: int
) -> None:
    free = (1 << 30) - 8192
    charge(idle_stock[where], free)
    assert failcnts(idle_stock) == [0] * 4


@pytest.mark.parametrize("where", [0, 1, 3])
@pytest.mark.parametrize("charge", [charge_by_file, charge_by_lease, charge_by_process])
def test_one_byte_above_the_free_room_is_refused_at_any_stock(
    idle_stock: list[GroupFiles], charge: Callable[[GroupFiles, int], None], where: int
) -> None:
    free = (1 << 30) - 8192
    with fails_with(errno.ENOMEM):
        charge(idle_stock[where], free + 1)
    assert failcnts(idle_stock) == [1, 0, 0, 0]
    assert usages(idle_stock) == [8192, 8192, 8192, 4096]
    charge(idle_stock[where], free)


# ---- soft limit, peak, failcnt, force_empty


def test_a_soft_limit_is_never_ebusy_and_refuses_nothing(group: GroupFiles) -> None:
    group.charge(5000)
    for value in (5000, 4999, 0):
        group.write("soft_limit", value)
        assert group.soft_limit == value
    group.charge(1)
    assert group.failcnt == 0


def test_soft_limit_excess_is_the_usage_above_the_soft_limit(group: GroupFiles) -> None:
    group.write("soft_limit", 100)
    child = group.mkdir("child")
    excess = []
    for amount in (0, 100, 1, 899):
        child.charge(amount)
        excess.append(group.stat()["soft_limit_excess"])
    assert excess == [0, 0, 1, 900]
    assert child.stat()["soft_limit_excess"] == 0


def test_max_usage_is_the_peak_since_the_last_reset(chain: list[GroupFiles]) -> None:
    chain[3].charge(300)
    chain[3].uncharge(200)
    chain[2].charge(50)
    assert [group.max_usage for group in chain] == [300] * 4
    chain[0].write("max_usage", "0")
    assert [group.max_usage for group in chain] == [150, 300, 300, 300]
    chain[2].charge(10)
    assert [group.max_usage for group in chain] == [160, 300, 300, 300]


def test_a_refused_charge_is_no_peak(group: GroupFiles) -> None:
    group.set_limit(100)
    group.charge(60)
    with fails_with(errno.ENOMEM):
        group.charge(1000)
    assert group.max_usage == 60


def test_max_usage_is_off_by_no_more_than_error_bound(group: GroupFiles) -> None:
    group.set_limit(1 << 30)
    with HolderProcess(group.path) as holder:
        peak = held = 0
        for amount in (5000, 100, -3000, 70000, -60000, 1, 65000, -1000, 123456, -123456):
            if amount > 0:
                holder.charge(amount)
            else:
                holder.uncharge(-amount)
            held += amount
            peak = max(peak, held)
            stat = group.stat()
            assert stat["usage"] == held
            assert abs(stat["max_usage"] - peak) <= stat["error_bound"]
            assert stat["max_usage"] >= stat["usage"] >= stat["min_usage"]


RESETS = [b"0", b"1\n", b"\n", b" ", b"abc", b"-1", b"max", b"\0", b"\xff\xfe", b"x" * 4096]


@pytest.mark.parametrize("text", RESETS, ids=lambda text: repr(text[:8]))
def test_any_text_resets_max_usage_to_the_current_usage(group: GroupFiles, text: bytes) -> None:
    group.charge(500)
    group.uncharge(300)
    group.write("max_usage", text)
    assert (group.max_usage, group.usage) == (200, 200)


@pytest.mark.parametrize("text", RESETS, ids=lambda text: repr(text[:8]))
def test_any_text_resets_failcnt_to_0(group: GroupFiles, text: bytes) -> None:
    group.set_limit(0)
    with fails_with(errno.ENOMEM):
        group.charge(1)
    group.write("failcnt", text)
    assert group.failcnt == 0


@pytest.mark.parametrize("text", RESETS, ids=lambda text: repr(text[:8]))
def test_any_text_makes_force_empty_forget_the_charges_of_the_group_itself(group: GroupFiles, text: bytes) -> None:
    child = group.mkdir("child")
    child.charge(10)
    group.charge(500)
    group.write("force_empty", text)
    assert (group.usage, child.usage) == (10, 10)
    with fails_with(errno.ERANGE):
        group.uncharge(1)


def test_force_empty_drains_stock_and_keeps_the_charges_of_holders(idle_stock: list[GroupFiles]) -> None:
    idle_stock[2].charge(1 << 20)
    with idle_stock[2].lease() as lease:
        lease.write("99")
        idle_stock[2].write("force_empty", "0")
        stat = idle_stock[2].stat()
        assert (stat["usage"], stat["stock"], stat["common"]) == (8192 + 99, 0, 0)
        assert lease.held == 99


def test_an_open_reset_file_can_be_written_again_and_again(group: GroupFiles) -> None:
    group.set_limit(0)
    fd = os.open(group / "memory.failcnt", os.O_RDWR)
    try:
        for _ in range(3):
            with fails_with(errno.ENOMEM):
                group.charge(1)
            assert os.pread(fd, 10, 0) == b"1\n"
            assert os.write(fd, b"0") == 1
            assert os.pread(fd, 10, 0) == b"0\n"
    finally:
        os.close(fd)


# ---- R.stat


def test_stat_shows_local_common_and_reserved_usage(group: GroupFiles) -> None:
    child = group.mkdir("child")
    child.charge(1000)
    group.charge(200)
    with group.lease() as lease, child.lease() as other:
        lease.write("30")
        other.write("4")
        stat, below = group.stat(), child.stat()
    assert (stat["usage"], stat["usage_local"], stat["common"]) == (1234, 230, 200)
    assert (below["usage"], below["usage_local"], below["common"]) == (1004, 1004, 1000)


def test_stat_agrees_with_the_files(group: GroupFiles) -> None:
    group.set_limit(5000)
    group.write("soft_limit", 900)
    group.charge(1000)
    group.uncharge(1)
    with fails_with(errno.ENOMEM):
        group.charge(4002)
    stat = group.stat()
    for name in ("usage", "limit", "soft_limit", "max_usage", "failcnt"):
        assert stat[name] == group.number(name)
    assert {"usage": 999, "limit": 5000, "soft_limit": 900, "max_usage": 1000, "failcnt": 1}.items() <= stat.items()


def test_hierarchical_limit_and_margin_are_the_minimum_on_the_way_up(chain: list[GroupFiles]) -> None:
    chain[0].set_limit(10_000)
    chain[1].set_limit(3_000)
    chain[2].set_limit(4_000)
    chain[0].charge(9_000)
    chain[2].charge(500)
    seen = [
        (stat["hierarchical_limit"], stat["margin"], stat["hierarchical_margin"])
        for stat in (group.stat() for group in chain)
    ]
    assert seen == [(10_000, 500, 500), (3_000, 2_500, 500), (3_000, 3_500, 500), (3_000, UNLIMITED, 500)]


def test_margin_is_never_negative(group: GroupFiles) -> None:
    group.set_limit(1000)
    with HolderProcess(group.path) as holder:
        assert not holder.charge_nofail(1500)
        stat = group.stat()
        assert (stat["usage"], stat["margin"], stat["hierarchical_margin"]) == (1500, 0, 0)


def test_margin_counts_usage_but_not_stock(idle_stock: list[GroupFiles]) -> None:
    assert [group.stat()["hierarchical_margin"] for group in idle_stock] == [(1 << 30) - 8192] * 4


def test_stat_counts_the_live_holders(group: GroupFiles) -> None:
    with group.lease() as lease, HolderProcess(group.path) as process:
        lease.write("1")
        process.charge(1)
        assert group.stat()["holders"] == 2
        assert group.stat()["holders"] == len(group.holders())


# ---- charging past a limit


def test_charge_nofail_charges_every_level_and_raises_failcnt_at_each_exceeded_one(chain: list[GroupFiles]) -> None:
    chain[0].set_limit(100)
    chain[2].set_limit(200)
    with HolderProcess(chain[3].path) as holder:
        assert holder.charge_nofail(100)
        assert failcnts(chain) == [0, 0, 0, 0]
        assert not holder.charge_nofail(50)
        assert failcnts(chain) == [1, 0, 0, 0]
        assert not holder.charge_nofail(51)
        assert failcnts(chain) == [2, 0, 1, 0]
        assert usages(chain) == [201] * 4
        with fails_with(errno.ENOMEM):
            holder.charge(1)
        assert failcnts(chain) == [2, 0, 2, 0]


# ---- the group that refuses


@pytest.mark.parametrize("refusing", range(4))
def test_a_refusal_names_the_ancestor_that_refused_and_leaves_no_trace_elsewhere(
    chain: list[GroupFiles], refusing: int
) -> None:
    chain[refusing].set_limit(50_000)
    chain[0].mkdir("sibling").charge(7)
    with HolderProcess(chain[3].path) as holder:
        holder.charge(40_000)
        holder.uncharge(10_000)
        usage = chain[refusing].usage
        before = chain[0].tree_counters()
        with pytest.raises(Refused) as refused:
            holder.charge(20_001)
        after = chain[0].tree_counters()
    assert (refused.value.kind, refused.value.errno) == ("LimitExceeded", errno.ENOMEM)
    assert refused.value.details == {
        "group": str(chain[refusing].path),
        "resource": "memory",
        "requested": 20_001,
        "usage": usage,
        "limit": 50_000,
    }
    name = str(chain[refusing].path.relative_to(chain[0].path))
    assert after[name, "memory"].pop("failcnt") == before[name, "memory"].pop("failcnt") + 1
    assert after == before

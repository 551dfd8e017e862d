"""The binding alone: regions and chargers end in any order without a crash."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable

import pytest

from fsmount import engine
from fsmount.engine import Charger, EngineError, Region


def new_region(**arguments: int) -> Region:
    return Region.create(None, [("memory", False)], uid=os.geteuid(), gid=os.getegid(), **arguments)


def new_holder(region: Region) -> int:
    holder = region.holder_create(os.getpid(), engine.process_start_time(os.getpid()), engine.PROCESS, 0)
    region.holder_join(holder, engine.ROOT)
    return holder


@pytest.fixture
def region() -> Region:
    return new_region()


@pytest.fixture
def charger(region: Region) -> Charger:
    charger = Charger()
    charger.bind(region, new_holder(region), engine.ROOT, 0)
    return charger


def test_a_closed_region_raises_ebadf(region: Region) -> None:
    region.close()
    region.close()
    assert region.closed
    uses: list[Callable[[], object]] = [
        lambda: region.fd, lambda: region.tree_id, lambda: region.batch, lambda: region.resources,
        lambda: region.usage(0, 0), lambda: region.children(0), region.all_holders, region.check, region.get_daemon,
        lambda: region.mkdir(0, b"a", 0o755, 0, 0, 0), lambda: Charger().bind(region, 0, 0, 0),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(EngineError) as caught:
            use()
        assert caught.value.errno == errno.EBADF


def test_a_region_that_was_never_made_is_closed() -> None:
    assert Region().closed
    with pytest.raises(EngineError):
        Region().check()


def test_a_bound_charger_keeps_its_region_mapped(region: Region, charger: Charger) -> None:
    region.close()
    charger.charge(5)
    charger.uncharge(2)
    assert charger.held == 3
    charger.unbind()
    with pytest.raises(EngineError):
        charger.charge(1)


def test_a_charger_outlives_the_name_of_its_region() -> None:
    charger = Charger()
    region = new_region()
    charger.bind(region, new_holder(region), engine.ROOT, 0)
    del region
    gc.collect()
    charger.charge(5)
    assert charger.held == 5


def test_a_charger_in_a_cycle_is_unbound_before_its_region_goes() -> None:
    class Ring(Charger):
        ring: object

    for _ in range(10):
        charger = Ring()
        charger.ring = charger
        region = new_region()
        charger.bind(region, new_holder(region), engine.ROOT, 0)
        charger.charge(1)
        del charger, region
    gc.collect()


def test_an_unbound_charger_raises_enotconn_and_holds_nothing() -> None:
    charger = Charger()
    assert not charger.bound
    assert charger.held == 0
    for use in (
        charger.charge,
        charger.try_charge,
        charger.charge_nofail,
        charger.uncharge,
        charger.give,
        charger.take,
    ):
        for amount in (0, 1, engine.UNLIMITED):
            with pytest.raises(EngineError) as caught:
                use(amount)
            assert caught.value.errno == errno.ENOTCONN


def test_a_charger_can_be_bound_again(region: Region, charger: Charger) -> None:
    other = new_region()
    charger.charge(5)
    charger.bind(other, new_holder(other), engine.ROOT, 0)
    assert charger.bound
    charger.charge(7)
    assert (region.usage(0, 0), other.usage(0, 0), charger.held) == (5, 7, 7)


def test_a_failed_bind_leaves_a_charger_unbound(region: Region, charger: Charger) -> None:
    with pytest.raises(EngineError):
        charger.bind(region, 12345 << 32, engine.ROOT, 0)
    assert not charger.bound
    with pytest.raises(EngineError):
        charger.bind(region, new_holder(region), engine.ROOT, 99)
    with pytest.raises(TypeError):
        charger.bind(None, 0, 0, 0)  # type: ignore[arg-type]
    region.close()


def test_an_unknown_id_raises_enodev(region: Region) -> None:
    for id in (1, 12345, 1 << 32, (1 << 64) - 1):
        for use in (region.parent, region.name, region.children, region.child_count):
            with pytest.raises(EngineError) as caught:
                use(id)
            assert caught.value.errno == errno.ENODEV
    with pytest.raises(EngineError) as caught:
        region.usage(0, 99)
    assert caught.value.errno == errno.EINVAL


def test_an_error_has_its_own_details(region: Region, charger: Charger) -> None:
    region.set_limit(0, 0, 10)
    charger.charge(8)
    with pytest.raises(EngineError) as refused:
        charger.charge(3)
    assert (refused.value.errno, refused.value.group) == (errno.ENOMEM, engine.ROOT)
    assert (refused.value.usage, refused.value.limit) == (8, 10)
    with pytest.raises(EngineError) as not_held:
        charger.uncharge(9)
    assert (not_held.value.errno, not_held.value.held) == (errno.ERANGE, 8)


def test_a_process_is_identified_by_pid_and_start_time() -> None:
    start = engine.process_start_time(os.getpid())
    assert start > 0
    assert engine.process_alive(os.getpid(), start)
    assert not engine.process_alive(os.getpid(), start + 1)
    assert not engine.process_alive(0, 0)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert engine.process_start_time(child) == 0  # dead, but its parent has not waited for it yet
    os.waitpid(child, 0)


def test_amount_and_noop_take_one_int() -> None:
    assert engine.amount(5) == 5
    assert engine.noop(5) is None  # type: ignore[func-returns-value]
    for value, expected in ((-1, ValueError), (2**63, OverflowError), (1.5, TypeError)):
        with pytest.raises(expected):
            engine.amount(value)  # type: ignore[arg-type]

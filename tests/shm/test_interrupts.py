"""An interrupted wait leaves nothing behind, wherever the interrupt comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from fsmount import LimitExceeded
from fsmount.shm import Counter, Group
from tests.interrupts import interruptions


@pytest.fixture
def full(memory: Counter) -> Counter:
    memory.limit = 10
    memory.charge(8)
    return memory


def no_request_waits(counter: Counter) -> bool:
    """A request that fits is granted at once, unless an earlier request waits."""
    granted = counter.group._charge_in_turn({counter.resource: 2}, 0.0)
    if granted:
        counter.uncharge(2)
    return granted


def wait_in_vain(counter: Counter) -> None:
    with pytest.raises(LimitExceeded):
        counter.charge(5, wait=True, timeout=0.001)


def enter_and_leave(counter: Counter) -> None:
    with counter.hold(2, wait=True):
        assert counter.held == 10


def wait_for_several_in_vain(counter: Counter) -> None:
    with pytest.raises(LimitExceeded):
        counter.group.charge(memory=5, tokens=1, wait=True, timeout=0.001)


@pytest.mark.parametrize("action", [wait_in_vain, wait_for_several_in_vain, enter_and_leave])
def test_an_interrupted_wait_leaves_no_request_and_no_charge(
    full: Counter, group: Group, action: Callable[[Counter], None]
) -> None:
    for _ in interruptions(lambda: action(full)):
        assert full.held == 8 and group["tokens"].held == 0
        assert no_request_waits(full)


def hold_one(group: Group) -> None:
    with group["memory"].hold(2):
        assert group["memory"].held == 10


def hold_several(group: Group) -> None:
    with group.hold(memory=2, tokens=1):
        assert (group["memory"].held, group["tokens"].held) == (10, 1)


def hold_one_as_a_whole(group: Group) -> None:
    with group.hold(memory=2):
        assert group["memory"].held == 10


def wait_to_hold_several(group: Group) -> None:
    with group.hold(memory=2, tokens=1, wait=True):
        assert (group["memory"].held, group["tokens"].held) == (10, 1)


def hold_what_comes_too_late(group: Group) -> None:
    with pytest.raises(LimitExceeded), group.hold(memory=5, tokens=1, wait=True, timeout=0.001):
        pytest.fail("it is held")


@pytest.mark.parametrize(
    "action", [hold_one, hold_several, hold_one_as_a_whole, wait_to_hold_several, hold_what_comes_too_late]
)
def test_an_interrupted_hold_holds_nothing(full: Counter, group: Group, action: Callable[[Group], None]) -> None:
    for _ in interruptions(lambda: action(group)):
        assert full.held == 8 and group["tokens"].held == 0
        assert no_request_waits(full)


def run_trio(task: Callable[[], Awaitable[Any]]) -> None:
    async def main() -> None:
        with trio.move_on_after(0.001):
            await task()

    trio.run(main)


def run_asyncio(task: Callable[[], Awaitable[Any]]) -> None:
    async def main() -> None:
        try:
            async with asyncio.timeout(0.001):
                await task()
        except TimeoutError:
            pass

    asyncio.run(main())


@pytest.mark.parametrize("run", [run_trio, run_asyncio])
def test_an_interrupted_task_leaves_no_request_and_no_charge(
    full: Counter, run: Callable[[Callable[[], Awaitable[Any]]], None]
) -> None:
    for _ in interruptions(lambda: run(lambda: full.wait_charge(5))):
        assert full.held == 8
        assert no_request_waits(full)

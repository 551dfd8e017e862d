"""A signal's handler may raise wherever Python calls or returns from a call; whoever waits then leaves nothing behind.

Each test does the same over and over, and is interrupted one call later each time, until it gets through.
"""

from __future__ import annotations

import asyncio
import dis
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import trio

from fsmount import Counter, Group, LimitExceeded


def begins(frame: FrameType) -> bool:
    """Whether it is just called; one that is resumed, as of a coroutine, is not interrupted before it goes on."""
    instruction, argument = frame.f_code.co_code[frame.f_lasti : frame.f_lasti + 2]
    return instruction == dis.opmap["RESUME"] and argument < 2


@contextmanager
def interrupt_at(number: int) -> Iterator[None]:
    """KeyboardInterrupt at the call of this number that our code makes inside, or at its return if it is one of C."""

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal number
        ours = frame.f_globals["__name__"].startswith("fsmount")
        if ours and (event == "c_return" or (event == "call" and begins(frame))):
            number -= 1
            if number == 0:
                raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


def interruptions(action: Callable[[], object]) -> Iterator[None]:
    """After each interruption of the action, until it is done."""
    for number in range(1, 1000):
        try:
            with interrupt_at(number):
                action()
        except KeyboardInterrupt:
            yield
        else:
            assert number > 5
            return
    pytest.fail("it does not get through")


@pytest.fixture
def full(memory: Counter) -> Counter:
    memory.limit = 10
    memory.charge(8)
    return memory


def nobody_is_in_line(counter: Counter) -> bool:
    """What there is room for is granted at once, unless somebody stands in line before."""
    granted = counter.group.charge_in_turn({counter.resource: 2}, 0.0)
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
def test_who_waits_and_is_interrupted_is_in_no_line_and_has_charged_nothing(
    full: Counter, group: Group, action: Callable[[Counter], None]
) -> None:
    for _ in interruptions(lambda: action(full)):
        assert full.held == 8 and group["tokens"].held == 0
        assert nobody_is_in_line(full)


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
def test_a_task_that_waits_and_is_interrupted_is_in_no_line_and_has_charged_nothing(
    full: Counter, run: Callable[[Callable[[], Awaitable[Any]]], None]
) -> None:
    for _ in interruptions(lambda: run(lambda: full.wait_charge(5))):
        assert full.held == 8
        assert nobody_is_in_line(full)

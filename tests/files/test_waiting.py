"""Charges that wait, from Python: the same in the region and through files."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import trio

import fsmount
from fsmount import Group
from tests.interrupts import interruptions
from tests.mounts import GroupFiles, eventually
from tests.process_state import sleeps


@pytest.fixture(params=["memory", "files"])
def attached(request: pytest.FixtureRequest, group: GroupFiles) -> Iterator[Group]:
    """An attachment to a group with a limit of 10, all of which the group itself holds."""
    group.set_limit(10)
    group.set_limit(5, "tokens")
    group.charge(10)
    with fsmount.attach(group.path, transport=request.param) as attached:
        yield attached


@contextmanager
def later(action: object, *arguments: object) -> Iterator[None]:
    """Runs the action shortly after the block has begun to wait."""
    timer = threading.Timer(0.05, action, arguments)  # type: ignore[arg-type]
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_charge_waits_until_there_is_room(group: GroupFiles, attached: Group) -> None:
    memory = attached["memory"]
    with later(group.uncharge, 4):
        memory.charge(4, wait=True)
    assert (memory.held, group.usage) == (4, 10)
    memory.uncharge(4)


@pytest.mark.parametrize("timeout", [10**6, 1e30, 10**400, Fraction(10**9), float("inf")])
def test_a_timeout_may_be_arbitrarily_long(group: GroupFiles, attached: Group, timeout: Any) -> None:
    with later(group.uncharge, 1):
        attached["memory"].charge(1, wait=True, timeout=timeout)
    assert (attached["memory"].held, group.usage) == (1, 10)


def test_a_waiting_thread_fails_when_this_process_closes_the_attachment(attached: Group) -> None:
    with later(attached.close), pytest.raises(ValueError, match="closed"):
        attached["memory"].charge(4, wait=True, timeout=60)


@pytest.mark.parametrize("run", [trio.run, lambda task: asyncio.run(task())], ids=["trio", "asyncio"])
def test_a_waiting_task_fails_when_this_process_closes_the_attachment(
    run: Callable[[Callable[[], Awaitable[None]]], None], attached: Group
) -> None:
    with later(attached.close), pytest.raises(ValueError, match="closed"):
        run(partial(attached["memory"].wait_charge, 4))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of files whose opening is interrupted
def test_an_interrupted_wait_leaves_no_request_and_no_charge(group: GroupFiles, attached: Group) -> None:
    def wait_in_vain() -> None:
        with pytest.raises(fsmount.LimitExceeded):
            attached["memory"].charge(4, wait=True, timeout=0.001)

    for _ in interruptions(wait_in_vain):
        assert (attached["memory"].held, group.usage) == (0, 10)
        wait_in_vain()
        group.uncharge(10)
        assert group.usage == 0
        group.charge(10)


def hold_one(group: Group) -> None:
    with group["memory"].hold(4):
        assert group["memory"].held == 5


def hold_several(group: Group) -> None:
    with group.hold(memory=4, tokens=2):
        assert (group["memory"].held, group["tokens"].held) == (5, 2)


def wait_to_hold_one(group: Group) -> None:
    with group["memory"].hold(4, wait=True, timeout=20):
        assert group["memory"].held == 5


def wait_to_hold_several(group: Group) -> None:
    with group.hold(memory=4, tokens=2, wait=True, timeout=20):
        assert (group["memory"].held, group["tokens"].held) == (5, 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of files whose opening is interrupted
@pytest.mark.parametrize("action", [hold_one, hold_several, wait_to_hold_one, wait_to_hold_several])
def test_an_interrupted_hold_leaves_no_request_and_no_charge(
    group: GroupFiles, attached: Group, action: Callable[[Group], None]
) -> None:
    group.uncharge(5)
    attached["memory"].charge(1)  # this charge must not be given back by mistake
    for _ in interruptions(partial(action, attached)):
        assert (attached["memory"].held, group.usage, group.number("usage", "tokens")) == (1, 6, 0)
        assert attached._charge_in_turn({"memory": 4}, 0.0), "another request is in the queue"
        attached["memory"].uncharge(4)


def test_a_charge_whose_wait_times_out_is_refused(group: GroupFiles, attached: Group) -> None:
    began = time.monotonic()
    with pytest.raises(fsmount.LimitExceeded) as refused:
        attached["memory"].charge(4, wait=True, timeout=0.1)
    assert time.monotonic() - began >= 0.1
    assert (refused.value.requested, refused.value.usage, refused.value.limit) == (4, 10, 10)
    group.uncharge(4)
    assert group.usage == 6


def test_a_timeout_without_waiting_is_a_value_error(attached: Group) -> None:
    with pytest.raises(ValueError, match="wait=True"):
        attached["memory"].charge(4, timeout=1)
    with pytest.raises(ValueError, match="wait=True"):
        attached.charge(memory=4, timeout=1)


@pytest.mark.parametrize("timeout", ["x", True, [], 1j, -1, -(10**400), float("nan"), float("-inf")])
@pytest.mark.parametrize("room", [0, 4])
def test_an_invalid_timeout_is_refused_at_once(group: GroupFiles, attached: Group, timeout: Any, room: int) -> None:
    group.uncharge(room)
    memory = attached["memory"]
    wrong = ValueError if isinstance(timeout, int | float) and timeout is not True else TypeError
    for charge in (
        partial(memory.charge, 4),
        partial(memory.hold, 4),
        partial(attached.charge, memory=4),
        partial(attached.hold, memory=4, tokens=4),
    ):
        with pytest.raises(wrong, match=f"timeout is a number of seconds.*, not {re.escape(repr(timeout))}"):
            charge(wait=True, timeout=timeout)
        with pytest.raises((TypeError, ValueError)):
            charge(timeout=timeout)
    assert (memory.held, group.usage) == (0, 10 - room)


@pytest.mark.parametrize("wait", [5, 1, 0, None, "yes"])
def test_wait_is_true_or_false(group: GroupFiles, attached: Group, wait: Any) -> None:
    group.uncharge(4)
    for charge in (partial(attached["memory"].charge, 4), partial(attached["memory"].hold, 4)):
        with pytest.raises(TypeError, match=f"wait is True or False, not {wait!r}"):
            charge(wait=wait)
    for whole in (attached.charge, attached.hold):
        with pytest.raises(TypeError, match=rf'not {wait!r} .*in a mapping: \{{"wait": {wait!r}\}}'):
            whole(memory=4, wait=wait)
    with pytest.raises(ValueError, match=r'in a mapping: \{"timeout": 5\}'):
        attached.charge(memory=4, timeout=5)
    assert (attached["memory"].held, group.usage) == (0, 6)


def test_a_charge_of_zero_does_not_wait(attached: Group) -> None:
    attached["memory"].charge(0, wait=True)
    attached.charge(memory=0, wait=True)


def test_a_hold_may_wait_too(group: GroupFiles, attached: Group) -> None:
    with later(group.uncharge, 4), attached["memory"].hold(4, wait=True, timeout=60):
        assert group.usage == 10
    assert group.usage == 6
    with attached.hold(memory=4, tokens=2, wait=True):
        assert (group.usage, group.number("usage", "tokens")) == (10, 2)
    assert (group.usage, group.number("usage", "tokens")) == (6, 0)


def test_a_multi_resource_request_waits_for_all_amounts(group: GroupFiles, attached: Group) -> None:
    group.charge(4, "tokens")
    group.uncharge(4)
    with later(group.uncharge, 3, "tokens"):
        attached.charge(memory=4, tokens=2, wait=True, timeout=60)
    assert (attached["memory"].held, attached["tokens"].held) == (4, 2)
    attached.uncharge(memory=4, tokens=2)


def test_threads_are_served_in_the_order_of_arrival(group: GroupFiles, attached: Group) -> None:
    memory, served = attached["memory"], []

    def wait(number: int) -> None:
        memory.charge(5, wait=True, timeout=60)
        served.append(number)
        memory.uncharge(5)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
        eventually(partial(sleeps, thread.native_id or 0), what="the request is in the queue")
    group.uncharge(5)
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]
    assert group.usage == 5


def test_an_interrupted_wait_has_charged_nothing(group: GroupFiles, attached: Group) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def wait_for_the_alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        attached["memory"].charge(4, wait=True)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_for_the_alarm()
    finally:
        signal.signal(signal.SIGALRM, before)
    group.uncharge(4)
    assert (attached["memory"].held, group.usage) == (0, 6)
    attached["memory"].charge(4, wait=True)
    attached["memory"].uncharge(4)


def test_tasks_of_trio_wait(group: GroupFiles, attached: Group) -> None:
    memory = attached["memory"]

    async def main() -> None:
        with trio.move_on_after(0.05) as scope:
            await memory.wait_charge(1)
        assert scope.cancelled_caught
        assert memory.held == 0
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(memory.wait_charge, 1)
            await trio.sleep(0.02)
            group.uncharge(4)
        assert memory.held == 4

    trio.run(main)
    memory.uncharge(4)
    assert group.usage == 6


def test_tasks_of_asyncio_wait(group: GroupFiles, attached: Group) -> None:
    memory = attached["memory"]

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await memory.wait_charge(1)
        assert memory.held == 0
        tasks = [asyncio.create_task(memory.wait_charge(1)) for _ in range(4)]
        await asyncio.sleep(0.02)
        group.uncharge(4)
        await asyncio.gather(*tasks)
        assert memory.held == 4
        await attached.wait_charge(tokens=2)

    asyncio.run(main())
    attached["tokens"].uncharge(2)
    memory.uncharge(4)
    assert group.usage == 6


def test_a_cancelled_task_leaves_the_queue(group: GroupFiles, attached: Group) -> None:
    memory = attached["memory"]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_soon, scope)
                await memory.wait_charge(8)
            group.uncharge(1)
            await memory.wait_charge(1)

    trio.run(main)
    memory.uncharge(1)


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await trio.sleep(0.02)
    scope.cancel()


@pytest.mark.parametrize("transport", ["memory", "files"])
def test_a_process_killed_while_it_waits_leaves_the_queue(group: GroupFiles, transport: fsmount.Transport) -> None:
    group.set_limit(10)
    group.charge(10)
    program = f"""
import fsmount
memory = fsmount.attach({str(group.path)!r}, transport={transport!r})["memory"]
memory.charge(0)
print("waits", flush=True)
memory.charge(10, wait=True)
"""
    with fsmount.attach(group.path, transport=transport) as attached:
        memory = attached["memory"]
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waits\n"
            eventually(lambda: any(line.pid == process.pid for line in group.holders()))
            time.sleep(0.1)
            group.uncharge(1)
            process.kill()
        memory.charge(1, wait=True, timeout=60)
        memory.uncharge(1)
    eventually(lambda: group.usage == 9)
    group.uncharge(9)

"""Charges that wait for room are granted in the order of arrival, although others die, are cancelled or give up."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest
import trio
import trio.testing

from fsmount import LimitExceeded, Tree, TreeGone
from fsmount.engine import Request, request
from fsmount.shm import Counter, Group
from tests.shm.conftest import in_fork

#: Seconds after which a refused charge searches for dead holders again (holders/reap.c), and a margin.
REAP_EVERY = 0.1


def enqueue(*wanted: tuple[Counter, int]) -> Request:
    """Requests an amount that has to wait."""
    counters, amounts = zip(*wanted, strict=True)
    asked = request(counters, amounts)
    assert asked is not None
    return asked


def is_granted(asked: Request) -> bool:
    granted: bool = asked.wait(0.0)
    return granted


@pytest.fixture
def full(memory: Counter) -> Counter:
    """A counter with a limit of 10, all of which this process holds."""
    memory.limit = 10
    memory.charge(10)
    return memory


class Waiter:
    """A forked process that makes requests on command, and waits for each of them in a separate thread."""

    def __init__(self, counter: Counter) -> None:
        self._line, line = Pipe()
        self.amounts: list[int] = []
        self.pid = os.fork()
        if self.pid == 0:
            try:
                signal.alarm(60)
                self._live(counter, line)
            finally:
                os._exit(1)
        line.close()

    @staticmethod
    def _live(counter: Counter, line: Connection) -> None:
        threads: list[threading.Thread] = []
        held: list[int] = []

        def await_turn(asked: Request, amount: int) -> None:
            if asked.wait(math.inf) and asked.end():
                held.append(amount)

        while True:
            what, amounts = line.recv()
            if what == "ask":
                for amount in amounts:
                    threads.append(threading.Thread(target=await_turn, args=(enqueue((counter, amount)), amount)))
                    threads[-1].start()
                line.send(len(amounts))
            else:
                for thread in threads:
                    thread.join()
                counter.uncharge(sum(held))
                line.send(sum(held))

    def _tell(self, what: str, amounts: tuple[int, ...] = ()) -> int:
        self._line.send((what, amounts))
        assert self._line.poll(30), f"process {self.pid} has no answer to {what!r}"
        answer: int = self._line.recv()
        return answer

    def ask(self, *amounts: int) -> None:
        assert self._tell("ask", amounts) == len(amounts)
        self.amounts += amounts

    def give_back(self) -> None:
        """Waits until each of its threads has gone on, and uncharges their grants."""
        assert self._tell("give back") == sum(self.amounts)

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
            self._line.close()


@contextmanager
def waiters(counter: Counter, count: int) -> Iterator[list[Waiter]]:
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(Waiter(counter))
            stack.callback(made[-1].kill)
        yield made


def kill_all(processes: list[Waiter]) -> None:
    for process in processes:
        process.kill()


def held_by(counter: Counter, waiter: Waiter) -> int:
    return sum(holder.held for holder in counter.holders() if holder.pid == waiter.pid)


# ---- the order of turns --------------------------------------------------------------------------


def test_a_charge_that_fits_does_not_wait(memory: Counter) -> None:
    memory.limit = 10
    memory.charge(10, wait=True, timeout=0)
    assert memory.held == 10


def test_requests_of_many_processes_are_granted_in_the_order_of_arrival(full: Counter) -> None:
    with waiters(full, 4) as processes:
        order = [processes[number] for number in (2, 0, 3, 1, 1, 0, 2, 3, 0, 0)]
        for process in order:
            process.ask(1)
        for turn in range(10):
            full.uncharge(1)
            for process in processes:
                assert held_by(full, process) == order[: turn + 1].count(process)
        for process in processes:
            process.give_back()
    assert full.usage == 0


def test_later_small_requests_do_not_starve_a_large_one(full: Counter) -> None:
    large, small = enqueue((full, 8)), enqueue((full, 1))
    for _ in range(7):
        full.uncharge(1)
        assert not is_granted(large)
        assert not is_granted(small)
    full.uncharge(1)
    assert is_granted(large)
    assert not is_granted(small)
    full.uncharge(1)
    assert is_granted(small)
    assert large.end()
    assert small.end()
    assert full.held == 10


def test_a_request_for_one_subtree_does_not_block_another(tree: Tree) -> None:
    tree.root["memory"].limit = 100
    left, right = (tree.root.mkdir(name)["memory"] for name in ("left", "right"))
    for counter in (left, right):
        counter.limit = 10
        counter.charge(10)
    on_the_left, on_the_right = enqueue((left, 10)), enqueue((right, 2))
    right.uncharge(2)
    assert is_granted(on_the_right)
    assert not is_granted(on_the_left)
    left.uncharge(10)
    assert is_granted(on_the_left)
    assert on_the_left.end()
    assert on_the_right.end()


def test_earlier_requests_may_set_aside_more_than_the_largest_number(tree: Tree) -> None:
    half = 1 << 62
    first, second, third = (tree.root.mkdir(name)["memory"] for name in ("first", "second", "third"))
    line = []
    for counter in (first, second):
        counter.limit = half
        counter.charge(1)
        line.append(enqueue((counter, half)))
    last = enqueue((third, half))
    assert not is_granted(last)
    for asked in line:
        assert not asked.end()
    assert last.end()


def test_a_request_above_a_lowered_limit_blocks_no_other_request(memory: Counter) -> None:
    memory.limit = 30
    memory.charge(10)
    large, small = enqueue((memory, 25)), enqueue((memory, 5))
    assert not is_granted(small)
    memory.limit = 20
    assert (is_granted(large), is_granted(small)) == (False, True)
    memory.limit = 40
    assert is_granted(large)
    assert small.end() and large.end()
    assert memory.held == 40


def test_a_request_above_the_limit_blocks_no_other_and_is_granted_when_the_limit_is_raised(memory: Counter) -> None:
    memory.limit = 10
    hopeless = enqueue((memory, 20))
    memory.charge(10, wait=True, timeout=0)
    memory.limit = 29
    assert not is_granted(hopeless)
    memory.limit = 30
    assert is_granted(hopeless)
    assert hopeless.end()
    assert memory.held == 30


def test_a_request_for_two_resources_is_granted_when_there_is_room_for_both(tree: Tree, group: Group) -> None:
    memory, tokens = group["memory"], group["tokens"]
    memory.limit = tokens.limit = 10
    memory.charge(10)
    tokens.charge(10)
    both = enqueue((memory, 5), (tokens, 5))
    memory.uncharge(5)
    assert (is_granted(both), memory.held, tokens.held) == (False, 5, 10)
    tokens.uncharge(5)
    assert (is_granted(both), memory.held, tokens.held) == (True, 10, 10)
    assert both.end()


def test_a_request_is_granted_in_a_tree_that_switches_stock_on_meanwhile(tree: Tree, memory: Counter) -> None:
    memory.limit = 1000
    tree.batch = 0
    memory.charge(500)
    asked = enqueue((memory, 501))
    tree.batch = 64
    memory.charge(1)
    memory.uncharge(20)  # kept as stock, if there were any
    assert is_granted(asked)
    assert asked.end()


def test_a_request_without_room_in_the_queue_leaves_the_queue_unchanged() -> None:
    with Tree.create(resources=["memory"], groups=4, holders=4, cells=8) as tree:
        memory = tree.root.mkdir("web")["memory"]
        memory.limit = 10
        memory.charge(10)
        line = [enqueue((memory, 1)) for _ in range(8)]
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            request((memory,), (1,))
        memory.uncharge(8)
        assert all(asked.end() for asked in line)
        assert tree.check() == []


def test_a_charge_that_reaps_the_dead_holds_its_amount_and_that_of_its_waiting_request(full: Counter) -> None:
    full.limit = 100
    full.charge(90)
    with waiters(full, 1) as (process,):
        process.ask(50)
        full.uncharge(50)
        asked = enqueue((full, 30))
        process.kill()
        time.sleep(REAP_EVERY)
        full.charge(10)
        assert is_granted(asked)
        assert asked.end()
        assert (full.held, full.usage) == (90, 90)


def test_room_freed_by_the_dead_above_does_not_exceed_a_limit_below(tree: Tree) -> None:
    tree.root["memory"].limit = 100
    other, memory = (tree.root.mkdir(name)["memory"] for name in ("other", "web"))
    memory.limit = 10
    other.charge(100)
    with waiters(other, 1) as (process,):
        process.ask(50)
        other.uncharge(50)
        asked = enqueue((memory, 10))
        process.kill()
        time.sleep(REAP_EVERY)
        with pytest.raises(LimitExceeded):
            memory.charge(5)
        assert is_granted(asked)
        assert asked.end()
        assert memory.usage == 10


def test_1000_requests_are_granted_in_order_and_none_is_lost_when_500_processes_are_killed(
    tree: Tree, memory: Counter, soak: bool
) -> None:
    for _ in range(20 if soak else 1):
        memory.limit = 1000
        memory.charge(1000)
        with waiters(memory, 20) as processes:
            order = []
            for _ in range(5):
                for process in processes:
                    process.ask(*[1] * 10)
                    order += [process] * 10
            killer = threading.Thread(target=kill_all, args=(processes[::2],))
            for turn in range(500):
                if turn == 50:
                    killer.start()
                memory.uncharge(1)
            killer.join()
            tree.reap()
            living = [process for process in order if process.pid]
            assert len(living) == 500
            granted = {process: held_by(memory, process) for process in processes[1::2]}
            first = living[: sum(granted.values())]
            assert granted == {process: first.count(process) for process in processes[1::2]}
            memory.uncharge(500)
            for process in processes[1::2]:
                assert held_by(memory, process) == 50
                process.give_back()
        assert memory.usage == 0
        assert tree.check() == []


# ---- the end of a request --------------------------------------------------------------------------


def test_a_request_of_a_dead_process_leaves_the_queue(tree: Tree, full: Counter) -> None:
    with waiters(full, 1) as (process,):
        process.ask(10)
        behind = enqueue((full, 1))
        full.uncharge(1)
        assert not is_granted(behind)
        process.kill()
        assert tree.reap() == 1
        assert is_granted(behind)
        assert behind.end()


def test_a_grant_to_a_dead_process_goes_to_the_next_request(tree: Tree, full: Counter) -> None:
    with waiters(full, 1) as (process,):
        process.ask(10)
        os.kill(process.pid, signal.SIGSTOP)
        full.uncharge(10)
        behind = enqueue((full, 10))
        process.kill()
        assert tree.reap() == 1
        assert is_granted(behind)
        assert behind.end()
    assert full.usage == 10


def test_without_a_daemon_the_death_of_a_holder_lets_a_waiting_thread_go_on(memory: Counter) -> None:
    memory.limit = 10
    in_fork(lambda: memory.charge(10))
    memory.charge(10, wait=True, timeout=60)
    memory.uncharge(10)


def test_without_a_daemon_the_death_of_a_holder_lets_a_waiting_task_go_on(tree: Tree, full: Counter) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(full.wait_charge, 10)
                await trio.testing.wait_all_tasks_blocked()
                holder.kill()

    with waiters(full, 1) as (holder,):
        holder.ask(10)
        full.uncharge(10)
        trio.run(main)


def test_a_request_not_granted_in_time_is_refused_and_leaves_the_queue(full: Counter) -> None:
    began = time.monotonic()
    with pytest.raises(LimitExceeded) as caught:
        full.charge(5, wait=True, timeout=0.05)
    assert time.monotonic() - began >= 0.05
    assert (caught.value.usage, caught.value.limit) == (10, 10)
    full.uncharge(5)
    assert full.held == 5


def test_a_keyboard_interrupt_leaves_no_charge_and_the_queue_in_order(full: Counter) -> None:
    def wait_for_the_alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        full.charge(10, wait=True)

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_for_the_alarm()
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    behind = enqueue((full, 1))
    full.uncharge(1)
    assert is_granted(behind)
    assert behind.end()
    assert full.held == 10


def test_a_cancelled_task_of_trio_leaves_no_charge_and_the_queue_in_order(full: Counter) -> None:
    async def main() -> None:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                cancelled = trio.CancelScope()

                async def give_up() -> None:
                    with cancelled:
                        await full.wait_charge(10)

                nursery.start_soon(give_up)
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(5):
                    nursery.start_soon(full.wait_charge, 1)
                await trio.testing.wait_all_tasks_blocked()
                full.uncharge(5)
                assert full.held == 5
                cancelled.cancel()
        assert cancelled.cancelled_caught
        assert full.held == 10

    trio.run(main)


def test_a_cancelled_task_of_asyncio_leaves_no_charge_and_the_queue_in_order(full: Counter) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(full.wait_charge(10), 0.05)
        waiting = [asyncio.create_task(full.wait_charge(1)) for _ in range(5)]
        await asyncio.sleep(0)
        full.uncharge(5)
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert full.held == 10

    asyncio.run(main())


def test_a_task_cancelled_at_its_grant_uncharges_it(full: Counter) -> None:
    async def main() -> None:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(full.wait_charge, 10)
                await trio.testing.wait_all_tasks_blocked()
                full.uncharge(10)
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert full.held in (0, 10)
    full.uncharge(full.held)


def test_a_request_for_zero_does_not_wait(full: Counter) -> None:
    full.charge(0, wait=True)
    trio.run(full.wait_charge, 0)
    assert full.held == 10


def test_a_hold_waits(full: Counter) -> None:
    def hold() -> int:
        with full.hold(5, wait=True, timeout=10):
            return full.held

    with ThreadPoolExecutor() as threads:
        held = threads.submit(hold)
        full.uncharge(5)
        assert held.result() == 10
    assert full.held == 5


def test_a_process_that_forks_while_it_waits_waits_on_and_its_child_waits_separately(full: Counter) -> None:
    def child() -> int:
        with pytest.raises(LimitExceeded):
            full.charge(5, wait=True, timeout=0.05)
        return full.held

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(full.charge, 10, wait=True, timeout=10)
        assert in_fork(child) == 0
        full.uncharge(10)
        waiting.result()
    assert full.held == 10


@pytest.mark.parametrize(("what", "expected"), [("group", ValueError), ("tree", TreeGone)])
def test_a_waiting_charge_fails_when_another_thread_closes_its_group(
    tree: Tree, group: Group, what: str, expected: type[Exception]
) -> None:
    tree.root["memory"].limit = 10
    tree.root["memory"].charge_common(10)
    attached = group.attach()
    asking = threading.Event()

    def wait() -> None:
        asking.set()
        attached["memory"].charge(5, wait=True, timeout=10)

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(wait)
        asking.wait()
        time.sleep(0.05)  # the request is in the queue by now, or finds the group closed: the error is the same
        (attached if what == "group" else tree).close()
        error = waiting.exception(5)
    assert isinstance(error, expected), repr(error)
    assert "closed" in str(error)

"""The wait for requests: a worker takes a ready request at once, and other tasks still run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import trio

from fsmount.filesystem.request_loop import Lock, LowLevel


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


class Turns:
    """The number of times that another task has run."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            self.count += 1
            await trio.lowlevel.checkpoint()


async def test_a_ready_request_is_served_at_once_and_other_tasks_still_run(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"request")
    low_level, others = LowLevel(), Turns()
    waits = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others.run)
        while others.count < 5:
            await low_level.wait_readable(reader)
            waits += 1
        nursery.cancel_scope.cancel()
    assert waits > 10 * others.count


async def test_the_worker_waits_for_a_later_request(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    low_level = LowLevel()
    for _ in range(3):
        later = threading.Timer(0.03, os.write, (writer, b"request"))
        later.start()
        await low_level.wait_readable(reader)
        assert os.read(reader, 100) == b"request"
        later.join()


async def test_closing_the_descriptor_wakes_the_worker(pipe: tuple[int, int]) -> None:
    low_level = LowLevel()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await low_level.wait_readable(pipe[0])

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        low_level.notify_closing(pipe[0])


async def test_a_worker_keeps_the_lock_until_it_sleeps_without_it() -> None:
    lock = Lock()
    order: list[str] = []

    async def work(name: str) -> None:
        for _ in range(3):
            async with lock:
                await trio.lowlevel.checkpoint()
                order.append(name)

    async with trio.open_nursery() as nursery, lock:
        nursery.start_soon(work, "a")
        nursery.start_soon(work, "b")
        await trio.testing.wait_all_tasks_blocked()
        assert order == []
    assert "".join(order) in ("aaabbb", "bbbaaa")

"""The wait for the kernel's next request.

Before each request pyfuse3 waits through trio, under a lock that its workers hand to each other.  That costs two
switches of tasks and three system calls, more than the rest of a request.  Yet the next request often comes within
microseconds: a read() and a close() follow an open(), and a writer writes again.

So a worker that has answered polls for the next request for a moment.  Between two polls it yields its processor, which
the caller may need.  On separate processors, neither goes to sleep and has to be woken.  After that moment, and every
few milliseconds in any case, the worker waits through trio, so that other tasks run.

pyfuse3 finds trio by its attribute `trio`, so that it can run under asyncio.  Here that attribute is trio with another
lock and another wait.
"""

import select
from os import sched_yield
from time import monotonic
from typing import Any

import pyfuse3
import trio

#: The largest number of requests under way at once, including readers that wait for a long text.
TASKS = 1024

#: The time that a worker polls for a request, in seconds: about as long as a request takes.
_MOMENT = 20e-6

#: The longest time that requests follow each other before other tasks run, in seconds.
_BURST = 0.005

_served = 0


def served() -> int:
    """The number of requests so far, including the next one; a process has one mount."""
    return _served


class Lock:
    """The lock of the one worker that waits for a request: the first worker that finds it free takes it.

    The lock is not handed over.  So the same worker takes it again after each quick request, and no other worker has to
    wake up.
    """

    def __init__(self) -> None:
        self._taken = False
        self._others = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._taken:
            await self._others.park()
        self._taken = True

    async def __aexit__(self, *_exception: object) -> None:
        self._taken = False
        self._others.unpark()


class LowLevel:
    """trio.lowlevel with a wait_readable() that first polls for a moment."""

    def __init__(self) -> None:
        self._epoll = select.epoll()  # poll() fails for a process at its limit of descriptors
        self._watched: int | None = None
        self._burst_ends = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Waits for the next request."""
        global _served
        _served += 1
        if descriptor != self._watched:
            self._epoll.register(descriptor, select.EPOLLIN)
            self._watched = descriptor
        now = monotonic()
        if now < self._burst_ends:
            end = now + _MOMENT
            while now < end:
                if self._epoll.poll(0, 1):
                    return
                sched_yield()
                now = monotonic()
        await trio.lowlevel.wait_readable(descriptor)
        self._burst_ends = monotonic() + _BURST


class Trio:
    """trio with Lock and LowLevel."""

    Lock = Lock

    def __init__(self) -> None:
        self.lowlevel = LowLevel()

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


async def serve_requests() -> None:
    """pyfuse3.main() with the wait described above.  Called after pyfuse3.init()."""
    pyfuse3.trio = Trio()  # type: ignore[attr-defined]
    await pyfuse3.main(max_tasks=TASKS)

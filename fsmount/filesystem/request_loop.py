"""How the daemon waits for the kernel's next request.

pyfuse3 waits through trio before each one, under a lock that its workers hand around: two switches of tasks, three
system calls.  That takes longer than all else there is to a request, although the next one mostly comes within
microseconds: an open() is followed by a read() and a close(), and who writes once writes again.

So a worker that has answered looks whether the next request is there, for a moment, and lets whoever is on its
processor run in between: its caller, if they share one; and if they do not, none of the two processors has to be
woken up.  Only after that moment it waits through trio, and so does it every few milliseconds whatever comes, so that
the other tasks have their turn.

pyfuse3 uses whatever its attribute `trio` is, which is how it comes to run under asyncio.  Here it is trio but for the
lock and the waiting.
"""

import select
from os import sched_yield
from time import monotonic
from typing import Any

import pyfuse3
import trio

#: How many requests may be under way at once: those of readers that wait for a long text among them.
TASKS = 1024

#: How long a worker looks, in seconds; about as long as a request takes.
_MOMENT = 20e-6

#: How long requests may follow each other before other tasks have their turn, in seconds.
_TURN = 0.005

_served = 0


def served() -> int:
    """How many requests were served so far, and the one that is waited for; a process has one mount."""
    return _served


class Lock:
    """One worker at a time waits for a request: whoever comes first when it is free, and nobody has it handed to him.

    So a worker that comes back before he has slept goes on, and no other has to be woken up for each request.
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
    """trio.lowlevel, but for wait_readable(), which looks for a moment first."""

    def __init__(self) -> None:
        self._epoll = select.epoll()  # poll() is refused to who may have no more descriptors
        self._watched: int | None = None
        self._turn_ends = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Called before each request."""
        global _served
        _served += 1
        if descriptor != self._watched:
            self._epoll.register(descriptor, select.EPOLLIN)
            self._watched = descriptor
        now = monotonic()
        if now < self._turn_ends:
            end = now + _MOMENT
            while now < end:
                if self._epoll.poll(0, 1):
                    return
                sched_yield()
                now = monotonic()
        await trio.lowlevel.wait_readable(descriptor)
        self._turn_ends = monotonic() + _TURN


class Trio:
    """trio, but for what is above."""

    Lock = Lock

    def __init__(self) -> None:
        self.lowlevel = LowLevel()

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


async def serve_requests() -> None:
    """pyfuse3.main(), with every request waited for as told above.  After pyfuse3.init()."""
    pyfuse3.trio = Trio()  # type: ignore[attr-defined]
    await pyfuse3.main(max_tasks=TASKS)

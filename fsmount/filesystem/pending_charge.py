"""A charge of an open lease that was refused, or that waits for room.

An open lease remembers a charge that was refused.  The next poll() puts it in the queue, with all other requests that
wait for room.  When there is room, it is kept for this lease: the file becomes writable, and the same command succeeds.
The kernel does not report the end of a poll(), so room that is not fetched within a second is given back.

Most operations run in the event loop's thread, and an operation that must wait runs in a worker thread; so does the
return of room that was not fetched.  A lock keeps them apart: otherwise a write could fetch room that another thread is
giving back.

`wait` in front of the amounts enters the queue at once, at its end, even where there is room.  Such a request stays in
the queue until it is granted or another `wait` is written, and its grant is kept.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import trio

from fsmount.errors import LimitExceeded
from fsmount.filesystem.guard import MustWait, in_loop, persist
from fsmount.shm import Lease

#: The time that a polled lease has to fetch its room, in seconds.
_FETCHED_WITHIN = 1.0

#: The amount to charge, from the amount in the command and the amount that is held.
_CHANGES: dict[str, Callable[[int, int], int]] = {
    "set": lambda amount, held: amount - held,
    "add": lambda amount, _: amount,
    "subtract": lambda amount, _: -amount,
}

Changes = Mapping[str, tuple[str, int]]


class PendingCharge:
    """The request of one open lease file, in the queue or before it."""

    __slots__ = ("_expiring", "_lock", "lease", "_patient", "_wanted")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self._lock = threading.Lock()
        self._wanted: dict[str, int] = {}  # the amounts that were refused, or wait for room
        self._patient = False  # whether the command was `wait`
        self._expiring: dict[str, int] | None = None  # the amounts that are given back unless fetched in time

    @property
    def waits(self) -> bool:
        """Whether a charge was refused, or waits for room."""
        return bool(self._wanted)

    @property
    def queued(self) -> bool:
        """Whether the request is in the queue, or granted and not fetched yet."""
        return self.lease.waits or bool(self.lease.granted)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Excludes other operations on the lease during the block.

        MustWait: another operation runs, and the event loop's thread does not wait for it.
        """
        if not self._lock.acquire(blocking=not trio.lowlevel.in_trio_run()):
            raise MustWait
        try:
            yield
        finally:
            self._lock.release()

    def held(self) -> dict[str, int]:
        """The amounts that the lease holds, without room that is kept for its request."""
        with self.alone():
            return self._held()

    def _held(self) -> dict[str, int]:
        kept = self.lease.granted if self.lease.look() else {}
        return {resource: amount - kept.get(resource, 0) for resource, amount in self.lease.held.items()}

    def change(self, changes: Changes) -> None:
        """Charges or uncharges; a repeated change fetches the room kept for it.  LimitExceeded, NotHeld."""
        with self.alone():
            self._change(changes)

    def _change(self, changes: Changes) -> None:
        if self._wanted and not self._patient:
            if self.lease.look() and _amounts(changes, self._held()) == self._wanted:
                self._fetch()
                return
            self._forget()
        elif self._patient and any(change == "set" for change, _ in changes.values()):
            self._forget()
        amounts = _amounts(changes, self._held())
        try:
            self.lease.change(amounts)
        except LimitExceeded:
            if not self._patient:
                self._wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
            raise

    def wait(self, amounts: Mapping[str, int]) -> None:
        """Charges these amounts when its turn comes; EAGAIN until then.  Without amounts it leaves the queue."""
        with self.alone():
            self._wait(amounts)

    def _wait(self, amounts: Mapping[str, int]) -> None:
        wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
        if not (self._patient and self._wanted == wanted):
            self._forget()
            if not wanted:
                return
            self.lease.ask(wanted)
            self._wanted, self._patient = wanted, True
        if not self.lease.look():
            raise OSError(errno.EAGAIN, "the request is in the queue; poll() reports when the file is writable")
        self._fetch()

    def has_come(self) -> bool:
        """Whether the request is granted.  A request outside the queue enters it."""
        with self.alone():
            return self._has_come()

    def _has_come(self) -> bool:
        if not self.queued:
            self.lease.ask(self._wanted)
        if not self.lease.look():
            return False
        if not self._patient and self._expiring is not self._wanted:
            self._expiring = self._wanted
            in_loop(trio.lowlevel.spawn_system_task, self._give_back_unfetched, self._wanted)
        return True

    async def _give_back_unfetched(self, wanted: dict[str, int]) -> None:
        await trio.sleep(_FETCHED_WITHIN)
        await persist(partial(self._give_back, wanted))

    def _give_back(self, wanted: dict[str, int]) -> None:
        with self.alone():
            if self._wanted is wanted:
                self.lease.give_up()
                self._wanted = dict(wanted)  # the next poll() enters the queue again

    def _fetch(self) -> None:
        self.lease.accept_grant()
        self._wanted, self._patient = {}, False

    def _forget(self) -> None:
        self.lease.give_up()
        self._wanted, self._patient = {}, False


def _amounts(changes: Changes, held: Mapping[str, int]) -> dict[str, int]:
    return {resource: _CHANGES[change](amount, held[resource]) for resource, (change, amount) in changes.items()}

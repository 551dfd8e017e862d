"""Whose turn it is: a lease that was refused, and goes on trying.

A command that charges and is refused is remembered.  Who then calls poll() stands in line for it, with everybody else
who waits for room, and the file is writable when the room was found: it is set aside for this lease, so the same
command succeeds when it is written once more.  Nobody tells us when somebody stops polling, so what is not fetched
for a second is given back.

`wait` in front of the amounts stands in line at once, and behind those who are there already, also where there is room.
Who says so means it: it stays in line until it is granted, or another `wait` is written, and what was granted stays.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

import trio

from fsmount.errors import LimitExceeded
from fsmount.filesystem.guard import in_loop, persist
from fsmount.shm import Lease

#: For so long what is set aside for one who polled is his to fetch, in seconds.
_FETCHED_WITHIN = 1.0

#: What is charged so that so much is held afterwards, or so much more or less.
_CHANGES: dict[str, Callable[[int, int], int]] = {
    "set": lambda amount, held: amount - held,
    "add": lambda amount, _: amount,
    "subtract": lambda amount, _: -amount,
}

Changes = Mapping[str, tuple[str, int]]


class PendingCharge:
    """The place in line of one open lease file."""

    __slots__ = ("_lease", "_patient", "_set_aside", "_wanted")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._wanted: dict[str, int] = {}  # what was refused, or is waited for
        self._patient = False  # whether it was asked for with `wait`
        self._set_aside: dict[str, int] | None = None  # what is given back when it is not fetched in time

    @property
    def waits(self) -> bool:
        """Whether something was refused, or is waited for."""
        return bool(self._wanted)

    @property
    def in_line(self) -> bool:
        """Whether it stands in line, or something is set aside for it."""
        return self._lease.waits or bool(self._lease.unclaimed)

    def held(self) -> dict[str, int]:
        """What the lease holds, but for what is set aside."""
        aside = self._lease.unclaimed if self._lease.look() else {}
        return {resource: amount - aside.get(resource, 0) for resource, amount in self._lease.held.items()}

    def change(self, changes: Changes) -> None:
        """Charges or gives back, or fetches what was set aside for just that.  LimitExceeded, NotHeld."""
        if self._wanted and not self._patient:
            if self._lease.look() and _amounts(changes, self.held()) == self._wanted:
                self._claim()
                return
            self._forget()
        elif self._patient and any(change == "set" for change, _ in changes.values()):
            self._forget()
        amounts = _amounts(changes, self.held())
        try:
            self._lease.change(amounts)
        except LimitExceeded:
            if not self._patient:
                self._wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
            raise

    def wait(self, amounts: Mapping[str, int]) -> None:
        """Charges these amounts when it is its turn: EAGAIN until then.  Without any it stands in line no more."""
        wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
        if not (self._patient and self._wanted == wanted):
            self._forget()
            if not wanted:
                return
            self._lease.ask(wanted)
            self._wanted, self._patient = wanted, True
        if not self._lease.look():
            raise OSError(errno.EAGAIN, "it stands in line; poll() tells when the file is writable")
        self._claim()

    def has_come(self) -> bool:
        """Whether what is waited for was granted; who asks stands in line for it."""
        if not self.in_line:
            self._lease.ask(self._wanted)
        if not self._lease.look():
            return False
        if not self._patient and self._set_aside is not self._wanted:
            self._set_aside = self._wanted
            in_loop(trio.lowlevel.spawn_system_task, self._give_back_unfetched, self._wanted)
        return True

    async def _give_back_unfetched(self, wanted: dict[str, int]) -> None:
        await trio.sleep(_FETCHED_WITHIN)
        if self._wanted is wanted:
            self._wanted = dict(wanted)  # who polls again stands in line again
            await persist(self._lease.give_up)

    def _claim(self) -> None:
        self._lease.claim()
        self._wanted, self._patient = {}, False

    def _forget(self) -> None:
        self._lease.give_up()
        self._wanted, self._patient = {}, False


def _amounts(changes: Changes, held: Mapping[str, int]) -> dict[str, int]:
    return {resource: _CHANGES[change](amount, held[resource]) for resource, (change, amount) in changes.items()}

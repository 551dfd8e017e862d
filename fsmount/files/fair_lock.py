"""A lock for threads and tasks alike, in the order of their requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fsmount.interface.event_loops import alarm


class FairLock:
    """A lock that one thread or task owns at a time, in the order of their requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The function that woke the owner; it stands for the owner.
        self._owner: Callable[[], None] | None = None
        #: The functions that wake the waiters, the next owner's first.
        self._others: deque[Callable[[], None]] = deque()

    @contextmanager
    def held_for(self, timeout: float | None) -> Iterator[bool]:
        """Holds the lock during the block, for a thread; False: it was not free within `timeout` seconds."""
        handed = threading.Event()
        wake = handed.set
        try:
            yield self._take(wake) or handed.wait(timeout)
        finally:
            try:
                self._leave(wake)
            except BaseException:  # an interrupt
                self._leave(wake)
                raise

    async def __aenter__(self) -> None:
        wake, sleep, checkpoint = alarm()
        await checkpoint()
        try:
            if not self._take(wake):
                await sleep()
        except BaseException:
            self._leave(wake)
            raise

    async def __aexit__(self, *_exception: object) -> None:
        assert self._owner
        self._leave(self._owner)

    def _take(self, wake: Callable[[], None]) -> bool:
        with self._lock:
            if self._owner is not None:
                self._others.append(wake)
                return False
            self._owner = wake
            return True

    def _leave(self, wake: Callable[[], None]) -> None:
        """Hands the lock over, or leaves the queue; does nothing for a caller in neither place.

        After an interrupt it is called again.  So it wakes the next owner first.  No call follows that an interrupt
        could separate from the change of the owner.
        """
        with self._lock:
            if self._owner is wake:
                if self._others:
                    following = self._others[0]
                    following()
                    del self._others[0]
                    self._owner = following
                else:
                    self._owner = None
            else:
                with suppress(ValueError):
                    self._others.remove(wake)

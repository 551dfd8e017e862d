"""The worker threads that make long texts, which readers share.

The text of many groups or holders takes up to seconds, and in the event loop it would delay all requests.  Three rules
keep the daemon responsive under any readers:

- Readers share.  A reader gets a text that was begun after its read, so that the text is fresh.  All reads of a file
  that arrive while a text is being made wait for the next text.  So at most one text of a file is being made, and at
  most one more is queued.
- There are two lanes, of one thread each.  One is for root and the owner of the mount only.  In the other lane users
  take turns, one text each.  After each text a lane rests as long as the text took, so that readers in a loop leave
  the interpreter and the region's lock to other requests for half of the time.
- A waiting reader occupies one of the TASKS tasks of the request loop.  Root and the owner may always wait.  Another
  user gets at most half of the free places, and EAGAIN beyond that.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import trio
from pyfuse3 import FUSEError

from fsmount.control_files.text import Text
from fsmount.filesystem.guard import wait_in_thread
from fsmount.filesystem.request_loop import TASKS
from fsmount.filesystem.texts import freed_memory

#: The largest number of tasks of ordinary users that wait for texts.
_PLACES = TASKS * 3 // 4

#: The longest rest of a lane, in seconds.
_REST_MAX = 1.0

Make = Callable[[], Text]


class _Making:
    """A text that readers wait for."""

    __slots__ = ("begun", "done", "error", "key", "make", "text")

    def __init__(self, key: Hashable, make: Make) -> None:
        self.key = key
        self.make = make
        self.begun = False
        self.done = trio.Event()
        self.text: Text | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Makes the text, in a worker thread."""
        try:
            self.text = wait_in_thread(self.make)
        except Exception as error:
            self.error = error

    def outcome(self) -> Text:
        if self.error is not None:
            raise self.error
        assert self.text is not None
        return self.text


class _Lane:
    """A thread that makes one text after the other, for the users in turn."""

    def __init__(self) -> None:
        self._queued: dict[Hashable, _Making] = {}
        self._queues: dict[int, deque[_Making]] = {}
        self._wanted = trio.Event()
        self._thread = trio.CapacityLimiter(1)

    def ask(self, user: int, key: Hashable, make: Make) -> _Making:
        making = self._queued.get(key)
        if making is None:
            making = self._queued[key] = _Making(key, make)
        queue = self._queues.setdefault(user, deque())
        if making not in queue:
            queue.append(making)
        self._wanted.set()
        return making

    async def run(self) -> None:
        """Makes texts until it is cancelled."""
        while True:
            making = self._next()
            if making is None:
                self._wanted = trio.Event()
                await self._wanted.wait()
                continue
            del self._queued[making.key]
            making.begun = True
            began = trio.current_time()
            await trio.to_thread.run_sync(making.run, limiter=self._thread)
            making.done.set()
            if making.text is not None:
                freed_memory.note(making.text.length)
            await trio.sleep(min(trio.current_time() - began, _REST_MAX))

    def _next(self) -> _Making | None:
        while self._queues:
            user, queue = next(iter(self._queues.items()))
            del self._queues[user]
            while queue:
                making = queue.popleft()
                if not making.begun:
                    if queue:
                        self._queues[user] = queue  # the user goes behind the others
                    return making
        return None


class TextMakers:
    """The makers of texts, in two lanes.  For the event loop's thread."""

    def __init__(self) -> None:
        self._trusted = frozenset({0, os.getuid()})
        self._lane = _Lane()
        self._trusted_lane = _Lane()
        self._waiting: dict[int, int] = {}

    async def run(self) -> None:
        """Makes texts until it is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lane.run)
            nursery.start_soon(self._trusted_lane.run)

    async def text(self, user: int, key: Hashable, make: Make) -> Text:
        """A text that is begun after this call.  Raises the error of make(); EAGAIN: too many readers wait.

        key: readers with the same key share a text.  make: called in a worker thread.
        """
        if user in self._trusted:
            making = self._trusted_lane.ask(user, key, make)
            await making.done.wait()
        else:
            with self._place(user):
                making = self._lane.ask(user, key, make)
                await making.done.wait()
        return making.outcome()

    @contextmanager
    def _place(self, user: int) -> Iterator[None]:
        waiting = self._waiting.get(user, 0)
        if waiting >= _PLACES - sum(self._waiting.values()):
            raise FUSEError(errno.EAGAIN)
        self._waiting[user] = waiting + 1
        try:
            yield
        finally:
            self._waiting[user] -= 1
            if self._waiting[user] == 0:
                del self._waiting[user]

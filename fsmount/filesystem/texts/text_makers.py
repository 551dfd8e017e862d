"""Long texts are made in worker threads, and readers share them.

The text of many groups or holders takes up to seconds, and in the event loop it would delay everybody.  Three rules
keep the daemon responsive whoever reads what:

- Readers share.  A reader gets a text whose making began after the read did, so that it is fresh.  All reads of a file
  that come while one text is being made wait for the next, and get that one.  So there is at most one text in the
  making for a file, and one to come.
- There are two lanes, of one thread each.  One is for root and the owner of the mount, and is never occupied by
  others.  In the other lane users take turns, one text each.  After each text a lane rests as long as the making took:
  readers in a loop leave the interpreter and the region's lock to others for half of the time.
- Readers that wait cost tasks of the request loop, of which there are TASKS.  Root and the owner may always wait;
  another user gets at most half of the places that are free, and EAGAIN beyond that.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import trio
from pyfuse3 import FUSEError

from fsmount.filesystem.guard import wait_in_thread
from fsmount.filesystem.request_loop import TASKS
from fsmount.filesystem.texts import freed_memory
from fsmount.filesystem.texts.kept_texts import Text

#: How many tasks wait for texts of ordinary users at most.
_PLACES = TASKS * 3 // 4

#: How long a lane rests at most, in seconds.
_REST_MAX = 1.0

Make = Callable[[], Text]


class _Making:
    """A text that somebody waits for."""

    __slots__ = ("begun", "done", "error", "key", "make", "text")

    def __init__(self, key: Hashable, make: Make) -> None:
        self.key = key
        self.make = make
        self.begun = False
        self.done = trio.Event()
        self.text: Text | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        """In a worker thread."""
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
    """One text after the other, of the users in turn."""

    def __init__(self) -> None:
        self._to_come: dict[Hashable, _Making] = {}
        self._queues: dict[int, deque[_Making]] = {}
        self._wanted = trio.Event()
        self._thread = trio.CapacityLimiter(1)

    def ask(self, user: int, key: Hashable, make: Make) -> _Making:
        making = self._to_come.get(key)
        if making is None:
            making = self._to_come[key] = _Making(key, make)
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
            del self._to_come[making.key]
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
                        self._queues[user] = queue  # behind the other users
                    return making
        return None


class TextMakers:
    """Both lanes.  For the event loop's thread."""

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
        """A text that begins to be made from now on.  Raises what make() raises; EAGAIN: too many wait.

        key: says which text it is, so that it can be shared.  make: called in a worker thread.
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

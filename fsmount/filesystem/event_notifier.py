"""The daemon's end of the region's event notifier: it wakes pollers when any process counts an event.

A process that counts an event wakes the notifier once for each time that it is armed.  A worker thread sleeps until
then.  One look at the polled files serves all events since the last look.  While no file is polled, the notifier is not
armed, and charges pay nothing for it.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from fsmount.filesystem.guard import await_in_thread
from fsmount.shm import Tree

#: How long a thread waits at a time, in seconds.  The thread may outlive the mount by that time.
_WAIT = 5.0


class EventNotifier:
    """For the event loop's thread.  `answer` looks at the polled files, and returns whether there are any."""

    def __init__(self, tree: Tree, answer: Callable[[], Awaitable[bool]]) -> None:
        self._tree = tree
        self._answer = answer
        self._wanted = trio.Event()

    def arm(self) -> None:
        """A process begins to poll: every event counted from here on wakes the notifier."""
        if not self._wanted.is_set():
            self._tree.listen(True)
            self._wanted.set()

    async def run(self) -> None:
        """Answers events until it is cancelled."""
        while True:
            await self._wanted.wait()
            await await_in_thread(partial(self._tree.await_event, _WAIT))
            self._tree.listen(True)  # before the files are looked at
            if not await self._answer():
                self._wanted = trio.Event()
                self._tree.listen(False)

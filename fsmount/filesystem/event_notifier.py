"""The daemon's end of the region's event notifier: it wakes pollers when any process counts an event.

While the notifier is armed, the next process that counts an event wakes it, and a worker thread sleeps until then.  The
daemon then checks all polled files at once.  While no file is polled, the notifier is not armed, and charges pay
nothing for it.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from fsmount.filesystem.guard import await_in_thread
from fsmount.shm import Tree

#: The longest wait of the thread, in seconds.  The thread may outlive the mount by that time.
_WAIT = 5.0


class EventNotifier:
    """Waits for events.  `answer` checks the polled files, and returns whether there are any.  For the event loop."""

    def __init__(self, tree: Tree, answer: Callable[[], Awaitable[bool]]) -> None:
        self._tree = tree
        self._answer = answer
        self._wanted = trio.Event()

    def arm(self) -> None:
        """Arms the notifier for a process that begins to poll: the next event wakes it."""
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

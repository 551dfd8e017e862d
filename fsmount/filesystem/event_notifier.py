"""Who polls for events of the tree is woken when there is one, however it came about.

The region has an event notifier.  A process that counts an event wakes it, once for each time that it was armed; a
worker thread sleeps until then.  One look at the polled files serves
all events since then.  While nobody polls, the bell is not armed, and nobody who charges takes note of it.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from fsmount.filesystem.guard import await_in_thread
from fsmount.shm import Tree

#: For how long a thread waits at a time, in seconds: so much longer it may be there when the mount ends.
_WAIT = 5.0


class EventNotifier:
    """For the event loop's thread.  `answer` looks at the files that are polled, and says whether there are any."""

    def __init__(self, tree: Tree, answer: Callable[[], Awaitable[bool]]) -> None:
        self._tree = tree
        self._answer = answer
        self._wanted = trio.Event()

    def arm(self) -> None:
        """Somebody is going to poll: what is counted from here on is heard."""
        if not self._wanted.is_set():
            self._tree.listen(True)
            self._wanted.set()

    async def run(self) -> None:
        """Hears events until it is cancelled."""
        while True:
            await self._wanted.wait()
            await await_in_thread(partial(self._tree.await_event, _WAIT))
            self._tree.listen(True)  # before the files are looked at
            if not await self._answer():
                self._wanted = trio.Event()
                self._tree.listen(False)

"""Open files that somebody polls, and waking the pollers.

Users decide how many files are polled, so no step here takes longer because of other groups' files, and an event in
the tree, after which every listening file is looked at, lets other requests pass in between.
"""

from collections.abc import Iterable
from contextlib import suppress

import trio

from fsmount.control_files.control_file import ControlFile
from fsmount.filesystem.event_notifier import EventNotifier
from fsmount.shm import Tree

#: Files that are looked at before other requests may pass.
_AT_ONCE = 64


class PolledFiles:
    """For the event loop's thread."""

    def __init__(self, tree: Tree) -> None:
        self._files: dict[int, ControlFile] = {}
        self._in_group: dict[int, set[int]] = {}
        self._listening: set[int] = set()  # those that wait for events
        self._event_notifier = EventNotifier(tree, self._wake_for_events)

    async def run(self) -> None:
        """Wakes who polls for events, until it is cancelled."""
        await self._event_notifier.run()

    def add(self, handle: int, opened: ControlFile) -> None:
        """Somebody polls this file: to be called before its state is looked at."""
        self._files[handle] = opened
        self._in_group.setdefault(opened.group.id, set()).add(handle)
        if opened.listens:
            self._listening.add(handle)
            self._event_notifier.arm()

    def discard(self, handle: int) -> ControlFile | None:
        """Nobody polls this file any more, if somebody did."""
        opened = self._files.pop(handle, None)
        if opened is not None:
            self._listening.discard(handle)
            group = opened.group.id
            self._in_group[group].discard(handle)
            if not self._in_group[group]:
                del self._in_group[group]
        return opened

    def wake(self, removed: Iterable[int]) -> None:
        """Processes that poll a file of these groups get POLLERR."""
        for group in removed:
            for handle in list(self._in_group.get(group, ())):
                self._notify(handle)

    def _notify(self, handle: int) -> None:
        """Has the kernel ask once more; it gives us another handle when somebody goes on polling."""
        opened = self.discard(handle)
        if opened is not None and opened.waiter is not None:
            with suppress(OSError):
                opened.waiter.notify()

    async def _wake_for_events(self) -> bool:
        for number, handle in enumerate(list(self._listening), 1):
            if handle in self._listening and self._has_news(handle):
                self._notify(handle)
            if number % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return bool(self._listening)

    def _has_news(self, handle: int) -> bool:
        try:
            return self._files[handle].has_news()
        except OSError:
            return True  # poll() tells

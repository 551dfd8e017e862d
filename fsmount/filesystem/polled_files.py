"""The open files that processes poll, and the wake-up of the pollers.

Users decide how many files are polled, so the work for one file must not grow with the number of files.  Only after an
event in the tree is every listening file checked, and other requests are served in between.
"""

from collections.abc import Iterable
from contextlib import suppress

import trio

from fsmount.control_files.control_file import ControlFile
from fsmount.filesystem.event_notifier import EventNotifier
from fsmount.filesystem.guard import MustWait
from fsmount.shm import Tree

#: The number of files that are checked before other requests are served.
_AT_ONCE = 64


class PolledFiles:
    """The polled files by handle.  For the event loop's thread."""

    def __init__(self, tree: Tree) -> None:
        self._files: dict[int, ControlFile] = {}
        self._in_group: dict[int, set[int]] = {}
        self._listening: set[int] = set()  # the files that wait for events of the tree
        self._event_notifier = EventNotifier(tree, self._wake_for_events)

    async def run(self) -> None:
        """Wakes pollers when there are events, until it is cancelled."""
        await self._event_notifier.run()

    def add(self, handle: int, opened: ControlFile) -> None:
        """Adds a file that a process polls, before its state is read, so that no change is missed."""
        self._files[handle] = opened
        self._in_group.setdefault(opened.group.id, set()).add(handle)
        if opened.listens:
            self._listening.add(handle)
            self._event_notifier.arm()

    def discard(self, handle: int) -> ControlFile | None:
        """Removes a file; returns it if a process has polled it."""
        opened = self._files.pop(handle, None)
        if opened is not None:
            self._listening.discard(handle)
            group = opened.group.id
            self._in_group[group].discard(handle)
            if not self._in_group[group]:
                del self._in_group[group]
        return opened

    def wake(self, removed: Iterable[int]) -> None:
        """Wakes the pollers of files in removed groups; they get POLLERR."""
        for group in removed:
            for handle in list(self._in_group.get(group, ())):
                self._notify(handle)

    def _notify(self, handle: int) -> None:
        """Makes the kernel poll the file again, with a new handle if the process still polls."""
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
        except (OSError, MustWait):
            return True  # poll() reports the error, or waits

"""The times at which files were last written.

A write takes some microseconds, and a store into the region each time would slow it down.  So the daemon keeps the
times, and stores them when there are many and when the mount ends.  If the daemon is killed, the last times are lost.

The event loop's thread notes and stores all times.  A reader looks here first and then in the region, so it also finds
a time that is being stored.  A handler that sets a time drops the time here.  No write comes between, because the
kernel sends either a write or a change of attributes to an inode at a time.
"""

import logging
from collections.abc import Callable
from itertools import islice

from fsmount.errors import LockTimeout

log = logging.getLogger(__name__)

#: The largest number of kept times.
_MANY = 1024

#: The number of times that one call stores.
_STORED_AT_ONCE = 16


class WriteTimes(dict[int, int]):
    """Inode number -> when the file was written, in nanoseconds since the epoch, until the time is in the region."""

    def __init__(self, store: Callable[[int, int], None]) -> None:
        super().__init__()
        self._store = store

    def note(self, inode: int, written: int) -> None:
        """Notes that a file was written at this time."""
        self[inode] = written
        if len(self) > _MANY:
            self.store(_STORED_AT_ONCE)

    def store(self, max_times: int | None = None) -> None:
        """Stores all times, or at most `max_times`; a time that cannot be stored now is kept.  Never raises."""
        for inode, written in list(islice(self.items(), max_times)):
            try:
                self._store(inode, written)
            except LockTimeout:
                return
            except OSError as error:
                log.debug("cannot store the time of a write: %s", error)  # the group is gone
            except Exception:
                log.exception("cannot store the time of a write")
            self.pop(inode, None)

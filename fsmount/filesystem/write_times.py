"""When files were last written.

A write of some microseconds must not pay for a store into the region each time.  So the daemon keeps the times and
stores them when there are many, and at its end.  Its last ones are lost if it is killed.

Times are noted, and stored, in the event loop's thread only.  Whoever shows a time asks here first and in the region
after that, so that it cannot be missed while it moves.  Whoever sets one drops what is here; no write can come between,
as the kernel lets only one of both at a time to an inode.
"""

import logging
from collections.abc import Callable
from itertools import islice

from fsmount.errors import LockTimeout

log = logging.getLogger(__name__)

#: So many are kept at most.
_MANY = 1024


class WriteTimes(dict[int, int]):
    """Inode number -> when it was written, in nanoseconds since the epoch, of times that are not in the region yet."""

    def __init__(self, store: Callable[[int, int], None]) -> None:
        super().__init__()
        self._store = store

    @property
    def many(self) -> bool:
        return len(self) > _MANY

    def store(self, most: int | None = None) -> None:
        """Stores them all, or as many as `most`; those that cannot be stored now are kept.  Never raises."""
        for inode, written in list(islice(self.items(), most)):
            try:
                self._store(inode, written)
            except LockTimeout:
                return
            except OSError as error:
                log.debug("the time of a write is not stored: %s", error)  # the group is gone
            except Exception:
                log.exception("the time of a write is not stored")
            self.pop(inode, None)

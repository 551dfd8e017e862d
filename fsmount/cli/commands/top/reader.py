"""A thread that looks at the groups, or at the holders of one, again and again.

The screen answers keys while a look takes long, for example because a stopped process holds the region's lock.  After a
look the thread sleeps nine times as long as the look, or as all the work since the look before.  So the cost, here and
in the daemon, stays below a tenth of a processor for any number of groups.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fsmount.cli.ui.snapshot import Groups
from fsmount.errors import GroupRemoved
from fsmount.files import HolderLine, LeaseGroup
from fsmount.protocol.listings import CounterSnapshot

# A look takes at most this share of the time.
_SHARE = 0.1
# Seconds that end() waits for the current look.  A look in the region holds the lock for a few ms; a look through the
# files may be abandoned.
_PATIENCE = 0.1


class Wanted(NamedTuple):
    """The object of a look: a resource of all groups, or its holders in the group at a path."""

    resource: str
    path: str = ""


class GroupsSeen(NamedTuple):
    wanted: Wanted
    rows: Sequence[CounterSnapshot]


class HoldersSeen(NamedTuple):
    """The holders of one group, largest first."""

    wanted: Wanted
    stat: Mapping[str, int]
    holders: Sequence[HolderLine]


class Unseen(NamedTuple):
    """The holders could not be read."""

    wanted: Wanted
    error: OSError


Seen = GroupsSeen | HoldersSeen | Unseen


def look(groups: Groups, wanted: Wanted) -> Seen:
    """Looks once.  OSError: the mount, or the group at the top, is gone or may not be read."""
    if not wanted.path:
        return GroupsSeen(wanted, groups.snapshot([wanted.resource])[wanted.resource])
    try:
        counter = LeaseGroup.at(wanted.path, groups.units)[wanted.resource]
        holders = sorted(counter.holders(), key=lambda holder: holder.held, reverse=True)
        return HoldersSeen(wanted, counter.stat(), holders)
    except (GroupRemoved, PermissionError) as error:
        groups.tell_gone(error)
        return Unseen(wanted, error)


class Reader(threading.Thread):
    """Calls `seen` with each look, and `failed` with the error that ends the thread; both in this thread."""

    def __init__(
        self,
        groups: Groups,
        interval: float,
        wanted: Wanted,
        seen: Callable[[Seen], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self._groups = groups
        self._interval = interval
        self._wanted = wanted
        self._seen = seen
        self._failed = failed
        self._now = threading.Event()
        self._ended = threading.Event()

    def want(self, wanted: Wanted) -> None:
        """Changes the object of the looks, and looks at once."""
        self._wanted = wanted
        self._now.set()

    def end(self) -> None:
        """Ends the thread.  A current look in the region ends first."""
        self._ended.set()
        self._now.set()
        self.join(_PATIENCE)

    def run(self) -> None:
        try:
            used = time.process_time()
            while not self._ended.is_set():
                self._now.clear()
                start = time.monotonic()
                seen = look(self._groups, self._wanted)
                if self._ended.is_set():
                    return
                self._seen(seen)
                # The daemon's work is part of the elapsed time; drawing since the last look is processor time here.
                before, used = used, time.process_time()
                self._now.wait(pause(max(time.monotonic() - start, used - before), self._interval))
        except BaseException as error:
            if not self._ended.is_set():
                self._failed(error)


def pause(took: float, interval: float) -> float:
    """The seconds to sleep after a look that took `took` seconds."""
    return max(interval - took, took * (1 / _SHARE - 1))

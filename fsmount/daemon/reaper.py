"""The end of holders.

A holder's end is an event, and comes in up to three ways:

- its control file is released.  A process ties the file of its holder to its memory (engine/holders/tie.c), so the
  kernel releases it at any death and at exec(), whatever descriptors a forked child has;
- its process ends.  A pidfd becomes readable then;
- nobody could tell us: a look at all holders now and then finds it.

A holder ends once, whichever comes first; the others then find nothing to do.

Who becomes a holder is known at once, however it came to the region: the region itself has a number to wait for, and
it changes before the holder is one.  So there is no instruction at which a process can die and leave a holder nobody
watches.

A pidfd costs a descriptor, one for each process.  All get one while there are enough: it also tells of a death while
a child that was forked in the midst of an introduction has its descriptor still.  Half of those we may have are kept
for holders without a control file here: who attached under a daemon before this one, or cannot reach the mount.  Only
when these alone are too many is the end of some seen by the looks alone; that needs a hard limit of descriptors far
below what systems come with.  Whoever attaches is without a control file for a moment, and many may be so at once:
who is without a descriptor then is no matter unless he still is at the next look.

When the daemon itself is new, the region is full of holders whose control files were released while nobody listened.
The dead are ended then, and the living watched by pidfd.  An open lease cannot be told from a closed one any more: it
lasts as long as the process that opened it.

Many may end at once.  Their pidfds are in one epoll, so that a wake-up brings all who are dead by then; they are ended
in a worker thread, each under the lock for itself, and the loop serves everybody else meanwhile.
"""

from __future__ import annotations

import logging
import os
import resource
import select
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import trio

from fsmount.errors import LockTimeout
from fsmount.filesystem import await_in_thread, persist
from fsmount.shm import PROCESS, Holder, Tree, process_alive

log = logging.getLogger(__name__)

# Seconds between two looks at all holders.
LOOK_INTERVAL = 5.0

# Descriptors for everything else that the daemon does.
_OTHER_FILES = 128


def _room() -> int:
    """How many pidfds we may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES


class _Who(NamedTuple):
    """A process: a pid alone is used again."""

    pid: int
    start_time: int


class _Process:
    """A process that is watched, and its holders."""

    __slots__ = ("holders", "pidfd", "who")

    def __init__(self, who: _Who, pidfd: int) -> None:
        self.who = who
        self.pidfd = pidfd
        self.holders: list[int] = []


class Reaper:
    """Ends each holder of a tree when its process has ended.  All methods are for the event loop's thread."""

    def __init__(self, tree: Tree, leases: list[Holder]) -> None:
        """leases: those that were open when the daemon before died."""
        self._tree = tree
        self._leases = {lease.id for lease in leases}
        self._deaths = select.epoll()
        self._processes: dict[_Who, _Process] = {}
        self._pidfds: dict[int, _Process] = {}
        self._watched: dict[int, _Process] = {}  # by holder
        self._bound: set[int] = set()  # holders with a control file
        self._unwatched: set[int] = set()  # at the last look
        self._ended: list[int] = []
        self._told = trio.Event()
        self._warned = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watches until it is cancelled; started when it can be told of holders."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_as_told)
            nursery.start_soon(self._await_deaths)
            task_status.started()
            await self._await_arrivals()

    def holder_bound(self, holder: int) -> None:
        """A process has introduced its holder: its control file is released when it ends."""
        self._bound.add(holder)
        if not self._has_room():
            self._unwatch(holder)

    def holder_released(self, holder: int) -> None:
        """The control file of a holder has been released."""
        if holder in self._bound:
            self._end([holder])

    # ---- who is there

    async def _await_arrivals(self) -> None:
        seen = 0
        look_at = trio.current_time()
        while True:
            if trio.current_time() >= look_at:
                look_at = trio.current_time() + LOOK_INTERVAL
                seen = await self._await_arrival(seen, 0)
                await self._look_at_all()
            newest = await self._await_arrival(seen, look_at - trio.current_time())
            if newest != seen:
                await self._meet(await self._ask(partial(self._tree.new_holders, seen)))
                seen = newest

    async def _await_arrival(self, seen: int, seconds: float) -> int:
        return await await_in_thread(partial(self._tree.await_arrival, seen, max(seconds, 0)))

    async def _look_at_all(self) -> None:
        holders = await self._ask(self._tree.holders)
        for holder in self._watched.keys() - {holder.id for holder in holders}:
            self._unwatch(holder)  # it ended itself
        unwatched = await self._meet(
            holder for holder in holders if holder.kind == PROCESS or holder.id in self._leases
        )
        if unwatched & self._unwatched:
            self._warn()
        self._unwatched = unwatched

    async def _ask(self, question: Callable[[], list[Holder]]) -> list[Holder]:
        """The answer from a worker thread, however long the region's lock takes; nobody if it failed."""
        answer: list[Holder] = []
        await persist(lambda: answer.extend(question()))
        return answer

    async def _meet(self, holders: Iterable[Holder]) -> set[int]:
        """Watches those that are not watched yet, and ends those that are dead.  Returns whose end is no event."""
        strangers: dict[_Who, list[int]] = {}
        for holder in holders:
            who = _Who(holder.pid, holder.start_time)
            if holder.id in self._watched or not holder.here:
                continue
            if who in self._processes:
                self._watch(self._processes[who], holder.id)
            elif self._needs_watch(holder.id):
                strangers.setdefault(who, []).append(holder.id)
        unwatched: set[int] = set()
        if not strangers:
            return unwatched
        found = await trio.to_thread.run_sync(_open_all, list(strangers), _room() - len(self._processes))
        for who, pidfd in found.items():
            # some have a control file by now
            needy = [holder for holder in strangers[who] if self._needs_watch(holder)]
            if pidfd is None:
                self._end(strangers[who])
            elif pidfd >= 0 and not needy:
                os.close(pidfd)
            elif pidfd < 0 or not self._add(process := _Process(who, pidfd)):
                unwatched.update(set(needy) - self._bound)
            else:
                for holder_id in needy:
                    self._watch(process, holder_id)
        return unwatched

    def _needs_watch(self, holder: int) -> bool:
        """All do while there is room, and without a control file even when there is none."""
        return holder not in self._bound or self._has_room()

    def _has_room(self) -> bool:
        """For one that has a control file."""
        return len(self._processes) < _room() // 2

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "too few descriptors to watch every holder of before: the end of some is noticed within %g s; "
                "raise the hard limit of open files",
                LOOK_INTERVAL,
            )

    # ---- who is watched

    def _add(self, process: _Process) -> bool:
        try:
            self._deaths.register(process.pidfd, select.EPOLLIN)
        except OSError:
            os.close(process.pidfd)
            return False
        self._processes[process.who] = self._pidfds[process.pidfd] = process
        return True

    def _remove(self, process: _Process) -> None:
        self._deaths.unregister(process.pidfd)
        os.close(process.pidfd)
        del self._processes[process.who], self._pidfds[process.pidfd]
        for holder in process.holders:
            del self._watched[holder]

    def _watch(self, process: _Process, holder: int) -> None:
        process.holders.append(holder)
        self._watched[holder] = process

    def _unwatch(self, holder: int) -> None:
        process = self._watched.get(holder)
        if process is None:
            return
        if len(process.holders) == 1:
            self._remove(process)
        else:
            process.holders.remove(holder)
            del self._watched[holder]

    # ---- who has ended

    async def _await_deaths(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._deaths)
            for pidfd, _ in self._deaths.poll(0):
                process = self._pidfds[pidfd]
                self._remove(process)
                self._end(process.holders)

    def _end(self, holders: Iterable[int]) -> None:
        for holder in holders:
            self._bound.discard(holder)
            self._unwatch(holder)
            self._ended.append(holder)
        self._told.set()

    async def _end_as_told(self) -> None:
        while True:
            await self._told.wait()
            self._told = trio.Event()
            ended, self._ended = self._ended, []
            await persist(partial(self._end_each, ended))

    def _end_each(self, holders: list[int]) -> None:
        """In a worker thread.  Begun again after LockTimeout, it goes on with those that are left."""
        while holders:
            log.debug("holder %d ends", holders[-1])
            try:
                self._tree.end_holder(holders[-1])
            except LockTimeout:
                raise
            except OSError as error:  # one holder's, and no other's
                log.error("holder %d is not given back: %s", holders[-1], error)
            holders.pop()


def _open_all(processes: Iterable[_Who], room: int) -> dict[_Who, int | None]:
    """A pidfd for each process while there is room, then -1; None: the process has ended."""
    found: dict[_Who, int | None] = {}
    for who in processes:
        pidfd = -1
        if room > 0:
            with suppress(OSError):
                pidfd = os.pidfd_open(who.pid)
        if process_alive(*who):  # looked at after the pidfd was made: the pid cannot change hands any more
            found[who] = pidfd
            room -= pidfd >= 0
        else:
            found[who] = None
            if pidfd >= 0:
                os.close(pidfd)
    return found

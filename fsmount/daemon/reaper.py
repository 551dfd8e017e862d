"""Ends the holders of processes that have ended.

Three events end a holder; after the first one the others find nothing to do:

- its control channel is released.  A process ties its holder's control channel to its memory (engine/holders/tie.c), so
  the kernel releases it at any death and at exec(), whatever descriptors a forked child has;
- its process ends, and the process's pidfd becomes readable;
- a regular look at all holders finds its process dead.

The daemon learns of a new holder at once: the region numbers the arrivals, and the daemon waits for the next number,
which comes before the holder exists.  So a process can die at any instruction, and the daemon knows its holder.

A pidfd takes one descriptor per process.  While there are enough descriptors, each process gets one: it also reports a
death while a forked child still has a descriptor of a control channel that was about to be tied.  Half of the
descriptors are reserved for processes without a control channel here: they attached under an earlier daemon, or cannot
reach the mount.  If there are too many of these, only the regular look finds the death of some.  This happens only with
a hard limit of open files far below the default of distributions.  A process that attaches has no control channel for a
moment, and many may attach at once.  So a process counts as unwatched only if it has no pidfd at two looks in a row.

A new daemon finds holders whose control channels were released while no daemon ran.  It ends the dead ones, and watches
the others by pidfd.  It cannot distinguish an open lease from a closed one, so such a lease lasts as long as the
process that opened it.

Many processes may end at once.  Their pidfds are in one epoll, so one wake-up reports all of them.  A worker thread
ends the holders, with the lock for each one alone, while the event loop serves requests.
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

# Descriptors for all other files of the daemon.
_OTHER_FILES = 128


def _room() -> int:
    """The number of pidfds that the limit of open files allows."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES


class _ProcessId(NamedTuple):
    """A pid and a start time, which identify a process: the kernel reuses pids."""

    pid: int
    start_time: int


class _Process:
    """A watched process and its holders."""

    __slots__ = ("holders", "id", "pidfd")

    def __init__(self, id: _ProcessId, pidfd: int) -> None:
        self.id = id
        self.pidfd = pidfd
        self.holders: list[int] = []


class Reaper:
    """Ends each holder of a tree when its process has ended.  All methods are for the event loop's thread."""

    def __init__(self, tree: Tree, leases: list[Holder]) -> None:
        """leases: the leases that were open when the previous daemon died."""
        self._tree = tree
        self._leases = {lease.id for lease in leases}
        self._deaths = select.epoll()
        self._processes: dict[_ProcessId, _Process] = {}
        self._pidfds: dict[int, _Process] = {}
        self._watched: dict[int, _Process] = {}  # by holder
        self._bound: set[int] = set()  # holders with a control channel
        self._unwatched: set[int] = set()  # at the last look
        self._ended: list[int] = []
        self._has_ended = trio.Event()
        self._warned = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watches until cancelled; started when holder_bound() may be called."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_holders)
            nursery.start_soon(self._await_deaths)
            task_status.started()
            await self._await_arrivals()

    def holder_bound(self, holder: int) -> None:
        """A process has tied a holder to its control channel, which is released when the process ends."""
        self._bound.add(holder)
        if not self._has_room():
            self._unwatch(holder)

    def holder_released(self, holder: int) -> None:
        """The control channel of a holder has been released."""
        if holder in self._bound:
            self._end([holder])

    # ---- new holders

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
                await self._watch_or_end(await self._ask(partial(self._tree.new_holders, seen)))
                seen = newest

    async def _await_arrival(self, seen: int, seconds: float) -> int:
        return await await_in_thread(partial(self._tree.await_arrival, seen, max(seconds, 0)))

    async def _look_at_all(self) -> None:
        holders = await self._ask(self._tree.holders)
        for holder in self._watched.keys() - {holder.id for holder in holders}:
            self._unwatch(holder)  # the holder has ended
        unwatched = await self._watch_or_end(
            holder for holder in holders if holder.kind == PROCESS or holder.id in self._leases
        )
        if unwatched & self._unwatched:
            self._warn()
        self._unwatched = unwatched

    async def _ask(self, question: Callable[[], list[Holder]]) -> list[Holder]:
        """The answer of a worker thread, which waits for the region's lock; no holders if the question failed."""
        answer: list[Holder] = []
        await persist(lambda: answer.extend(question()))
        return answer

    async def _watch_or_end(self, holders: Iterable[Holder]) -> set[int]:
        """Watches new holders, and ends dead ones.  Returns the holders whose death would cause no event."""
        new: dict[_ProcessId, list[int]] = {}
        for holder in holders:
            process_id = _ProcessId(holder.pid, holder.start_time)
            if holder.id in self._watched or not holder.here:
                continue
            if process_id in self._processes:
                self._watch(self._processes[process_id], holder.id)
            elif self._needs_watch(holder.id):
                new.setdefault(process_id, []).append(holder.id)
        unwatched: set[int] = set()
        if not new:
            return unwatched
        found = await trio.to_thread.run_sync(_open_all, list(new), _room() - len(self._processes))
        for process_id, pidfd in found.items():
            # some have tied a control channel meanwhile
            to_watch = [holder for holder in new[process_id] if self._needs_watch(holder)]
            if pidfd is None:
                self._end(new[process_id])
            elif pidfd >= 0 and not to_watch:
                os.close(pidfd)
            elif pidfd < 0 or not self._add(process := _Process(process_id, pidfd)):
                unwatched.update(set(to_watch) - self._bound)
            else:
                for holder_id in to_watch:
                    self._watch(process, holder_id)
        return unwatched

    def _needs_watch(self, holder: int) -> bool:
        """Whether the holder's process gets a pidfd: always without a control channel, otherwise if there is room."""
        return holder not in self._bound or self._has_room()

    def _has_room(self) -> bool:
        """Whether a process with a control channel may get a pidfd."""
        return len(self._processes) < _room() // 2

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "too few descriptors to watch every process that attached earlier: the death of some is noticed "
                "within %g s; raise the hard limit of open files",
                LOOK_INTERVAL,
            )

    # ---- watched processes

    def _add(self, process: _Process) -> bool:
        try:
            self._deaths.register(process.pidfd, select.EPOLLIN)
        except OSError:
            os.close(process.pidfd)
            return False
        self._processes[process.id] = self._pidfds[process.pidfd] = process
        return True

    def _remove(self, process: _Process) -> None:
        self._deaths.unregister(process.pidfd)
        os.close(process.pidfd)
        del self._processes[process.id], self._pidfds[process.pidfd]
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

    # ---- ended processes

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
        self._has_ended.set()

    async def _end_holders(self) -> None:
        while True:
            await self._has_ended.wait()
            self._has_ended = trio.Event()
            ended, self._ended = self._ended, []
            await persist(partial(self._end_each, ended))

    def _end_each(self, holders: list[int]) -> None:
        """Runs in a worker thread.  After LockTimeout it runs again, with the holders that are left."""
        while holders:
            log.debug("holder %d ends", holders[-1])
            try:
                self._tree.end_holder(holders[-1])
            except LockTimeout:
                raise
            except OSError as error:  # the other holders must end nevertheless
                log.error("holder %d is not released: %s", holders[-1], error)
            holders.pop()


def _open_all(processes: Iterable[_ProcessId], room: int) -> dict[_ProcessId, int | None]:
    """A pidfd for each process, or -1 without room; None: the process has ended."""
    found: dict[_ProcessId, int | None] = {}
    for process_id in processes:
        pidfd = -1
        if room > 0:
            with suppress(OSError):
                pidfd = os.pidfd_open(process_id.pid)
        if process_alive(*process_id):  # checked after pidfd_open(): from then on no other process gets the pid
            found[process_id] = pidfd
            room -= pidfd >= 0
        else:
            found[process_id] = None
            if pidfd >= 0:
                os.close(pidfd)
    return found

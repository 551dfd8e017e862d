"""The end of holders.

A holder's end is an event, and comes in up to three ways:

- its control file is released.  The kernel does that for any death, at once, but not while a
  forked child still has the descriptor;
- its process ends.  A pidfd becomes readable then, whatever the children have;
- nobody told us of it: it charges in the region without the mount, or died between making itself
  known in the region and here.  A look at all holders now and then finds it.

A holder ends once, whichever comes first; the others then find nothing to do.

A released control file is no death when its process lives and maps the region still: somebody
closed descriptors that were not his.  A process that called exec() lives too, but the region has
gone from its memory, and with it everything that could charge there.

When the daemon itself is new, the region is full of holders whose control files were released
while nobody listened.  The dead are ended then, and the living watched by pidfd.  An open lease
cannot be told from a closed one any more: it lasts as long as the process that opened it.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from fsmount.filesystem import persist
from fsmount.tree import PROCESS, Holder, Tree

log = logging.getLogger(__name__)

# Seconds between two looks at all holders.
LOOK_INTERVAL = 5.0

# So many descriptors are left to everything else that the daemon does.
_SPARE_DESCRIPTORS = 16

T = TypeVar("T")


class Reaper:
    """Ends each holder of a tree when its process has ended.  All methods are for the event loop's thread."""

    def __init__(self, tree: Tree, leases: list[Holder]) -> None:
        """leases: those that were open when the daemon before died."""
        self._tree = tree
        self._leases = leases
        self._mapped = _as_mapped(tree.path)
        self._nursery: trio.Nursery | None = None
        self._watched: dict[int, trio.CancelScope] = {}
        self._unwatchable = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watches until it is cancelled; started when it can be told of holders."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            for lease in self._leases:
                if not self._watch(lease):
                    self._start(self._end, lease)
            while True:
                await self._look_at_all()
                await trio.sleep(LOOK_INTERVAL)

    async def _look_at_all(self) -> None:
        watched = set(self._watched)
        holders = await _persist(self._tree.holders)
        if holders is None:
            return
        for number in watched.difference(holder.id for holder in holders) & self._watched.keys():
            self._watched[number].cancel()  # it ended itself
        unseen = [holder for holder in holders if holder.kind == PROCESS and not self._watch(holder)]
        if unseen:  # dead, or in a pid namespace that we do not see: the engine can tell
            await _persist(self._tree.reap)

    def holder_bound(self, holder: int) -> None:
        """A process has introduced its holder."""
        self._start(self._meet, holder)

    def holder_released(self, holder: int) -> None:
        """The control file of a holder has been released."""
        self._start(self._part, holder)

    def _start(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(_guarded, task, *arguments)

    async def _meet(self, number: int) -> None:
        holder = await _persist(partial(self._tree.holder, number))
        if holder is not None and not self._watch(holder):
            await self._end(holder)

    async def _part(self, number: int) -> None:
        holder = await _persist(partial(self._tree.holder, number))
        if holder is not None:
            if await trio.to_thread.run_sync(_can_charge, holder, self._mapped):
                log.debug("process %d closed its control file and lives on", holder.pid)
                return
            await self._end(holder)
        if number in self._watched:
            self._watched[number].cancel()

    def _watch(self, holder: Holder) -> bool:
        """Has the holder ended when its process ends.  False if there is no such process now."""
        if holder.id in self._watched:
            return True
        try:
            process = os.pidfd_open(holder.pid)
        except OSError as error:
            return holder.alive and self._cannot_watch(error)
        if process >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS:
            os.close(process)
            return holder.alive and self._cannot_watch(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        if not holder.alive:  # looked at after the pidfd was made: the pid cannot change hands any more
            os.close(process)
            return False
        self._watched[holder.id] = trio.CancelScope()
        self._start(self._wait, holder, process)
        return True

    async def _wait(self, holder: Holder, process: int) -> None:
        try:
            with self._watched[holder.id]:
                await trio.lowlevel.wait_readable(process)
                await self._end(holder)
        finally:
            self._watched.pop(holder.id, None)
            os.close(process)

    async def _end(self, holder: Holder) -> None:
        log.debug("holder %d ends with process %d", holder.id, holder.pid)
        await persist(partial(self._tree.end_holder, holder.id))

    def _cannot_watch(self, error: OSError) -> bool:
        """Too many open files: the next look at all holders tries again, or finds the end of this one."""
        if not self._unwatchable:
            self._unwatchable = True
            log.warning("cannot watch every holder (%s): the end of some is noticed within %g s", error, LOOK_INTERVAL)
        return True


async def _guarded(task: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """An error about one holder must not end the mount of all."""
    try:
        await task(*arguments)
    except Exception:
        log.exception("%s failed", task.__name__)


async def _persist(function: Callable[[], T]) -> T | None:
    """The function's value from a worker thread, however long the region's lock takes; None if it failed."""
    value: list[T] = []
    await persist(lambda: value.append(function()))
    return value[0] if value else None


def _as_mapped(region: str) -> str:
    """Device and inode as /proc/PID/maps has them; on some file systems stat() says something else of a device."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            _, _, _, device, inode, *name = line.split(None, 5)
            if name and name[0].rstrip("\n") == region:
                return f" {device} {inode} "
    status = os.stat(region)
    return f" {os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x} {status.st_ino} "


def _can_charge(holder: Holder, mapped: str) -> bool:
    """Whether the holder's process lives and has the region mapped.  May wait for it: nothing for the event loop."""
    if not holder.alive:
        return False
    try:
        with open(f"/proc/{holder.pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if mapped in line:
                    return holder.alive
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return holder.alive  # not ours to look into: its pidfd will tell
    return False

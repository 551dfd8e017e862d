"""This process as a holder.

A process is one holder of a tree, however many groups it attaches to and however often.  It is two holders if some
attachments end with "release" and others with "keep": when a process is killed, the engine treats all charges of a
holder alike.  The holder joins a group with the first attachment there and leaves it with the last.  The holder ends
when it leaves its last group.

An attachment that is never closed lasts as long as the process, even if its objects are gone: a charge must not vanish
with a variable.  The remaining attachments end at exit.  If a process ends in another way (kill -9, os._exit), the
kernel closes its control channel, which is tied to its memory, and the daemon ends the holder.  Without a daemon, the
next search for dead holders does.

A forked child is another process.  At its start the engine unbinds its chargers, and this module forgets everything.
The child holds nothing, and becomes a holder of its own with its first charge.
"""

from __future__ import annotations

import atexit
import errno
import os
import sys
import threading
from weakref import WeakSet

from fsmount.engine import KEEP, PROCESS, Charger, EngineError, Region, Tie, process_start_time
from fsmount.errors import TreeGone
from fsmount.protocol.control_channel import introduce, introduce_in
from fsmount.shm.open_region import OpenRegion

# The lock of all memberships; reentrant because a signal handler may close an attachment.
_lock = threading.RLock()
# The memberships with a holder.  They keep their trees alive.
_live: set[Membership] = set()


def locked() -> threading.RLock:
    """The lock under which threads attach and detach."""
    return _lock


class Membership:
    """This process's holder in one tree, for attachments that end in the same way."""

    __slots__ = ("_chargers", "_control", "_holder", "_joined", "_pid", "_tree", "keep")

    def __init__(self, tree: OpenRegion, keep: bool) -> None:
        self.keep = keep
        self._tree = tree
        self._pid = 0
        self._holder: int | None = None
        self._control: Tie | None = None
        # By group: the tokens of its attachments, and the chargers that are bound to its counters.
        self._joined: dict[int, set[object]] = {}
        self._chargers: dict[int, WeakSet[Charger]] = {}

    def attach(self, group: int, token: object, control: int = -1) -> None:
        """Joins the group, unless this process has joined it.  The token stands for the attachment.

        control: an open control channel of the tree, or -1; it stays the caller's.
        """
        with _lock:
            holder = self._become_holder(control)
            if group not in self._joined:
                try:
                    self._tree.region.holder_join(holder, group)
                except EngineError:
                    self._end_unused()
                    raise
                self._joined[group] = set()
                self._chargers[group] = WeakSet()
            self._joined[group].add(token)

    def detach(self, group: int, token: object) -> None:
        """Leaves the group with its last attachment; the charges held there are released, or go to the group."""
        with _lock:
            if self._pid != os.getpid() or token not in self._joined.get(group, ()):
                return
            if len(self._joined[group]) == 1 and self._holder is not None:
                for charger in list(self._chargers[group]):
                    charger.unbind()
                try:
                    self._tree.region.holder_leave(self._holder, group, KEEP if self.keep else 0)
                except EngineError as error:
                    if error.errno != errno.ENODEV:  # ended by another process
                        raise
                del self._joined[group], self._chargers[group]
                self._end_unused()
            else:
                self._joined[group].remove(token)

    def bind(self, charger: Charger, group: int, resource: int, token: object) -> None:
        """Binds a charger to this process's cell in a counter, and attaches to its group first if necessary."""
        with _lock:
            self.attach(group, token)
            self._bind(charger, group, resource)

    def bind_if_joined(self, charger: Charger, group: int, resource: int) -> bool:
        """Binds a charger if this process is already a holder in the group; returns whether it is."""
        with _lock:
            if self._pid != os.getpid() or group not in self._joined:
                return False
            self._bind(charger, group, resource)
            return True

    def _bind(self, charger: Charger, group: int, resource: int) -> None:
        if not charger.bound:
            assert self._holder is not None
            charger.bind(self._tree.region, self._holder, group, resource)
            self._chargers[group].add(charger)

    def lost(self) -> bool:
        """Whether another process has ended this process's holder.  If so, everything about it is forgotten."""
        with _lock:
            if self._holder is None or self._pid != os.getpid():
                return False
            try:
                self._tree.region.holder_get(self._holder)
                return False
            except EngineError as error:
                if error.errno != errno.ENODEV:
                    return False
            self._unbind_all()
            self.forget()
            return True

    def end(self) -> None:
        """Ends all attachments."""
        with _lock:
            holder = self._holder
            if holder is None or self._pid != os.getpid():
                return
            self._unbind_all()
            try:
                self._tree.region.holder_end(holder)
            except EngineError as error:
                if error.errno != errno.ENODEV:
                    raise
            finally:
                self.forget()

    def forget(self) -> None:
        """Forgets a holder that has ended, or is the parent's."""
        _live.discard(self)
        self._holder = None
        self._joined = {}
        self._chargers = {}
        control, self._control = self._control, None
        if control is not None:
            control.close()

    def _become_holder(self, control: int) -> int:
        pid = os.getpid()
        if self._pid != pid:
            self.forget()
            self._pid = pid
        if self._holder is None:
            start_time = process_start_time(pid)
            if start_time == 0:
                raise OSError(errno.ENOENT, "this process must see itself in /proc to be a holder", f"/proc/{pid}/stat")
            self._holder = self._tree.region.holder_create(pid, start_time, PROCESS, KEEP if self.keep else 0)
            _live.add(self)
            _end_with_multiprocessing()
            try:
                self._control = self._introduce(self._holder, control)
                if self._control is None and self._tree.is_removed:
                    raise TreeGone(self._tree.path, "it was unmounted, and its counters were removed")
            except OSError:
                self.end()
                raise
        return self._holder

    def _introduce(self, holder: int, control: int) -> Tie | None:
        """Ties the holder to an open control channel of the daemon.

        None: no daemon can be reached; a daemon of this region finds the holder there in any case.
        """
        if control >= 0 and introduce(control, holder):
            return Tie(control)
        for directory in self._tree.control_directories():
            descriptor = introduce_in(directory, self._tree.region.tree_id, holder)
            if descriptor >= 0:
                try:
                    return Tie(descriptor)
                finally:
                    os.close(descriptor)
        return None

    def _unbind_all(self) -> None:
        for chargers in self._chargers.values():
            for charger in list(chargers):
                charger.unbind()

    def _end_unused(self) -> None:
        if not self._joined:
            self.end()


class JoinedRegion(OpenRegion):
    """An open region, and the holders of this process in it."""

    __slots__ = ("_members",)

    def __init__(self, region: Region, path: str) -> None:
        super().__init__(region, path)
        self._members: dict[bool, Membership] = {}

    def membership(self, keep: bool) -> Membership:
        """This process's holder for attachments that end with "keep", or with "release"."""
        return self._members.get(keep) or self._members.setdefault(keep, Membership(self, keep))

    def end_memberships(self) -> None:
        """Ends all attachments of this process.  EngineError."""
        for member in list(self._members.values()):
            if not self.region.closed:
                member.end()


def _forget_all() -> None:
    """Forgets the memberships in a forked child, where the thread that owns the old lock may not exist."""
    global _lock
    _lock = threading.RLock()
    for membership in list(_live):
        membership.forget()


def _end_all() -> None:
    """Ends all attachments at exit.  If a holder cannot be ended now, the search for dead holders ends it."""
    for membership in list(_live):
        try:
            membership.end()
        except OSError:
            continue


def _end_with_multiprocessing() -> None:
    """Ends the attachments of a child of multiprocessing, which runs finalizers of its own instead of atexit."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _end_all, exitpriority=0)


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_end_all)

"""An open lease file: it is what holds, and it stands in line.  The kernel closes it for any death of the process."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from weakref import WeakSet

from fsmount.control_files.lease import GroupLeaseFile, LeaseFile
from fsmount.files.fair_lock import FairLock
from fsmount.files.hold import Written
from fsmount.files.mount_errors import told_of
from fsmount.interface.event_loops import readable
from fsmount.protocol.group_file import open_group_file

if TYPE_CHECKING:
    from fsmount.files.group import LeaseGroup

# In seconds: epoll_wait() takes no longer timeout.
_LONGEST = (2**31 - 1) // 1000

# A fork waits for it; reentrant because of signal handlers.
_lock = threading.RLock()
_leases: WeakSet[OpenLease] = WeakSet()
# Those that are open: what was charged must not vanish because a variable did.
_opened: set[OpenLease] = set()


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """Inside nobody forks: so no child has a descriptor that nobody knows of."""
    with _lock:
        yield


class OpenLease:
    """A lease file of a group, of one resource or of all, opened when it is first told something."""

    def __init__(self, group: LeaseGroup, resource: str | None, keep: bool) -> None:
        self._group = group
        #: The resource, or None for all of them.
        self.resource = resource
        self._keep = keep
        self._file = GroupLeaseFile.name if resource is None else LeaseFile.file_name(resource, group.units[resource])
        self._descriptor = -1
        self._lock = threading.RLock()  # nobody closes the descriptor while it is written to
        self._fair_lock = FairLock()  # a lease stands in line for one request at a time
        self._closed = -1  # an eventfd for whoever stands in line, or none
        _leases.add(self)

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def tell(self, word: str, numbers: Mapping[str, str] | None = None, written: Written | None = None) -> int:
        """Writes a command: 0, or the errno of a refusal, ENOMEM or ERANGE, that has changed nothing."""
        with self._lock:
            self.open()
            try:
                self._write(word, numbers or {}, written)
            except OSError as error:
                if error.errno not in (errno.ENOMEM, errno.ERANGE):
                    raise
                return error.errno
        return 0

    def charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None, written: Written | None = None) -> bool:
        """Stands in line, and charges; False if that takes longer than so many seconds."""
        deadline = None if timeout is None or timeout > _LONGEST else time.monotonic() + timeout
        with self._fair_lock.held_for(_left(deadline)) as mine:
            if not mine:
                return False
            with self._in_line() as ready:
                while not self._has_turn(amounts, written):
                    left = _left(deadline)
                    if not ready.poll(left) or left == 0:
                        self.tell("wait")  # and gives back what was granted just now
                        return False
        return True

    async def charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        async with self._fair_lock:
            with self._in_line() as ready:
                while not self._has_turn(amounts):
                    await readable(ready.fileno())

    @contextlib.contextmanager
    def _in_line(self) -> Iterator[select.epoll]:
        """What is ready when the lease can be written to, or was closed here.  An error inside gives the request up.

        The lease's own descriptor would not do: who polls it is not told that another thread has closed it.
        """
        closed = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            with select.epoll() as ready:
                ready.register(closed, select.EPOLLIN)
                with self._lock:
                    self.open()
                    ready.register(self._descriptor, select.EPOLLOUT)
                    self._closed = closed
                yield ready
        except BaseException:
            self._stand_in_line_no_more()
            raise
        finally:
            with self._lock:
                self._closed = -1
            os.close(closed)

    def _has_turn(self, amounts: Mapping[str, int], written: Written | None = None) -> bool:
        try:
            self.tell("wait", {resource: f"{amount}" for resource, amount in amounts.items()}, written)
        except BlockingIOError:
            return False
        return True

    def _stand_in_line_no_more(self) -> None:
        if self.is_open:
            with contextlib.suppress(OSError):  # what went wrong is told already
                self.tell("wait")

    def held(self) -> dict[str, int]:
        """What it holds of each resource."""
        with self._lock, told_of(self._group.path):
            if self._descriptor < 0:
                return {}
            text = os.fsdecode(os.pread(self._descriptor, 4096, 0))
        if self.resource is not None:
            return {self.resource: int(text)}
        return {resource: int(held) for resource, _, held in (word.rpartition("=") for word in text.split())}

    def open(self) -> int:
        """Its descriptor, once it is open."""
        with self._lock:
            if self._group.closed:
                raise ValueError(f"{self._group.path} was closed here: attach to it again to charge it")
            if self._descriptor < 0:
                self._group.pin()
                with no_fork(), told_of(self._group.path), self._group.where() as where:
                    self._descriptor = open_group_file(os.path.join(where, self._file), os.O_RDWR)
                    _opened.add(self)
                    if self._keep:
                        self._write("keep", {})
            return self._descriptor

    def adopt(self, descriptor: int) -> None:
        """Takes over a descriptor of this file that another process has opened: that process stays the holder.

        close() gives back the amount held; without it that happens when the last of both has ended.
        """
        with self._lock:
            self._group.pin()
            self._descriptor = descriptor
            _opened.add(self)

    def end(self) -> None:
        """Gives back what is held, or leaves it to the group, and closes it.

        The close alone would do the same, but a little after it has returned.
        """
        with self._lock:
            if self._descriptor < 0:
                return
            with contextlib.suppress(OSError):  # the group or the daemon is gone, or the last close has to do
                held = self.held()
                if self._keep:
                    self._write("give", {resource: f"{amount}" for resource, amount in held.items()})
                else:
                    self._write("", dict.fromkeys(held, "0"))
            self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        _opened.discard(self)
        if descriptor >= 0:
            os.close(descriptor)
        if self._closed >= 0:
            os.eventfd_write(self._closed, 1)

    def forget(self) -> None:
        """In a forked child: the lease is the parent's, and must not outlive it here."""
        self._lock = threading.RLock()
        self._fair_lock = FairLock()
        self._closed = -1  # who stands in line is a thread of the parent
        self.close()

    def _write(self, word: str, numbers: Mapping[str, str], written: Written | None = None) -> None:
        words = [number if self.resource else f"{resource}={number}" for resource, number in numbers.items()]
        with told_of(self._group.path):
            command = os.fsencode(" ".join([word, *words]))
            (written if written is not None else []).extend(map(os.pwrite, (self._descriptor,), (command,), (0,)))


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _forget_all() -> None:
    """In a forked child, whose locks are made anew: the threads that held them in the parent are not here."""
    global _lock
    _lock = threading.RLock()
    for lease in list(_leases):
        lease.forget()


os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_forget_all)

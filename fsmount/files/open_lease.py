"""An open lease file: the holder of an attachment's charges and of its request in the queue.

The kernel closes the file at any death of the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from weakref import WeakSet

from fsmount.control_files.lease import GroupLeaseFile, LeaseFile
from fsmount.files.directory import GroupDirectory
from fsmount.files.fair_lock import FairLock
from fsmount.files.forks import no_fork
from fsmount.files.hold import Written
from fsmount.files.mount_errors import public_errors
from fsmount.interface.event_loops import readable
from fsmount.protocol.group_file import open_group_file

# The longest timeout of epoll_wait(), in seconds.
_LONGEST = (2**31 - 1) // 1000

_leases: WeakSet[OpenLease] = WeakSet()
# The open leases stay referenced: a charge must not vanish with a variable.
_opened: set[OpenLease] = set()


class OpenLease:
    """A lease file of a group, of one resource or of all.  Its first command opens it."""

    def __init__(self, directory: GroupDirectory, units: Mapping[str, str], resource: str | None, keep: bool) -> None:
        self._directory = directory
        #: The resource, or None for all of them.
        self.resource = resource
        self._keep = keep
        self._file = GroupLeaseFile.name if resource is None else LeaseFile.file_name(resource, units[resource])
        self._descriptor = -1
        self._lock = threading.RLock()  # no thread closes the descriptor while another writes to it
        self._fair_lock = FairLock()  # a lease can be in the queue with one request at a time
        self._closed = -1  # an eventfd that wakes the request in the queue, or -1
        _leases.add(self)

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def tell(self, word: str, numbers: Mapping[str, str] | None = None, written: Written | None = None) -> int:
        """Writes a command.  Returns 0, or the errno of a refusal that has changed nothing: ENOMEM or ERANGE."""
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
        """Queues and charges; False: the turn did not come within `timeout` seconds."""
        deadline = None if timeout is None or timeout > _LONGEST else time.monotonic() + timeout
        with self._fair_lock.held_for(_left(deadline)) as mine:
            if not mine:
                return False
            with self._in_queue() as ready:
                while not self._has_turn(amounts, written):
                    left = _left(deadline)
                    if not ready.poll(left) or left == 0:
                        # This leaves the queue, and uncharges a grant that came just now.
                        self.tell("wait")
                        return False
        return True

    async def charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        async with self._fair_lock:
            with self._in_queue() as ready:
                while not self._has_turn(amounts):
                    await readable(ready.fileno())

    @contextlib.contextmanager
    def _in_queue(self) -> Iterator[select.epoll]:
        """An epoll that is ready when the request is granted or the lease is closed.  An error ends the request.

        A poll of the lease's descriptor alone would not end when another thread closes it.
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
            self._leave_queue()
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

    def _leave_queue(self) -> None:
        if self.is_open:
            with contextlib.suppress(OSError):  # the caller raises an earlier error
                self.tell("wait")

    def held(self) -> dict[str, int]:
        """Resource -> the amount that the lease holds."""
        with self._lock, public_errors(self._directory.last_path):
            if self._descriptor < 0:
                return {}
            text = os.fsdecode(os.pread(self._descriptor, 4096, 0))
        if self.resource is not None:
            return {self.resource: int(text)}
        return {resource: int(held) for resource, _, held in (word.rpartition("=") for word in text.split())}

    def open(self) -> int:
        """Opens it if necessary, and returns its descriptor.  ValueError: the attachment was closed."""
        with self._lock:
            self._directory.refuse_closed()
            if self._descriptor < 0:
                self._directory.pin()
                with no_fork(), public_errors(self._directory.last_path), self._directory.where() as where:
                    self._descriptor = open_group_file(os.path.join(where, self._file), os.O_RDWR)
                    _opened.add(self)
                    if self._keep:
                        self._write("keep", {})
            return self._descriptor

    def adopt(self, descriptor: int) -> None:
        """Takes over a descriptor of this file from the process that opened it, which stays the holder.

        end() releases the charges.  Without it they are released when both processes have ended.
        """
        with self._lock:
            self._directory.pin()
            self._descriptor = descriptor
            _opened.add(self)

    def end(self) -> None:
        """Releases its charges, or moves them to the group, and closes it.

        After a close alone, the daemon would do the same a moment later.
        """
        with self._lock:
            if self._descriptor < 0:
                return
            with contextlib.suppress(OSError):  # the group or the daemon is gone; the close is all that remains
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
        """In a forked child: the lease belongs to the parent, and must not outlive it here."""
        self._lock = threading.RLock()
        self._fair_lock = FairLock()
        # A request in the queue belongs to a thread of the parent.
        self._closed = -1
        self.close()

    def _write(self, word: str, numbers: Mapping[str, str], written: Written | None = None) -> None:
        words = [number if self.resource else f"{resource}={number}" for resource, number in numbers.items()]
        with public_errors(self._directory.last_path):
            command = os.fsencode(" ".join([word, *words]))
            (written if written is not None else []).extend(map(os.pwrite, (self._descriptor,), (command,), (0,)))


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _forget_all() -> None:
    for lease in list(_leases):
        lease.forget()


os.register_at_fork(after_in_child=_forget_all)

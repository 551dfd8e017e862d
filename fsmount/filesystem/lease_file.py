"""The lease: a file whose every open holds charges of its own, until it is closed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import ClassVar

from pyfuse3 import FUSEError, RequestContext

from .. import control_files
from ..control_files import Kind
from ..quantities import parse_lease
from ..tree import Counter, Lease, process_start_time
from .guard import finish
from .open_file import CounterFile
from .processes import process_of

_OPERATIONS: dict[str, Callable[[Lease, int], object]] = {
    "set": Lease.resize,
    "add": Lease.adjust,
    "subtract": lambda lease, amount: lease.adjust(-amount),
    "give": Lease.give,
    "take": Lease.take,
    "nofail": Lease.nofail,
    "keep": lambda lease, _: lease.keep(True),
    "release": lambda lease, _: lease.keep(False),
}


class LeaseFile(CounterFile):
    """An open lease.  It becomes a holder with the first command that it obeys, in the name of who opened it."""

    kind: ClassVar[Kind] = control_files.LEASE

    __slots__ = ("_lease",)

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(counter, inode, flags, ctx)
        pid = process_of(ctx.pid)
        self._lease = counter.group.tree.lease(counter.group, counter.resource, pid, process_start_time(pid))

    def text(self) -> bytes:
        if not self.group.exists:  # a lease that is no holder need not ask anybody what it holds
            raise FUSEError(errno.ENODEV)
        return b"%d\n" % self._lease.held

    def command(self, text: bytes) -> None:
        operation, amount = parse_lease(text)
        _OPERATIONS[operation](self._lease, amount)

    def release(self) -> None:
        finish(self._lease.close)

    def abandon(self) -> None:
        self._lease.close()

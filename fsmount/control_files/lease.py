"""Leases: files whose every open holds charges of its own, until it is closed."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Mapping
from typing import ClassVar

from pyfuse3 import FUSEError, RequestContext

from fsmount.control_files.control_file import WRITABLE, CounterFile, OpenFile
from fsmount.errors import NOFAIL_IS_RESERVED
from fsmount.filesystem.guard import finish
from fsmount.filesystem.pending_charge import PendingCharge
from fsmount.filesystem.processes import process_of
from fsmount.filesystem.shares import Shares
from fsmount.protocol import file_table
from fsmount.protocol.file_table import Kind
from fsmount.quantities import parse_group_lease, parse_lease
from fsmount.shm import Counter, Group, Lease, process_start_time


class _Leased(OpenFile):
    """An open lease.  It becomes a holder with the first command that it obeys, in the name of who opened it.

    The rights of the user who opened it count, and not those of the process that writes: the descriptor may have been
    handed to a program with more of them.
    """

    private: ClassVar[bool] = True

    __slots__ = ()

    lease: Lease
    turn: PendingCharge

    def operate(self, word: str, amounts: Mapping[str, int]) -> None:
        """give, take, nofail, keep or release.  PermissionError: nofail, by a user who may not exceed limits."""
        if word == "nofail" and self.user not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, NOFAIL_IS_RESERVED, self.group.last_path())
        _OPERATIONS[word](self.lease, amounts)

    def held(self) -> dict[str, int]:
        if not self.group.exists:  # a lease that is no holder need not ask anybody what it holds
            raise FUSEError(errno.ENODEV)
        return self.turn.held()

    @property
    def listens(self) -> bool:
        return self.turn.waits

    in_line = listens

    def poll(self) -> int:
        ready = super().poll()
        if ready & select.POLLERR or not self.turn.waits or self.turn.has_come():
            return ready
        return ready & ~WRITABLE

    def has_news(self) -> bool:
        # who still polls asks once more, and stands in line then; for who does not it must not
        return not self.turn.in_line or self.turn.has_come()

    def release(self) -> None:
        finish(self.lease.close)

    def abandon(self) -> None:
        self.lease.close()


class LeaseFile(_Leased, CounterFile):
    """A lease of one resource."""

    kind: ClassVar[Kind] = file_table.LEASE

    __slots__ = ("lease", "turn")

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext, shares: Shares) -> None:
        super().__init__(counter, inode, flags, ctx)
        self.lease = _lease(counter.group, (counter.resource,), ctx, shares)
        self.turn = PendingCharge(self.lease)

    def text(self) -> bytes:
        return b"%d\n" % self.held()[self.counter.resource]

    def command(self, text: bytes) -> None:
        word, amount = parse_lease(text)
        resource = self.counter.resource
        if word == "wait":
            self.turn.wait({resource: amount})
        elif word in _OPERATIONS:
            self.operate(word, {resource: amount})
        else:
            self.turn.change({resource: (word, amount)})


class GroupLeaseFile(_Leased):
    """A lease of all resources: what one command names is changed at once, or not at all."""

    kind: ClassVar[Kind] = file_table.GROUP_LEASE

    __slots__ = ("lease", "turn")

    def __init__(self, group: Group, inode: int, flags: int, ctx: RequestContext, shares: Shares) -> None:
        super().__init__(group, inode, flags)
        self.lease = _lease(group, group.resources, ctx, shares)
        self.turn = PendingCharge(self.lease)

    def text(self) -> bytes:
        return " ".join(f"{resource}={amount}" for resource, amount in self.held().items()).encode() + b"\n"

    def command(self, text: bytes) -> None:
        word, named = parse_group_lease(text)
        for resource in named.keys() - set(self.group.resources):
            raise OSError(errno.EINVAL, f"no resource {resource!r} here; there are: {', '.join(self.group.resources)}")
        if word == "change":
            self.turn.change(named)
            return
        amounts = {name: amount for name, (_, amount) in named.items()}
        if word == "wait":
            self.turn.wait(amounts)
        else:
            self.operate(word, amounts or self.turn.held())


def _lease(group: Group, resources: tuple[str, ...], ctx: RequestContext, shares: Shares) -> Lease:
    pid = process_of(ctx.pid)
    return group.tree.lease(group, resources, pid, process_start_time(pid), shares.account(group, ctx.uid))


def _nofail(lease: Lease, amounts: Mapping[str, int]) -> None:
    for resource, amount in amounts.items():  # of one
        lease.nofail(resource, amount)


_OPERATIONS: dict[str, Callable[[Lease, Mapping[str, int]], None]] = {
    "give": Lease.move,
    "take": lambda lease, amounts: lease.move({resource: -amount for resource, amount in amounts.items()}),
    "nofail": _nofail,
    "keep": lambda lease, _: lease.keep(True),
    "release": lambda lease, _: lease.keep(False),
}

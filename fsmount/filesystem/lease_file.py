"""Leases: files whose every open holds charges of its own, until it is closed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import ClassVar

from pyfuse3 import FUSEError, RequestContext

from .. import control_files
from ..control_files import Kind
from ..quantities import parse_group_lease, parse_lease
from ..tree import Counter, Group, Lease, process_start_time
from .guard import finish
from .open_file import CounterFile, OpenFile
from .processes import process_of

# What is charged so that so much is held afterwards, or so much more or less.
_CHANGES: dict[str, Callable[[int, int], int]] = {
    "set": lambda amount, held: amount - held,
    "add": lambda amount, _: amount,
    "subtract": lambda amount, _: -amount,
}


class _Leased(OpenFile):
    """An open lease.  It becomes a holder with the first command that it obeys, in the name of who opened it."""

    __slots__ = ()

    lease: Lease

    def held(self) -> dict[str, int]:
        if not self.group.exists:  # a lease that is no holder need not ask anybody what it holds
            raise FUSEError(errno.ENODEV)
        return self.lease.held

    def release(self) -> None:
        finish(self.lease.close)

    def abandon(self) -> None:
        self.lease.close()


class LeaseFile(_Leased, CounterFile):
    """A lease of one resource."""

    kind: ClassVar[Kind] = control_files.LEASE

    __slots__ = ("lease",)

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(counter, inode, flags, ctx)
        self.lease = _lease(counter.group, (counter.resource,), ctx)

    def text(self) -> bytes:
        return b"%d\n" % self.held()[self.counter.resource]

    def command(self, text: bytes) -> None:
        word, amount = parse_lease(text)
        if word in _CHANGES:
            word, change = "change", _CHANGES[word]
            amount = change(amount, self.lease.held[self.counter.resource])
        _OPERATIONS[word](self.lease, {self.counter.resource: amount})


class GroupLeaseFile(_Leased):
    """A lease of all resources: what one command names is changed at once, or not at all."""

    kind: ClassVar[Kind] = control_files.GROUP_LEASE

    __slots__ = ("lease",)

    def __init__(self, group: Group, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(group, inode, flags)
        self.lease = _lease(group, group.resources, ctx)

    def text(self) -> bytes:
        return " ".join(f"{resource}={amount}" for resource, amount in self.held().items()).encode() + b"\n"

    def command(self, text: bytes) -> None:
        word, named = parse_group_lease(text)
        for resource in named.keys() - set(self.group.resources):
            raise OSError(errno.EINVAL, f"no resource {resource!r} here; there are: {', '.join(self.group.resources)}")
        held = self.lease.held
        if word == "change":
            amounts = {name: _CHANGES[change](amount, held[name]) for name, (change, amount) in named.items()}
        else:
            amounts = {name: amount for name, (_, amount) in named.items()} or held
        _OPERATIONS[word](self.lease, amounts)


def _lease(group: Group, resources: tuple[str, ...], ctx: RequestContext) -> Lease:
    pid = process_of(ctx.pid)
    return group.tree.lease(group, resources, pid, process_start_time(pid))


def _nofail(lease: Lease, amounts: Mapping[str, int]) -> None:
    for resource, amount in amounts.items():  # of one
        lease.nofail(resource, amount)


_OPERATIONS: dict[str, Callable[[Lease, Mapping[str, int]], None]] = {
    "change": Lease.change,
    "give": Lease.move,
    "take": lambda lease, amounts: lease.move({resource: -amount for resource, amount in amounts.items()}),
    "nofail": _nofail,
    "keep": lambda lease, _: lease.keep(True),
    "release": lambda lease, _: lease.keep(False),
}

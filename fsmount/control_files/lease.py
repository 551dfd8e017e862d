"""R.lease and lease: each open file is a holder of its own, until it is closed."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fsmount.control_files.control_file import WRITABLE, ControlFile
from fsmount.errors import NOFAIL_IS_RESERVED
from fsmount.quantities import parse_group_lease, parse_lease

if TYPE_CHECKING:
    from fsmount.control_files.mount import Lease, Opening


class _LeaseBase(ControlFile):
    """An open lease.  Its first command makes it a holder, in the name of the process that opened it.

    The rights of the user who opened it count, and not those of the process that writes: the descriptor may have been
    handed to a program with more rights.
    """

    private = True

    __slots__ = ("pending",)

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.pending = opening.mount.lease(opening, self.resources())

    def resources(self) -> tuple[str, ...]:
        """The resources that the lease can hold."""
        return (self.opening.resource,)

    def operate(self, word: str, amounts: Mapping[str, int]) -> None:
        """Obeys give, take, nofail, keep or release.  PermissionError: the user may not exceed limits with nofail."""
        if word == "nofail" and self.user not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, NOFAIL_IS_RESERVED, self.group.last_path())
        with self.pending.alone():
            _OPERATIONS[word](self.pending.lease, amounts)

    def held(self) -> dict[str, int]:
        self.check_group()  # the lease itself does not ask the engine until it is a holder
        return self.pending.held()

    @property
    def listens(self) -> bool:
        return self.pending.waits

    queued = listens

    def poll(self) -> int:
        ready = super().poll()
        if ready & select.POLLERR or not self.pending.waits or self.pending.has_come():
            return ready
        return ready & ~WRITABLE

    def has_news(self) -> bool:
        # a poller asks once more, and then queues again; without a poller the lease must not
        return not self.pending.queued or self.pending.has_come()

    def abandon(self) -> None:
        self.pending.lease.close()


class LeaseFile(_LeaseBase):
    number = 9
    name = "lease"
    mode = 0o600
    manual = """\
The amount that this open file holds. A write of N sets it, +N and -N adjust it. The last close uncharges it. Other
writes: give N and take N (to the group itself, and back), nofail N (always charges; EPERM except for root and the owner
of the mount), keep and release (whether the group keeps the amount at the last close), and wait N; see Waiting."""
    sections = (
        (
            "Leases",
            """
A lease belongs to an open file, as by exec 3<>R.lease in a shell. All processes that inherit the descriptor share it.
It becomes a holder at its first write. The last close, even by kill -9, uncharges all of it. If the daemon is killed,
the lease counts until the process that opened it ends, or the next daemon starts.

The file lease is a lease of all resources, and one holder: R.holders of each resource lists it. A command names the
resources that it changes, each once. It is executed completely or not at all, even if a process is killed
meanwhile.
""",
        ),
        (
            "Waiting",
            """
A lease that was refused enters the queue when a process polls it. It becomes writable (POLLOUT) when there is room and
all earlier requests are served. The same command then succeeds, if it is written within a second. wait N, or wait
R=N... of the file lease, requests N more. It enters the queue at once, polled or not, and fails with EAGAIN until it is
granted; write it again then. wait alone gives up.

Requests that wait for different limits do not delay each other. A charge that does not wait may take free room first. A
request for more than the limit itself waits until the limit is raised.
""",
        ),
    )

    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.held()[self.opening.resource]

    def command(self, text: bytes) -> None:
        word, amount = parse_lease(text)
        amounts = {self.opening.resource: amount}
        if word == "wait":
            self.pending.wait(amounts)
        elif word in _OPERATIONS:
            self.operate(word, amounts)
        else:
            self.pending.change({self.opening.resource: (word, amount)})


class GroupLeaseFile(_LeaseBase):
    number = 15
    name = "lease"
    scope = "group"
    mode = 0o600
    manual = """\
The amounts that this open file holds of all resources, as in memory=4096 tokens=3. A write of one or several of R=N,
R=+N and R=-N sets or adjusts each: all at once, or nothing. The last close uncharges them. Other writes: give (all
amounts), give R=N... and take R=N..., nofail R=N, keep and release, and wait R=N...; see Waiting."""

    __slots__ = ()

    def resources(self) -> tuple[str, ...]:
        return self.opening.group.resources

    def text(self) -> bytes:
        return " ".join(f"{resource}={amount}" for resource, amount in self.held().items()).encode() + b"\n"

    def command(self, text: bytes) -> None:
        word, named = parse_group_lease(text)
        for resource in named.keys() - set(self.group.resources):
            raise OSError(errno.EINVAL, f"no resource {resource!r} here; there are: {', '.join(self.group.resources)}")
        if word == "change":
            self.pending.change(named)
            return
        amounts = {name: amount for name, (_, amount) in named.items()}
        if word == "wait":
            self.pending.wait(amounts)
        else:
            self.operate(word, amounts or self.pending.held())


def _nofail(lease: Lease, amounts: Mapping[str, int]) -> None:
    for resource, amount in amounts.items():  # one alone
        lease.nofail(resource, amount)


_OPERATIONS: dict[str, Callable[[Lease, Mapping[str, int]], None]] = {
    "give": lambda lease, amounts: lease.move(amounts),
    "take": lambda lease, amounts: lease.move({resource: -amount for resource, amount in amounts.items()}),
    "nofail": _nofail,
    "keep": lambda lease, _: lease.keep(True),
    "release": lambda lease, _: lease.keep(False),
}

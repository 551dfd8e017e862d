"""The interface of a control file to the file system that serves it, which implements it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from fsmount.interface.region import RegionGroup
    from fsmount.protocol.status import Capacity


class Account(Protocol):
    """Counts what a user takes of the capacity of a tree."""

    @property
    def uid(self) -> int:
        """The user whose share it is."""

    @property
    def limited(self) -> bool:
        """Whether the user who asks may be refused."""

    def take(self, **amounts: int) -> None:
        """Counts more of each kind.  OSError(ENOSPC): the share has no room."""

    def give_back(self, **amounts: int) -> None:
        """Counts less of each kind."""

    def used_up(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """The kinds of which the user cannot get that many more, and how many the user has."""


class Lease(Protocol):
    """A holder of its own in some counters of a group, until it is closed."""

    def move(self, amounts: Mapping[str, int], /) -> None:
        """Moves the amounts above 0 to the group itself and takes those below from it, all at once.  NotHeld."""

    def nofail(self, resource: str, amount: int, /) -> bool:
        """Charges past any limit; False: a limit is exceeded now."""

    def keep(self, keep: bool, /) -> None:
        """Sets whether its charges go to the group at its end."""

    def close(self) -> None:
        """Ends it: its charges are released, or go to the group."""


class PendingCharge(Protocol):
    """A lease, and the charge that it waits for."""

    @property
    def lease(self) -> Lease:
        """The lease itself."""

    @property
    def waits(self) -> bool:
        """Whether a charge was refused, or is waited for."""

    @property
    def queued(self) -> bool:
        """Whether the lease has a request in the queue, or a grant that it has not fetched."""

    def alone(self) -> AbstractContextManager[None]:
        """No other operation on the lease runs in the block."""

    def held(self) -> dict[str, int]:
        """The amounts that the lease holds, without room that is set aside."""

    def change(self, changes: Mapping[str, tuple[str, int]]) -> None:
        """Sets, adds or subtracts amounts.  LimitExceeded, NotHeld."""

    def wait(self, amounts: Mapping[str, int]) -> None:
        """Charges the amounts in turn.  EAGAIN until then; without amounts the request ends."""

    def has_come(self) -> bool:
        """Whether the charge was granted.  A request outside the queue enters it."""


class Mount(Protocol):
    """The file system of one tree."""

    @property
    def since(self) -> float:
        """When the daemon began, in seconds of the epoch."""

    def account(self, opening: Opening, /) -> Account:
        """The account of the user who opened a file, in its group."""

    def capacity(self) -> dict[str, Capacity]:
        """The capacity of each kind of thing, and its users."""

    def count_again(self) -> None:
        """Counts the groups of each user again, if another process may have changed them."""

    def open_files(self) -> int:
        """The number of open files of the mount."""

    def requests_served(self) -> int:
        """The number of requests that the daemon has served."""

    def process_of(self, thread: int) -> int:
        """The process of a thread."""

    def lease(self, opening: Opening, resources: tuple[str, ...], /) -> PendingCharge:
        """A lease of these resources, in the name of the process that opened a file."""

    def bind_holder(self, holder: int, pid: int) -> None:
        """The holder ends with an open file of this process."""

    def release_holder(self, holder: int) -> None:
        """That open file is closed."""

    def unmount(self, keep: bool) -> None:
        """Ends the mount.  OSError(EBUSY): there are live holders, and `keep` is false."""

    def children_changed(self, group: int) -> None:
        """Children of a group were made, renamed or removed in the region."""


class Opening(NamedTuple):
    """One open() of a control file."""

    group: RegionGroup
    #: The resource of the file; empty for a file of the group.
    resource: str
    inode: int
    flags: int
    user: int
    thread: int
    mount: Mount

"""Group and Counter, the results of attach(), with the same methods in the region and through files.

A transport implements the abstract methods.  Everything that both would write alike is here.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from fsmount.errors import NOFAIL_IS_RESERVED
from fsmount.interface.description import counters_line, counters_table
from fsmount.interface.multi_requests import MultiRequests
from fsmount.interface.options import OnExit
from fsmount.protocol.listings import CounterSnapshot, HolderLine

if TYPE_CHECKING:
    from fsmount.protocol.refusals import Probe, Refusal


def _public_names(interface: type) -> list[str]:
    """The names that dir() lists of an object: the interface's public ones, and Python's own."""
    return [name for name in dir(interface) if not name.startswith("_") or name.startswith("__")]


class Counter(ABC):
    """The counter of one resource in a group.  A charge to it is a charge to the counters of all ancestors too.

    Amounts are ints from 0 to UNLIMITED.  Anything else is a TypeError (also a bool), a ValueError (below 0) or an
    OverflowError.  Counters are safe to use from several threads.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def group(self) -> Group:
        """The group that it belongs to."""

    @property
    @abstractmethod
    def resource(self) -> str:
        """The name of its resource."""

    @property
    def unit(self) -> str:
        """The unit of its resource: "bytes" or "count"."""
        return self.group.units[self.resource]

    def __repr__(self) -> str:
        return f"<Counter {self.group.last_path()}: {counters_line([self])}>"

    def _repr_html_(self) -> str:
        return counters_table(self.group.last_path(), [self])

    def __dir__(self) -> list[str]:
        return _public_names(Counter)

    # ---- charging

    @abstractmethod
    def charge(self, amount: int, /, *, wait: bool = False, timeout: float | None = None) -> None:
        """Charges an amount, or raises LimitExceeded and changes nothing.

        wait: without room, the charge queues until there is room and it is its turn.  timeout: for how many seconds;
        None: without end.
        """

    @abstractmethod
    def try_charge(self, amount: int, /) -> bool:
        """Charges an amount; False: a limit refuses it, and nothing has changed."""

    @abstractmethod
    def charge_nofail(self, amount: int, /) -> bool:
        """Charges an amount past any limit; False: a limit is exceeded now.

        PermissionError: the caller is neither root nor the owner of the mount.
        """

    async def wait_charge(self, amount: int) -> None:
        """Charges an amount in a task of trio or asyncio, as soon as there is room and it is the request's turn.

        A cancelled request has charged nothing.
        """
        await self.group.wait_charge({self.resource: amount})

    @abstractmethod
    def uncharge(self, amount: int, /) -> None:
        """Releases an amount that this attachment holds, or raises NotHeld and changes nothing."""

    @abstractmethod
    def hold(self, amount: int, *, wait: bool = False, timeout: float | None = None) -> AbstractContextManager[None]:
        """A context manager: the amount is charged inside and uncharged after; wait and timeout as in charge()."""

    @abstractmethod
    def give(self, amount: int, /) -> None:
        """Moves an amount from this attachment to the group itself, where it outlives the holder.  NotHeld."""

    @abstractmethod
    def take(self, amount: int, /) -> None:
        """Moves an amount from the group itself to this attachment.  NotHeld."""

    @property
    @abstractmethod
    def held(self) -> int:
        """The amount that this attachment holds here."""

    @abstractmethod
    def charge_common(self, amount: int) -> None:
        """Charges the group itself: the amount stays until uncharge_common().  LimitExceeded."""

    @abstractmethod
    def uncharge_common(self, amount: int) -> None:
        """Releases an amount that the group itself holds.  NotHeld."""

    @abstractmethod
    def force_empty(self) -> None:
        """Drains the stock below and forgets what the group itself holds; holders keep their charges."""

    # ---- reading

    @property
    @abstractmethod
    def usage(self) -> int:
        """The precise sum of the charges in the subtree; stock is not usage."""

    @property
    @abstractmethod
    def limit(self) -> int:
        """The limit.  OSError(EBUSY), and no change, when it is set below the usage."""

    @limit.setter
    @abstractmethod
    def limit(self, limit: int) -> None: ...

    @property
    @abstractmethod
    def soft_limit(self) -> int:
        """The soft limit.  It refuses nothing, and may be set below the usage."""

    @soft_limit.setter
    @abstractmethod
    def soft_limit(self, limit: int) -> None: ...

    @property
    @abstractmethod
    def max_usage(self) -> int:
        """The highest usage since the last reset; stat()["error_bound"] tells by how much it may be too low."""

    @property
    @abstractmethod
    def failcnt(self) -> int:
        """The number of charges that this counter has refused since the last reset."""

    @property
    def margin(self) -> int:
        """The room below this counter's limit: limit - usage, at least 0."""
        return self.stat()["margin"]

    @property
    def soft_limit_excess(self) -> int:
        """The part of the usage that is above the soft limit."""
        return self.stat()["soft_limit_excess"]

    @abstractmethod
    def stat(self) -> dict[str, int]:
        """All values of one moment; the keys of R.stat in their order."""

    @abstractmethod
    def events(self) -> dict[str, int]:
        """The events of the subtree, counted; the keys of R.events in their order.

        `limit` counts charges that a limit refused, `soft_limit` how often a usage crossed its soft limit in either
        direction, and `threshold` how often a usage crossed a threshold.  No count ever falls.
        """

    @abstractmethod
    def holders(self) -> list[HolderLine]:
        """The holders here, and the group itself where it holds something, as pid 0.

        Holders that come or go during the call may be missing.
        """

    @abstractmethod
    def snapshot(self) -> list[CounterSnapshot]:
        """This counter and those of all groups below, parents before children, all of one moment.

        Names are those of a moment later; a group that is removed in between is left out.
        """

    @abstractmethod
    def why(self, max_records: int = 256) -> list[Refusal]:
        """The most recent refusals, newest first: of charges asked for in the subtree, or refused by a limit in it.

        A tree keeps 256 refusals of different processes, counters or limits.
        """

    @abstractmethod
    def probe(self, amount: int) -> Probe:
        """The outcome of a charge of this amount at this moment.  Nothing is charged, and no stock is drained.

        The charge in question does not wait: requests in the queue take no room from it.
        """

    # ---- resets

    @abstractmethod
    def reset_max_usage(self) -> None:
        """Sets max_usage and min_usage to the present usage."""

    @abstractmethod
    def reset_failcnt(self) -> None:
        """Sets failcnt to 0."""

    # ---- the groups above

    def _upwards(self) -> Iterator[Counter]:
        """The counters of the group and of all groups above it."""
        group: Group | None = self.group
        while group is not None:
            yield group[self.resource]
            group = group.parent

    def _is_within_limits(self) -> bool:
        """Whether no usage on the way up exceeds its limit."""
        return all(stat["usage"] <= stat["limit"] for stat in (counter.stat() for counter in self._upwards()))

    # ---- errors that both transports raise

    def _limit_below_usage(self, limit: int, usage: int) -> OSError:
        return OSError(
            errno.EBUSY,
            f"the limit of {self.resource} cannot be {limit}: the usage is {usage}; uncharge first, or set no less "
            "than that",
            self.group.last_path(),
        )

    def _nofail_is_reserved(self) -> PermissionError:
        return PermissionError(errno.EPERM, NOFAIL_IS_RESERVED, self.group.last_path())


class Group(MultiRequests):
    """A group of a tree: a directory of its mount, with a counter for each resource.

    A group that attach() returned is an attachment: close() ends it, and so does the end of a `with`.  Any other group
    attaches itself with its first charge, until close() or the end of the process.
    """

    __slots__ = ()

    # ---- the group

    @property
    @abstractmethod
    def path(self) -> str:
        """Its path: of the directory in the mount, or from "/" in a tree without a mount."""

    @abstractmethod
    def last_path(self) -> str:
        """Its path, or the last known one of a group that is gone.  Raises nothing."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name; the root's is empty."""

    @property
    @abstractmethod
    def parent(self) -> Group | None:
        """The group above; None for the root, and for the topmost group that can be seen from here."""

    @property
    @abstractmethod
    def units(self) -> Mapping[str, str]:
        """Resource -> unit ("bytes" or "count"), in the order of the tree."""

    @property
    def resources(self) -> tuple[str, ...]:
        """The names of the tree's resources."""
        return tuple(self.units)

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether it has not been removed."""

    @abstractmethod
    def __getitem__(self, resource: str, /) -> Counter:
        """The counter of a resource.  KeyError."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.units)

    def __repr__(self) -> str:
        return f"<Group {self.last_path()}: {counters_line(self._counters_in_order())}>"

    def _repr_html_(self) -> str:
        return counters_table(self.last_path(), self._counters_in_order())

    def __dir__(self) -> list[str]:
        return _public_names(Group)

    def _counters_in_order(self) -> Iterator[Counter]:
        return (self[resource] for resource in self.units)

    # ---- its children

    @abstractmethod
    def children(self) -> Sequence[Group]:
        """The groups in it, in order of age, except after a recovery."""

    @abstractmethod
    def child(self, name: str | bytes) -> Group:
        """The group of this name in it.  FileNotFoundError."""

    @abstractmethod
    def mkdir(self, name: str | bytes, mode: int = 0o755) -> Group:
        """Makes a group in it, with unlimited counters, that belongs to this user.  The umask does not change its mode.

        A set-group-ID group passes on its group ID and that bit.

        FileExistsError, also for the name of a control file; EINVAL: this cannot be the name of a group; ENOSPC: the
        region is full.
        """

    @abstractmethod
    def rmdir(self, name: str | bytes) -> None:
        """Removes a group in it.  FileNotFoundError; EBUSY: the group has groups below, usage or live holders."""

    @abstractmethod
    def rename(self, old: str | bytes, new: str | bytes) -> None:
        """Renames a group in it, whose charges do not change.  FileNotFoundError, and the errors of mkdir()."""

    # ---- attaching

    @abstractmethod
    def attach(self, *, on_exit: OnExit = "release") -> Group:
        """Makes this process a holder in the group, and returns the attachment.

        on_exit: whether the charges that it still holds at its end are released ("release") or go to the group itself
        ("keep").
        """

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether close() has ended the attachment."""

    @abstractmethod
    def close(self) -> None:
        """Ends the attachment: its charges are released, or go to the group.

        Reads still work through this object, charges do not.
        """

    def detach(self) -> None:
        """Another name of close()."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

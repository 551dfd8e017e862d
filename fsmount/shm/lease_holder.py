"""The holder behind an open lease file, in the name of the process that charges through the file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from fsmount import engine
from fsmount.engine import KEEP, LEASE, Charger, EngineError, Region, Request
from fsmount.errors import GroupRemoved, LockTimeout, TreeGone
from fsmount.shm.groups import Counter, Group

T = TypeVar("T")


class Account(Protocol):
    """Counts the room of a tree that leases take: `leases`, `cells` and `waiters`."""

    def take(self, **amounts: int) -> None:
        """Adds to each count.  OSError: there is no room."""

    def give_back(self, **amounts: int) -> None:
        """Subtracts from each count."""


class Unlimited:
    """An account without limits, which counts nothing."""

    def take(self, **amounts: int) -> None:
        pass

    def give_back(self, **amounts: int) -> None:
        pass


class Lease:
    """A holder in some counters of a group, in the name of a process that charges through the mount.

    The lease becomes a holder with the first operation that succeeds, or when it queues.  One operation at a time.
    """

    __slots__ = (
        "_account", "_asked", "_begun", "_group", "_holder", "_keep", "_made", "_pid", "_resources", "_start_time",
        "_waits_only", "_wanted", "granted",
    )  # fmt: skip

    def __init__(
        self,
        group: Group,
        resources: tuple[str, ...],
        pid: int,
        start_time: int,
        account: Account | None = None,
    ) -> None:
        self._group = group
        self._account = account or Unlimited()
        self._resources = resources
        self._made: dict[str, _LeaseCounter] | None = None
        self._begun = False
        self._asked: Request | None = None
        self._wanted: Mapping[str, int] = {}
        self._waits_only = False  # the lease is a holder only in order to queue
        #: The amounts that were granted in the queue, until accept_grant().
        self.granted: Mapping[str, int] = {}
        self._holder: int | None = None
        self._keep = False
        self._pid = pid
        self._start_time = start_time

    @property
    def held(self) -> dict[str, int]:
        """Resource -> the amount that the lease holds."""
        if self._made is None:
            return dict.fromkeys(self._resources, 0)
        return {resource: counter.held for resource, counter in self._made.items()}

    def change(self, amounts: Mapping[str, int]) -> None:
        """Charges positive amounts and uncharges negative ones, all at once or nothing.  LimitExceeded, NotHeld."""
        self._do(partial(engine.change, self._of_counters(amounts)))

    def move(self, amounts: Mapping[str, int]) -> None:
        """Gives positive amounts to the group itself and takes negative ones from it, all or nothing.  NotHeld."""
        self._do(partial(engine.move, self._of_counters(amounts)))

    def nofail(self, resource: str, amount: int) -> bool:
        """Charges past any limit; False: a limit is exceeded now."""
        return self._do(partial(self._counters[resource].charge_nofail, amount))

    def keep(self, keep: bool = True) -> None:
        """Sets whether the charges go to the group when the lease ends."""
        if self._holder is None:  # the engine does not have this holder yet, but the group must exist
            if not self._group.exists:
                raise GroupRemoved(self._group.last_path())
        else:
            try:
                self._group.tree.region.holder_set_flags(self._holder, KEEP if keep else 0)
            except EngineError as error:
                raise self._group.public_error(error) from None
        self._keep = keep

    # ---- the queue

    @property
    def waits(self) -> bool:
        """Whether the lease is in the queue."""
        return self._asked is not None

    def ask(self, amounts: Mapping[str, int]) -> None:
        """Queues for positive amounts, one request at a time; accept_grant() takes the grant.  ENOSPC."""
        chargers = [self._counters[resource] for resource in amounts]
        waits_only = self._waits_only or not self._begun
        self._asked = self._do(partial(self._request, chargers, list(amounts.values())))
        self._waits_only = waits_only
        self._wanted = amounts
        if self._asked is None:
            self.granted = amounts

    def look(self) -> bool:
        """Whether a grant is there, after a look for a new one."""
        if self._asked is not None and self._public(partial(self._asked.wait, 0.0)):
            self._leave_queue()
        return bool(self.granted)

    def accept_grant(self) -> None:
        """Adds the granted amounts to the charges of the lease."""
        self.granted = {}
        self._waits_only = False

    def give_up(self) -> None:
        """Leaves the queue and uncharges the granted amounts."""
        if self._asked is not None:
            self._leave_queue()
        waits_only = self._waits_only
        if self.granted:
            self.change({resource: -amount for resource, amount in self.granted.items()})
            self.granted = {}
            self._waits_only = waits_only
        if waits_only:
            self.close()

    def _leave_queue(self) -> None:
        assert self._asked is not None
        granted = self._public(self._asked.end)
        self._asked = None
        self._account.give_back(waiters=len(self._wanted))
        if granted:
            self.granted = self._wanted

    def _request(self, chargers: Sequence[Charger], amounts: Sequence[int]) -> Request | None:
        self._account.take(waiters=len(amounts))
        asked = None
        try:
            asked = self._public(partial(engine.request, chargers, amounts))
        finally:
            if asked is None:  # granted at once, or refused
                self._account.give_back(waiters=len(amounts))
        return asked

    def _public(self, operation: Callable[[], T]) -> T:
        try:
            return operation()
        except EngineError as error:
            raise self._group.public_error(error) from None

    # ---- its end

    def close(self) -> None:
        """Ends the lease: its charges are released, or go to the group."""
        holder = self._holder
        if holder is None:
            self._made = None
            return
        self._begun = False
        if self._asked is not None:
            self._asked = None
            self._account.give_back(waiters=len(self._wanted))
        self._waits_only = False
        self.granted = {}
        for counter in self._counters.values():
            counter.unbind()
        with contextlib.suppress(TreeGone):
            self._group.tree.end_holder(holder)
        self._holder = self._made = None
        self._account.give_back(leases=1, cells=len(self._resources))

    @property
    def _counters(self) -> dict[str, _LeaseCounter]:
        """The counters, made on first use and dropped with the holder: a lease without a holder takes little memory."""
        if self._made is None:
            self._made = {resource: _LeaseCounter(self._group, resource) for resource in self._resources}
        return self._made

    def _of_counters(self, amounts: Mapping[str, int]) -> dict[Charger, int]:
        return {self._counters[resource]: amount for resource, amount in amounts.items()}

    def _do(self, operation: Callable[[], T]) -> T:
        if self._begun:
            result = operation()
            self._waits_only = False
            return result
        try:
            self._begin()
            result = operation()
        except BaseException:
            with contextlib.suppress(LockTimeout):  # tried again with the next operation, or close()
                self.close()
            raise
        self._begun = True
        return result

    def _begin(self) -> None:
        group = self._group
        region = group.tree.region
        try:
            if self._holder is None:
                self._holder = self._create_holder(region)
            for counter in self._counters.values():
                region.holder_join_one(self._holder, group.id, counter.index)
                counter.bind(region, self._holder, group.id, counter.index)
        except EngineError as error:
            raise group.public_error(error) from None

    def _create_holder(self, region: Region) -> int:
        self._account.take(leases=1, cells=len(self._resources))
        try:
            return region.holder_create(self._pid, self._start_time, LEASE, KEEP if self._keep else 0)
        except BaseException:
            self._account.give_back(leases=1, cells=len(self._resources))
            raise


class _LeaseCounter(Counter):
    """Charges through the lease's own holder, never through that of this process."""

    __slots__ = ()

    def _bind(self) -> None:
        raise TreeGone(self.group.tree.path, "the lease was closed")

    def _bind_held(self) -> bool:
        return False

"""What an open lease file stands for: a holder of its own in one counter, for a process that charges through files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from . import engine
from .counter import Counter
from .engine import KEEP, LEASE, EngineError
from .errors import GroupRemoved, LockTimeout, TreeGone

if TYPE_CHECKING:
    from .group import Group

T = TypeVar("T")


class Lease:
    """A holder of its own in one counter, in the name of a process that charges through the mount.

    It becomes a holder with the first operation that succeeds.  One operation at a time.
    """

    __slots__ = ("_begun", "_counter", "_holder", "_keep", "_pid", "_start_time")

    def __init__(self, group: Group, resource: str, pid: int, start_time: int) -> None:
        self._counter = _LeaseCounter(group, resource)
        self._begun = False
        self._holder: int | None = None
        self._keep = False
        self._pid = pid
        self._start_time = start_time

    @property
    def held(self) -> int:
        return self._counter.held

    def resize(self, amount: int) -> None:
        """Holds this amount from now on, or raises LimitExceeded and holds what it held."""
        more = engine.amount(amount) - self.held
        self._do(self._counter.charge if more >= 0 else self._counter.uncharge, abs(more))

    def adjust(self, amount: int) -> None:
        """Holds so much more, or less if it is negative.  LimitExceeded, NotHeld."""
        self._do(self._counter.charge if amount >= 0 else self._counter.uncharge, abs(amount))

    def nofail(self, amount: int) -> bool:
        """Always charges; False if a limit is now exceeded."""
        return self._do(self._counter.charge_nofail, amount)

    def give(self, amount: int) -> None:
        """What it holds becomes the group's own.  NotHeld."""
        self._do(self._counter.give, amount)

    def take(self, amount: int) -> None:
        """What the group itself holds becomes the lease's.  NotHeld."""
        self._do(self._counter.take, amount)

    def keep(self, keep: bool = True) -> None:
        """Whether the group keeps what is held at the end."""
        group = self._counter.group
        if self._holder is None:  # nothing to ask the engine, but there must be a group
            if not group.exists:
                raise GroupRemoved(group.last_path())
        else:
            try:
                group.tree.region.holder_set_flags(self._holder, KEEP if keep else 0)
            except EngineError as error:
                raise self._counter.public_error(error) from None
        self._keep = keep

    def close(self) -> None:
        """Ends it: what it holds is given back, or kept by the group."""
        holder = self._holder
        if holder is None:
            return
        self._begun = False
        self._counter.unbind()
        with contextlib.suppress(TreeGone):
            self._counter.group.tree.end_holder(holder)
        self._holder = None

    def _do(self, operation: Callable[[int], T], amount: int) -> T:
        amount = engine.amount(amount)
        if self._begun:
            return operation(amount)
        try:
            self._begin()
            result = operation(amount)
        except BaseException:
            with contextlib.suppress(LockTimeout):  # tried again with the next operation, or close()
                self.close()
            raise
        self._begun = True
        return result

    def _begin(self) -> None:
        group, index = self._counter.group, self._counter.index
        region = group.tree.region
        try:
            if self._holder is None:
                self._holder = region.holder_create(self._pid, self._start_time, LEASE, KEEP if self._keep else 0)
            region.holder_join_one(self._holder, group.id, index)
            self._counter.bind(region, self._holder, group.id, index)
        except EngineError as error:
            raise self._counter.public_error(error) from None


class _LeaseCounter(Counter):
    """Charges through a lease's own holder, never through that of the process it is in."""

    __slots__ = ()

    def _bind(self) -> None:
        raise TreeGone(self.group.tree.path, "the lease was closed")

    def _bind_held(self) -> bool:
        return False

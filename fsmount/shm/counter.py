"""Counters: what is charged, and what they say.

A counter charges through engine.Charger, which it is; what is here is what it says, and how it
comes to be chargeable.  To charge, a process must be a holder in the group; membership.py tells
how it becomes one, at the latest with its first charge.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from fsmount import engine
from fsmount.engine import BELOW, LEASE, LOOKED_AT_ALL, NOT_LOOKED, PERCENT, PROCESS, CounterHold, EngineError, Hold
from fsmount.errors import NOFAIL_IS_RESERVED, LimitExceeded, NotHeld, TreeGone
from fsmount.protocol.listings import EVENT_KEYS, STAT_KEYS
from fsmount.protocol.names import PATH_MAX
from fsmount.protocol.refusals import LargeHolder, Probe, Refusal, to_the_millisecond
from fsmount.protocol.thresholds import Mark
from fsmount.shm.answers import in_public
from fsmount.shm.holder import Holder, command_name

if TYPE_CHECKING:
    from fsmount.shm.group import Group
    from fsmount.shm.tree import Tree

_BY = {PROCESS: "process", LEASE: "lease"}
_LOOKED = {LOOKED_AT_ALL: "all", NOT_LOOKED: "none"}


class Counter(engine.Charger):
    """The counter of one resource in a group.  Charging it charges every ancestor too.

    Amounts are ints from 0 to UNLIMITED: anything else is a TypeError, ValueError (below 0) or
    OverflowError.  Safe to use from several threads.
    """

    __slots__ = ("__weakref__", "group", "index", "resource")

    def __init__(self, group: Group, resource: str) -> None:
        self.group = group
        self.resource = resource
        #: The resource's number in the tree.
        self.index = list(group.tree.resources).index(resource)

    def __repr__(self) -> str:
        return f"<Counter {self.resource} of {self.group.last_path()}>"

    @property
    def unit(self) -> str:
        """ "bytes" or "count"."""
        return self.group.tree.resources[self.resource]

    # charge, try_charge, uncharge, give, take and held are engine.Charger's

    def charge_nofail(self, amount: int, /) -> bool:
        """Always charges; False if a limit is now exceeded.  PermissionError: for root and the tree's owner alone."""
        amount = engine.amount(amount)
        if not self.group.tree.may_exceed_limits:
            raise PermissionError(errno.EPERM, NOFAIL_IS_RESERVED, self.group.last_path())
        return super().charge_nofail(amount)

    async def wait_charge(self, amount: int) -> None:
        """Charges as soon as there is room and it is its turn, in a task of trio or asyncio.

        Cancelled, it has charged nothing.
        """
        await self.group.wait_charge({self.resource: amount})

    def hold(self, amount: int, *, wait: bool = False, timeout: float | None = None) -> Hold:
        """A context manager: charged inside, uncharged after; wait and timeout as those of charge()."""
        return CounterHold(self, amount, wait, timeout)

    # ---- what it says

    @property
    @in_public
    def usage(self) -> int:
        """What is charged in the subtree, precisely: stock is not usage."""
        return self.group.tree.region.usage(self.group.id, self.index)

    @property
    @in_public
    def limit(self) -> int:
        """The limit.  Set to less than the usage it raises OSError(EBUSY) and stays as it is."""
        return self.group.tree.region.limit(self.group.id, self.index)

    @limit.setter
    def limit(self, limit: int) -> None:
        group = self.group
        try:
            group.tree.region.set_limit(group.id, self.index, limit)
        except EngineError as error:
            if error.errno != errno.EBUSY:
                raise self.public_error(error) from None
            raise OSError(
                errno.EBUSY,
                f"the limit of {self.resource} cannot be {limit}: the usage is {error.usage}; uncharge first, "
                "or set no less than that",
                self.group.last_path(),
            ) from None

    @property
    @in_public
    def soft_limit(self) -> int:
        return self.group.tree.region.soft_limit(self.group.id, self.index)

    @soft_limit.setter
    @in_public
    def soft_limit(self, limit: int) -> None:
        self.group.tree.region.set_soft_limit(self.group.id, self.index, limit)

    @property
    @in_public
    def max_usage(self) -> int:
        """The peak of the usage since it was reset; stat()["error_bound"] tells how far it may be off."""
        return self.group.tree.region.max_usage(self.group.id, self.index)

    @property
    @in_public
    def failcnt(self) -> int:
        """How many charges this counter refused, since it was reset."""
        return self.group.tree.region.failcnt(self.group.id, self.index)

    @property
    def margin(self) -> int:
        """What may still be charged before this limit: limit - usage, 0 at least."""
        return self.stat()["margin"]

    @property
    def soft_limit_excess(self) -> int:
        """By how much the usage is above the soft limit."""
        return self.stat()["soft_limit_excess"]

    @in_public
    def stat(self) -> dict[str, int]:
        """All there is to know of it, of one moment; the keys of R.stat in their order."""
        return dict(zip(STAT_KEYS, self.group.tree.region.get_stat(self.group.id, self.index), strict=True))

    @in_public
    def events(self) -> dict[str, int]:
        """What happened in the subtree, ever: `limit` counts the charges that a limit refused, `soft_limit` how often
        a usage came above its soft limit or back, `threshold` how often one crossed what somebody watches for.  The
        keys of R.events in their order; no count ever falls.
        """
        return dict(zip(EVENT_KEYS, self.group.tree.region.get_events(self.group.id, self.index), strict=True))

    @in_public
    def why(self, most: int = 256) -> list[Refusal]:
        """The last refusals of charges that were asked for in the subtree, or refused by a limit in it, newest first.

        A tree keeps the last 256 of different processes, counters or limits.
        """
        group = self.group
        paths = _Paths(group.tree)
        return [_refusal(paths, info) for info in group.tree.region.get_refusals(group.id, self.index, most)]

    @property
    @in_public
    def last_refusal(self) -> int:
        """The number of the newest of why(), 0 if there is none: another whenever there is a new one."""
        return sum(info.number for info in self.group.tree.region.get_refusals(self.group.id, self.index, 1))

    @in_public
    def probe(self, amount: int) -> Probe:
        """What a charge of so much would meet now, without charging, and without taking anybody's stock.

        It is one that does not wait: who stands in line takes no room from it.
        """
        tree = self.group.tree
        fits, group, usage, limit, margin = tree.region.probe(self.group.id, self.index, amount)
        short = 0 if fits else amount + usage - limit
        return Probe(amount, fits, tree.path_below(group), usage, limit, short, margin)

    @in_public
    def watch(self, marks: Sequence[Mark], old: Sequence[int] = ()) -> list[int]:
        """The ids of new watches, one for each mark, in the place of the old ones: all or, with an error, nothing.

        They last until somebody ends them, the group is removed, or another process serves the tree.  OSError: ENOSPC.
        """
        flags = [(BELOW if mark.below else 0) | (PERCENT if mark.percent else 0) for mark in marks]
        wanted = [(mark.amount, flag) for mark, flag in zip(marks, flags, strict=True)]
        return self.group.tree.region.watch(self.group.id, self.index, wanted, old)

    @in_public
    def unwatch(self, watches: Sequence[int]) -> None:
        """Ends watches; one that has ended already is no error."""
        self.group.tree.region.unwatch(watches)

    @in_public
    def crossings(self, watch: int) -> int:
        """How often the usage crossed the mark of a watch since it was made.  GroupRemoved: it has ended."""
        return self.group.tree.region.watch_crossings(watch)

    @property
    @in_public
    def news(self) -> int:
        """Another number whenever events() may have changed, while somebody listens to the tree's."""
        return self.group.tree.region.get_event_seq(self.group.id, self.index)

    def holders(self) -> list[Holder]:
        """The holders here.  Those that come and go meanwhile may be missing."""
        found, place = self.page_of_holders()
        while place is not None:
            page, place = self.page_of_holders(place)
            found += page
        return found

    @in_public
    def page_of_holders(self, place: int = 0) -> tuple[list[Holder], int | None]:
        """The same a page at a time, so that nobody waits for long: and the place of the next, None after the last."""
        found, following = self.group.tree.region.page_of_holders(self.group.id, self.index, place)
        return [Holder.of(info) for info in found], following

    # ---- what it can be told

    @in_public
    def reset_max_usage(self) -> None:
        """Sets max_usage, and min_usage, to the usage of now."""
        self.group.tree.region.reset_max_usage(self.group.id, self.index)

    @in_public
    def reset_failcnt(self) -> None:
        self.group.tree.region.reset_failcnt(self.group.id, self.index)

    def charge_common(self, amount: int, *, thread: int = 0) -> None:
        """Charges the group itself: it stays until it is uncharged, whoever lives or dies.  LimitExceeded.

        thread: one of the process that asks for it, as why() tells; 0: of this one, -1: not known.
        """
        try:
            self.group.tree.region.common_charge(self.group.id, self.index, amount, thread)
        except EngineError as error:
            self._failed(error, amount)

    def uncharge_common(self, amount: int) -> None:
        """Gives back of what the group itself holds.  NotHeld."""
        try:
            self.group.tree.region.common_uncharge(self.group.id, self.index, amount)
        except EngineError as error:
            self._failed(error, amount)

    @in_public
    def force_empty(self) -> None:
        """Drains the stock below and forgets what the group itself holds; holders keep theirs."""
        self.group.tree.region.force_empty(self.group.id, self.index)

    # ---- what engine.Charger asks

    def _bind(self) -> None:
        try:
            self.group.bind(self)
        except EngineError as error:
            raise self.public_error(error) from None

    def _bind_held(self) -> bool:
        try:
            return self.group.bind_if_joined(self)
        except EngineError as error:
            raise self.public_error(error) from None

    def _wait(self, amount: int, timeout: float | None) -> bool:
        return self.group.charge_in_turn({self.resource: amount}, timeout)

    def _failed(self, error: EngineError, amount: int) -> NoReturn:
        group = self.group
        if error.errno == errno.ENOMEM:
            refused = group.tree.group(error.group).last_path()
            raise LimitExceeded(refused, self.resource, amount, error.usage, error.limit) from None
        if error.errno == errno.ERANGE:
            raise NotHeld(self.resource, amount, error.held, group.last_path()) from None
        if error.errno in (errno.EBADF, errno.ENODEV, errno.ENOTCONN):
            group.refuse_closed()
        if error.errno == errno.ENODEV and group.lost():
            raise TreeGone(group.tree.path, "somebody ended what this process held in the tree") from None
        raise self.public_error(error) from None

    def failed(self, error: EngineError, amount: int) -> NoReturn:
        """Raises what an answer of the engine to a charge of this amount means."""
        self._failed(error, amount)

    def public_error(self, error: EngineError) -> OSError:
        return self.group.public_error(error)


class _Paths(dict[int, str | None]):
    """The paths of groups, each looked up once; None of a group that was removed."""

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self._tree = tree

    def __missing__(self, id: int) -> str | None:
        try:
            path = self._tree.path_below(id, PATH_MAX)
        except EngineError as error:
            if error.errno != errno.ENODEV:
                raise
            path = None
        self[id] = path
        return path


def _refusal(paths: _Paths, info: engine.RefusalInfo) -> Refusal:
    return Refusal(
        last=to_the_millisecond(info.last),
        first=to_the_millisecond(info.first),
        times=info.times,
        pid=info.pid,
        by=_BY.get(info.kind, "group"),
        command=command_name(info.command),
        asked=paths[info.asked],
        refused=paths[info.refused],
        charged=info.charged,
        amount=info.amount,
        usage=info.usage,
        limit=info.limit,
        looked=_LOOKED.get(info.looked, "some"),
        looked_at=to_the_millisecond(info.looked_at) if info.looked != NOT_LOOKED else None,
        largest=tuple(
            LargeHolder(held.held, held.pid, _BY.get(held.kind, "group"), paths[held.group], command_name(held.command))
            for held in info.largest
        ),
    )

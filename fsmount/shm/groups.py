"""Groups and counters in the region.

A counter is an engine.Charger, whose methods charge without a call of Python.  This module adds the counter's values,
and the hooks of an unbound charger: to charge, a process must be a holder in the group, and it becomes one with its
first charge at the latest (membership.py).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NoReturn

from fsmount import engine, interface
from fsmount.engine import (
    BELOW,
    PERCENT,
    ROOT,
    Charger,
    CounterHold,
    EngineError,
    GroupHold,
    Hold,
    Request,
    Snapshot,
)
from fsmount.errors import GroupRemoved, LimitExceeded, NotHeld, TreeGone
from fsmount.interface import OnExit, busy
from fsmount.interface.options import ends_with_keep
from fsmount.interface.region import RegionCounter
from fsmount.protocol.file_names import KINDS_MAX
from fsmount.protocol.listings import EVENT_KEYS, STAT_KEYS, CounterSnapshot, HolderLine
from fsmount.protocol.names import BAD_NAME, NAME_MAX, NAME_OF_A_FILE, NAME_OF_A_GROUP
from fsmount.protocol.refusals import Probe, Refusal
from fsmount.protocol.suggestions import no_resource
from fsmount.protocol.thresholds import Mark
from fsmount.shm.answers import in_public
from fsmount.shm.attachment import AttachedGroup
from fsmount.shm.holder import Holder
from fsmount.shm.membership import JoinedRegion
from fsmount.shm.refusals import Paths, public_refusal
from fsmount.shm.waiting import charge_in_turn, charge_in_turn_async

#: The number of groups in a page of a snapshot.  Other threads wait while they become Python objects, for 100 us.
_PAGE = 64

if engine.SLOTS != KINDS_MAX:
    raise ImportError(
        f"the engine has attributes for {engine.SLOTS} kinds of files, the table has room for {KINDS_MAX}"
    )

if engine.NAME_MAX != NAME_MAX:
    raise ImportError(f"names of groups have {engine.NAME_MAX} bytes in the engine, and {NAME_MAX} in the table")


class Counter(engine.Charger, RegionCounter):
    """The counter of one resource in a group of the region."""

    __slots__ = ("__weakref__", "group", "index", "resource")

    group: Group
    resource: str

    def __init__(self, group: Group, resource: str) -> None:
        self.group = group
        self.resource = resource
        #: The resource's number in the tree.
        self.index = list(group.tree.resources).index(resource)

    # charge, try_charge, uncharge, give, take and held are engine.Charger's

    def charge_nofail(self, amount: int, /) -> bool:
        """Charges an amount past any limit; False: a limit is exceeded now.

        PermissionError: the caller is neither root nor the owner of the mount.
        """
        amount = engine.amount(amount)
        if not self.group.tree.may_exceed_limits:
            raise self._nofail_is_reserved()
        within = super().charge_nofail(amount)
        return within and (amount > 0 or self._is_within_limits())  # the engine charges 0 without a look at limits

    def hold(self, amount: int, *, wait: bool = False, timeout: float | None = None) -> Hold:
        return CounterHold(self, amount, wait, timeout)

    # ---- reading

    @property
    @in_public
    def usage(self) -> int:
        return self.group.tree.region.usage(self.group.id, self.index)

    @property
    @in_public
    def limit(self) -> int:
        return self.group.tree.region.limit(self.group.id, self.index)

    @limit.setter
    def limit(self, limit: int) -> None:
        group = self.group
        try:
            group.tree.region.set_limit(group.id, self.index, limit)
        except EngineError as error:
            if error.errno != errno.EBUSY:
                raise self.public_error(error) from None
            raise self._limit_below_usage(limit, error.usage) from None

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
        return self.group.tree.region.max_usage(self.group.id, self.index)

    @property
    @in_public
    def failcnt(self) -> int:
        return self.group.tree.region.failcnt(self.group.id, self.index)

    @in_public
    def stat(self) -> dict[str, int]:
        return dict(zip(STAT_KEYS, self.group.tree.region.get_stat(self.group.id, self.index), strict=True))

    @in_public
    def events(self) -> dict[str, int]:
        return dict(zip(EVENT_KEYS, self.group.tree.region.get_events(self.group.id, self.index), strict=True))

    @in_public
    def why(self, max_records: int = 256) -> list[Refusal]:
        group = self.group
        paths = Paths(group.tree)
        return [
            public_refusal(paths, info) for info in group.tree.region.get_refusals(group.id, self.index, max_records)
        ]

    @property
    @in_public
    def last_refusal(self) -> int:
        return sum(info.number for info in self.group.tree.region.get_refusals(self.group.id, self.index, 1))

    @in_public
    def probe(self, amount: int) -> Probe:
        tree = self.group.tree
        fits, group, usage, limit, margin = tree.region.probe(self.group.id, self.index, amount)
        short = 0 if fits else amount + usage - limit
        return Probe(amount, fits, tree.path_below(group), usage, limit, short, margin)

    @in_public
    def watch(self, marks: Sequence[Mark], old: Sequence[int] = ()) -> list[int]:
        flags = [(BELOW if mark.below else 0) | (PERCENT if mark.percent else 0) for mark in marks]
        wanted = [(mark.amount, flag) for mark, flag in zip(marks, flags, strict=True)]
        return self.group.tree.region.watch(self.group.id, self.index, wanted, old)

    @in_public
    def unwatch(self, watches: Sequence[int]) -> None:
        self.group.tree.region.unwatch(watches)

    @in_public
    def crossings(self, watch: int) -> int:
        return self.group.tree.region.watch_crossings(watch)

    @property
    @in_public
    def news(self) -> int:
        return self.group.tree.region.get_event_seq(self.group.id, self.index)

    def holders(self) -> list[HolderLine]:
        commands: dict[int, str] = {}
        lines = [holder.line(commands) for holder in self.all_holders()]
        common = self.stat()["common"]
        return [*lines, HolderLine.of_the_group(common)] if common else lines

    def all_holders(self) -> list[Holder]:
        """The holders of the counter, with the fields that the region keeps."""
        found, place = self.page_of_holders()
        while place is not None:
            page, place = self.page_of_holders(place)
            found += page
        return found

    @in_public
    def page_of_holders(self, place: int = 0) -> tuple[list[Holder], int | None]:
        found, following = self.group.tree.region.page_of_holders(self.group.id, self.index, place)
        return [Holder.of(info) for info in found], following

    def snapshot(self) -> list[CounterSnapshot]:
        return [row for page in self.snapshot_pages() for row in page]

    @in_public
    def snapshot_pages(self) -> Iterator[list[CounterSnapshot]]:
        pages = self.take_snapshot().pages(self.group.id, _PAGE)
        first = next(pages, None)
        if first is None:
            raise GroupRemoved(self.group.last_path())
        return chain([first], pages)

    @in_public
    def take_snapshot(self) -> Snapshot:
        return self.group.tree.region.snapshot(self.index)

    # ---- resets and the group's own charges

    @in_public
    def reset_max_usage(self) -> None:
        self.group.tree.region.reset_max_usage(self.group.id, self.index)

    @in_public
    def reset_failcnt(self) -> None:
        self.group.tree.region.reset_failcnt(self.group.id, self.index)

    def charge_common(self, amount: int) -> None:
        self.charge_common_for(amount, 0)

    def charge_common_for(self, amount: int, thread: int) -> None:
        try:
            self.group.tree.region.common_charge(self.group.id, self.index, amount, thread)
        except EngineError as error:
            raise self._refusal(error, amount) or self.public_error(error) from None

    def uncharge_common(self, amount: int) -> None:
        try:
            self.group.tree.region.common_uncharge(self.group.id, self.index, amount)
        except EngineError as error:
            raise self._refusal(error, amount) or self.public_error(error) from None

    @in_public
    def force_empty(self) -> None:
        self.group.tree.region.force_empty(self.group.id, self.index)

    # ---- the hooks of engine.Charger

    def _bind(self) -> None:
        try:
            self.group.bind(self, self.index)
        except EngineError as error:
            raise self.public_error(error) from None

    def _bind_held(self) -> bool:
        try:
            return self.group.bind_if_joined(self, self.index)
        except EngineError as error:
            raise self.public_error(error) from None

    def _wait(self, amount: int, timeout: float | None) -> bool:
        return self.group._charge_in_turn({self.resource: amount}, timeout)

    def _failed(self, error: EngineError, amount: int) -> NoReturn:
        group = self.group
        if (refusal := self._refusal(error, amount)) is not None:
            raise refusal from None
        if error.errno in (errno.EBADF, errno.ENODEV, errno.ENOTCONN):
            group.refuse_closed()
        if error.errno == errno.ENODEV and group.lost():
            raise TreeGone(group.tree.path, "another process ended the holder of this process in the tree") from None
        raise self.public_error(error) from None

    def _refusal(self, error: EngineError, amount: int) -> LimitExceeded | NotHeld | None:
        if error.errno == errno.ENOMEM:
            refused = self.group.tree.path_or_id(error.group)
            return LimitExceeded(refused, self.resource, amount, error.usage, error.limit)
        if error.errno == errno.ERANGE:
            return NotHeld(self.resource, amount, error.held, self.group.last_path())
        return None

    def failed(self, error: EngineError, amount: int) -> NoReturn:
        """Raises the public error for the engine's answer to a charge of this amount."""
        self._failed(error, amount)

    def public_error(self, error: EngineError) -> OSError:
        return self.group.public_error(error)


class Group(AttachedGroup):
    """A group of a tree in the region, with its counters and its children."""

    __slots__ = ("_counters",)

    def __init__(self, tree: JoinedRegion, id: int, found: tuple[interface.Group, str] | None = None) -> None:
        super().__init__(tree, id, found)
        self._counters: dict[str, Counter] = {}

    def __getitem__(self, resource: str, /) -> Counter:
        try:
            return self._counters[resource]
        except KeyError:
            pass
        if resource not in self.tree.resources:
            raise no_resource(resource, self.tree.resources)
        return self._counters.setdefault(resource, Counter(self, resource))

    def chargers(self) -> list[Charger]:
        return list(self._counters.values())

    # ---- multi-resource requests

    def _change(self, amounts: Mapping[str, int]) -> None:
        engine.change({self[resource]: amount for resource, amount in amounts.items()})

    def _hold(self, amounts: dict[str, int], wait: bool, timeout: float | None) -> Hold:
        return GroupHold(self, amounts, wait, timeout)

    def _charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> bool:
        try:
            return charge_in_turn(self._request(amounts), timeout)
        except EngineError as error:
            self._failed(error, amounts)

    async def _charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        try:
            await charge_in_turn_async(self._request(amounts))
        except EngineError as error:
            self._failed(error, amounts)

    def _request(self, amounts: Mapping[str, int]) -> Request:
        return Request([self[resource] for resource in amounts], list(amounts.values()))

    def _failed(self, error: EngineError, amounts: Mapping[str, int]) -> NoReturn:
        resource, amount = next(iter(amounts.items()))
        self[resource].failed(error, amount)

    # ---- children

    @in_public
    def children(self) -> list[Group]:
        return [Group(self.tree, id, (self, os.fsdecode(name))) for name, id in self.tree.region.children(self.id)]

    def child(self, name: str | bytes) -> Group:
        found = self.find(name)
        if found is None:
            path = self._path_of_child(os.fsdecode(name))
            raise FileNotFoundError(errno.ENOENT, "there is no group of this name", path)
        return found

    def find(self, name: str | bytes) -> Group | None:
        """The child of this name, or None."""
        try:
            id = self.tree.region.lookup(self.id, os.fsencode(name))
        except EngineError as error:
            raise self._name_error(error, os.fsdecode(name)) from None
        return None if id is None else Group(self.tree, id, (self, os.fsdecode(name)))

    def mkdir(self, name: str | bytes, mode: int = 0o755) -> Group:
        return self.mkdir_for(name, mode)

    def mkdir_for(self, name: str | bytes, mode: int = 0o755, uid: int | None = None, gid: int | None = None) -> Group:
        """As mkdir(); with uid or gid, the new group belongs to another user or group ID."""
        text = os.fsdecode(name)
        self._refuse_reserved(text)
        if gid is None:
            mode, gid = self.inherited(mode, os.getegid())
        if uid is None:
            uid = os.geteuid()
        try:
            id = self.tree.region.mkdir(self.id, os.fsencode(name), mode & 0o7777, uid, gid, time.time_ns())
        except EngineError as error:
            raise self._name_error(error, text) from None
        self.tree.tell_changed(self.id)
        return Group(self.tree, id, (self, text))

    def inherited(self, mode: int, gid: int) -> tuple[int, int]:
        """The mode and group ID of a new child, from the mode and the group ID of the user who makes it."""
        ours = self.attributes(0)
        return (mode | stat.S_ISGID, ours.gid) if ours.mode & stat.S_ISGID else (mode, gid)

    def rmdir(self, name: str | bytes) -> None:
        self.child(name).remove()

    def remove(self) -> None:
        """Removes this group.  OSError(EBUSY): it has groups below, usage or live holders, or is the root."""
        parent = self.parent
        path = self.path
        try:
            self.tree.region.rmdir(self.id, time.time_ns())
        except EngineError as error:
            if error.errno == errno.EBUSY:
                raise OSError(errno.EBUSY, f"the group cannot be removed: {self._why_busy()}", path) from None
            raise self.public_error(error) from None
        if parent is not None:
            self.tree.tell_changed(parent.id)

    def rename(self, old: str | bytes, new: str | bytes) -> None:
        text = os.fsdecode(new)
        child = self.child(old)
        self._refuse_reserved(text)
        try:
            self.tree.region.rename(child.id, os.fsencode(new), time.time_ns())
        except EngineError as error:
            raise self._name_error(error, text) from None
        self.tree.tell_changed(self.id)

    def _refuse_reserved(self, name: str) -> None:
        if self.tree.is_reserved(self.id, name):
            if not self.exists:
                raise GroupRemoved(self.last_path())
            raise FileExistsError(errno.EEXIST, NAME_OF_A_FILE, self._path_of_child(name))

    def _path_of_child(self, name: str) -> str:
        return f"{self.last_path().rstrip('/')}/{name}"

    def _name_error(self, error: EngineError, name: str) -> OSError:
        texts = {
            errno.EINVAL: BAD_NAME,
            errno.ENAMETOOLONG: BAD_NAME,
            errno.EEXIST: NAME_OF_A_GROUP,
            errno.ENOSPC: "the region has no room for another group",
        }
        if error.errno not in texts:
            return self.public_error(error)
        return OSError(error.errno, texts[error.errno], self._path_of_child(name))

    def _why_busy(self) -> str:
        if self.id == ROOT:
            return "it is the root"
        if self.child_count:
            return busy.with_groups(self.child_count)
        for counter in map(self.__getitem__, self.resources):
            holders, more = counter.page_of_holders()  # a busy group may have any number
            pids = sorted({holder.pid for holder in holders})
            if pids:
                return busy.with_holders(pids, counter.resource, more=more is not None)
            usage = counter.usage
            if usage:
                return busy.with_usage(usage, counter.resource)
        return "it was in use"

    # ---- attaching

    def attach(self, *, on_exit: OnExit = "release") -> Group:
        return self.attach_through(-1, on_exit)

    def attach_through(self, control: int, on_exit: OnExit) -> Group:
        """As attach(); control: an open control channel of the tree's mount, or -1; it stays the caller's."""
        attached = Group(self.tree, self.id, self._found)
        attached.join(ends_with_keep(on_exit), control)
        return attached

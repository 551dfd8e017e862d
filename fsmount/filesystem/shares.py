"""Shares of the tree's capacity: no user can use up what the others need.

Each kind of thing in a tree has a capacity, and one rule holds for each.  **A sixteenth of the capacity is for root and
the owner of the mount alone.  Any other user never holds more than is left for such users.**  So the first user gets
at most half, the next user half of the rest, and so on.  Root finds room even if a user has the right to thousands of
user numbers.

Groups, leases, cells, marks and waiters count against the owner of the topmost group on the way from the root that
belongs to neither root nor the owner of the mount.  If there is no such group, they count against the user who asks.
An open file or directory counts against the user who opens it: many users may read a file, and must not use up the
share of its owner.  Root and the owner are never refused.

The engine counts the totals.  The share of each user is counted here, with each request that takes or gives back.  But
a process of root or the owner can make and remove groups in the region itself, and a group can get another owner.  So
the groups are counted again before a user is refused, and before a user gets more after a change of owner.  That takes
0.5 ms for 65,536 groups.  A longer count runs in a worker thread, and seldom enough to take a bounded part of the time.
It may miss changes in the region that happen meanwhile.
"""

from __future__ import annotations

import errno
import heapq
import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping
from time import monotonic, thread_time

from fsmount.filesystem.guard import leave_loop
from fsmount.protocol.status import Capacity
from fsmount.shm import Group, Holder, Tree

log = logging.getLogger(__name__)

#: The pools of the engine, in the order of Region.use().
_OF_ENGINE = ("groups", "processes", "leases", "cells", "marks", "waiters")

#: The capacities for things that the daemon itself keeps for users: about 1 KB each, and 2 KB for an open lease.
_OF_DAEMON = {"open_files": 1 << 18, "removed_groups": 1 << 16}

#: The divisor of the part that is for root and the owner of the mount alone.
_RESERVED = 16

#: The event loop's thread does a count that takes at most this long, in seconds.
_SHORT = 0.0001

#: The divisor of the part of the time that longer counts may take.
_PART = 20

#: The number of attempts at a count during which no group is made or removed; the last one counts in any case.
_ATTEMPTS = 3

#: The time between two log lines about refusals of one kind for one user, in seconds.
_LOG_INTERVAL = 60.0

_FILES_FOR_USERS = _OF_DAEMON["open_files"] - _OF_DAEMON["open_files"] // _RESERVED

#: The largest number of remembered owners of groups, and of remembered refusals in the log.
_REMEMBERED = 8192

#: The number of users that a report names for each kind.
_LARGEST = 3


class Account:
    """The account for a request of one user in one group."""

    __slots__ = ("_shares", "limited", "uid")

    def __init__(self, shares: Shares, uid: int, limited: bool) -> None:
        self._shares = shares
        #: The user whose share is charged.
        self.uid = uid
        #: Whether the request may be refused.
        self.limited = limited

    def take(self, **amounts: int) -> None:
        """Takes these amounts of the share.  OSError(ENOSPC): the share has less."""
        self._shares.take(self.uid, amounts, self.limited)

    def give_back(self, **amounts: int) -> None:
        """Gives these amounts back to the share."""
        self._shares.give_back(self.uid, amounts)

    def used_up(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Kind -> the number that the user has, for each kind of which the share has less than these amounts."""
        return self._shares.used_up(self.uid, amounts) if self.limited else {}


class Shares:
    """The share of each user in the capacity of a tree.  For any thread."""

    def __init__(self, tree: Tree, leases: Iterable[Holder] = ()) -> None:
        """leases: the open leases of an earlier daemon that has died; they last as long as their processes."""
        self._tree = tree
        self._owner = os.geteuid()
        self._lock = threading.Lock()
        self._held: dict[str, dict[int, int]] = {kind: {} for kind in (*_OF_ENGINE, *_OF_DAEMON)}
        self._totals = dict.fromkeys(_OF_DAEMON, 0)
        self._files = self._held["open_files"]
        self._owners: dict[int, int] = {}  # group -> the user that it counts against
        self._changes = 0  # how often the number of groups has changed
        self._outdated = True  # groups or owners may have changed in the region
        self._count_time = 0.0  # how long the last count took
        self._count_at = -math.inf  # when the next count may begin
        self._logged: dict[tuple[int, str], float] = {}
        self._inherited: dict[int, tuple[Account, int]] = {}  # leases of an earlier daemon, and their cells
        for lease in leases:
            self._inherit(lease)
        self._count()

    def exempts(self, uid: int) -> bool:
        """Whether the user is root or the owner of the mount."""
        return uid == 0 or uid == self._owner

    def account(self, group: Group, uid: int) -> Account:
        """The account for the requests of a user in a group."""
        owner = self.owner_of(group)
        return Account(self, uid if self.exempts(owner) else owner, not self.exempts(uid))

    def owner_of(self, group: Group) -> int:
        """The owner of the topmost group on the way that an ordinary user owns; without one, the group's own owner."""
        way: list[Group] = []
        above: Group | None = group
        owner = 0
        while above is not None:
            known = self._owners.get(above.id)
            if known is not None:
                owner = known
                break
            way.append(above)
            above = above.parent
        if len(self._owners) > _REMEMBERED:
            self._owners.clear()
        for below in reversed(way):
            if self.exempts(owner):
                owner = below.attributes(0).uid
            self._owners[below.id] = owner
        return owner

    # ---- shares

    def take(self, uid: int, amounts: Mapping[str, int], limited: bool) -> None:
        """Takes these amounts of a user's share.  OSError: the share has less, and `limited` is set."""
        if not limited:
            with self._lock:
                self._add(uid, amounts)
            return
        if self._outdated and "groups" in amounts:
            self.refresh()
        if self._take_if_free(uid, amounts):
            return
        if any(kind in _OF_ENGINE for kind in amounts):
            self.refresh()
            if self._take_if_free(uid, amounts):
                return
        raise self._refusal(uid, amounts)

    def give_back(self, uid: int, amounts: Mapping[str, int]) -> None:
        """Gives these amounts back to a user's share."""
        with self._lock:
            self._add(uid, {kind: -amount for kind, amount in amounts.items()})

    def open_file(self, uid: int) -> None:
        """Counts a file or directory that a user opens.  OSError(ENFILE): the user's share is used up."""
        # as take() and give_back(), in a third of the time
        with self._lock:
            held = self._files.get(uid, 0) + 1
            if held <= _FILES_FOR_USERS - self._totals["open_files"] - 1 or self.exempts(uid):
                self._files[uid] = held
                self._totals["open_files"] += 1
                return
        raise self._refusal(uid, {"open_files": 1})

    def close_file(self, uid: int) -> None:
        """Counts a file or directory that a user closes."""
        with self._lock:
            self._totals["open_files"] -= 1
            held = self._files[uid]
            if held > 1:
                self._files[uid] = held - 1
            else:
                del self._files[uid]

    def _take_if_free(self, uid: int, amounts: Mapping[str, int]) -> bool:
        with self._lock:
            if self._short(uid, amounts) is not None:
                return False
            self._add(uid, amounts)
            return True

    def _short(self, uid: int, amounts: Mapping[str, int]) -> str | None:
        """A kind of which the user's share has less than these amounts; None if there is none."""
        capacities = self._capacities(amounts)
        for kind, amount in amounts.items():
            capacity, used = capacities[kind]
            left = capacity - capacity // _RESERVED - used - amount
            if amount > 0 and self._held[kind].get(uid, 0) + amount > left:
                return kind
        return None

    def _add(self, uid: int, amounts: Mapping[str, int]) -> None:
        for kind, amount in amounts.items():
            held = self._held[kind]
            now = held.get(uid, 0) + amount
            if now > 0:
                held[uid] = now
            else:
                held.pop(uid, None)
            if kind == "groups":
                self._changes += 1
            elif kind in self._totals:
                self._totals[kind] += amount

    def _capacities(self, of: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The capacity and the use of each kind."""
        if any(kind in _OF_ENGINE for kind in of):
            capacities = dict(zip(_OF_ENGINE, self._tree.region.use(), strict=True))
        else:
            capacities = {}
        for kind, total in self._totals.items():
            capacities[kind] = _OF_DAEMON[kind], total
        return capacities

    # ---- counts

    def owners_changed(self) -> None:
        """Notes that a group has another owner, or that a process has made or removed groups in the region."""
        self._owners.clear()
        self._outdated = True

    def refresh(self) -> None:
        """Counts the groups of each user again, unless the last count was too recent."""
        if monotonic() < self._count_at:
            return
        if self._count_time > _SHORT or self._inherited:
            leave_loop()
        self._count()

    def _count(self) -> None:
        began = thread_time()
        self._outdated = False
        self._owners.clear()
        for _ in range(_ATTEMPTS):
            changes = self._changes
            counts = self._tree.region.count_groups(0, self._owner)
            with self._lock:
                self._held["groups"] = counts
                if changes == self._changes:
                    break
        self._forget_ended()
        self._count_time = thread_time() - began
        self._count_at = monotonic() + _PART * self._count_time if self._count_time > _SHORT else -math.inf

    def _inherit(self, lease: Holder) -> None:
        group = self._tree.group(lease.group)
        owner = self.owner_of(group)
        if self.exempts(owner):
            owner = _user_of(lease.pid)
        account = Account(self, owner, limited=False)
        account.take(leases=1, cells=lease.cells)
        self._inherited[lease.id] = account, lease.cells

    def _forget_ended(self) -> None:
        """Gives back the leases of an earlier daemon that have ended."""
        if not self._inherited:
            return
        there = {holder.id for holder in self._tree.holders()}
        for id in self._inherited.keys() - there:
            account, cells = self._inherited.pop(id)
            account.give_back(leases=1, cells=cells)

    # ---- reports

    def report(self) -> dict[str, Capacity]:
        """The capacity of each kind, and the users with the largest parts of it."""
        with self._lock:
            held = {kind: list(users.items()) for kind, users in self._held.items()}
            capacities = self._capacities(held)
        return {
            kind: Capacity(*capacities[kind], heapq.nlargest(_LARGEST, users, key=lambda user: user[1]))
            for kind, users in held.items()
        }

    def used_up(self, uid: int, amounts: Mapping[str, int]) -> dict[str, int]:
        """Kind -> the number that the user has, for each kind of which the share has less than these amounts."""
        with self._lock:
            return {
                kind: self._held[kind].get(uid, 0)
                for kind, amount in amounts.items()
                if self._short(uid, {kind: amount}) is not None
            }

    def _refusal(self, uid: int, amounts: Mapping[str, int]) -> OSError:
        with self._lock:
            kind = self._short(uid, amounts) or next(iter(amounts))
            capacity, used = self._capacities([kind])[kind]
            text = (
                f"the share of user {uid} is used up: it has {self._held[kind].get(uid, 0)} {kind.replace('_', ' ')}, "
                f"and {capacity - used} of {capacity} are left for others; see fsmount status"
            )
        self._log_refusal(uid, kind, text)
        return OSError(errno.ENFILE if kind == "open_files" else errno.ENOSPC, text)

    def _log_refusal(self, uid: int, kind: str, text: str) -> None:
        now = monotonic()
        if now - self._logged.get((uid, kind), -math.inf) < _LOG_INTERVAL:
            return
        if len(self._logged) >= _REMEMBERED:
            self._logged.clear()
        self._logged[uid, kind] = now
        log.warning("%s", text)


def _user_of(pid: int) -> int:
    """The user of a process; root if it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return 0

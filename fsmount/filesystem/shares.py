"""Shares: no user can use up what the others need.

One rule, for everything that a tree has room for: **a user other than root and the owner of the mount never holds more
of it than is left for such users, and a sixteenth of it is left for root and the owner alone.**  So the first user gets
at most half, the next one half of the rest, and so on; root finds room whatever a user does, who may have the right to
thousands of user numbers.

Groups, leases, cells, marks and waiters count against the owner of the topmost group on the
way from the root that belongs to neither root nor the owner of the mount, whoever asks for them there; where there is
none, against the user who asks.  An open file or directory counts against the user who opens it: reading is often
permitted to everybody, and must not use up the share of the owner.  Root and the owner are never refused.

Totals are the engine's own.  The share of each user is counted here, as it is taken and given back, for it all passes
here; but a process of root or the owner may make and remove groups in the region itself, and a group may get another
owner.  So the groups are counted once more before anybody is refused, and before anybody gets more after an owner has
changed.  That takes 0.5 ms for 65,536 groups; where it takes long it is done in a worker thread, and so seldom that it
takes no more than a part of the time.  Changes by others meanwhile may be counted or not.
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

#: The things that the daemon itself keeps for users, and how many: about 1 KB each, twice that for an open lease.
_OF_DAEMON = {"open_files": 1 << 18, "removed_groups": 1 << 16}

#: So much of each is for root and the owner of the mount: one part in so many.
_RESERVED = 16

#: Groups are counted in the event loop's thread, and whenever it is needed, if that takes no longer, in seconds.
_SHORT = 0.0001

#: Otherwise one part of the time is spent on it, of so many.
_PART = 20

#: How often groups are counted until nothing was made or removed meanwhile; then the last count does.
_ATTEMPTS = 3

#: How often a refusal of one kind is logged for one user, in seconds.
_LOG_INTERVAL = 60.0

_FILES_FOR_USERS = _OF_DAEMON["open_files"] - _OF_DAEMON["open_files"] // _RESERVED

#: How many groups' owners, and refusals that were logged, are remembered.
_REMEMBERED = 8192

#: How many users of each kind a report names.
_LARGEST = 3


class Account:
    """Where the things are counted that one user takes in one group."""

    __slots__ = ("_shares", "limited", "uid")

    def __init__(self, shares: Shares, uid: int, limited: bool) -> None:
        self._shares = shares
        #: The user of the share.
        self.uid = uid
        #: Whether the user who asks may be refused.
        self.limited = limited

    def take(self, **amounts: int) -> None:
        """Counts so many more of each kind.  OSError(ENOSPC): they are more than the user's share."""
        self._shares.take(self.uid, amounts, self.limited)

    def give_back(self, **amounts: int) -> None:
        """Counts so many less."""
        self._shares.give_back(self.uid, amounts)

    def used_up(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Of which kinds the user cannot get so many more here, and how many the user has."""
        return self._shares.used_up(self.uid, amounts) if self.limited else {}


class Shares:
    """The share of each user in the room of a tree.  For any thread."""

    def __init__(self, tree: Tree, leases: Iterable[Holder] = ()) -> None:
        """leases: those that were open when the daemon before died; they last as long as their processes."""
        self._tree = tree
        self._owner = os.geteuid()
        self._lock = threading.Lock()
        self._held: dict[str, dict[int, int]] = {what: {} for what in (*_OF_ENGINE, *_OF_DAEMON)}
        self._totals = dict.fromkeys(_OF_DAEMON, 0)
        self._files = self._held["open_files"]
        self._owners: dict[int, int] = {}  # by group: the user it counts against
        self._changes = 0  # of what is counted of groups
        self._outdated = True  # somebody may have changed groups or owners without our counting it
        self._count_time = 0.0  # what it took when it was last done
        self._count_at = -math.inf  # from when on it may be done again
        self._logged: dict[tuple[int, str], float] = {}
        self._left: dict[int, tuple[Account, int]] = {}  # leases of an earlier daemon, and how many cells they have
        for lease in leases:
            self._inherit(lease)
        self._count()

    def exempts(self, uid: int) -> bool:
        """Whether this is root or the owner of the mount."""
        return uid == 0 or uid == self._owner

    def account(self, group: Group, uid: int) -> Account:
        """Where the things count that a user takes in a group."""
        owner = self.owner_of(group)
        return Account(self, uid if self.exempts(owner) else owner, not self.exempts(uid))

    def owner_of(self, group: Group) -> int:
        """The owner of the topmost group that belongs to neither root nor the owner of the mount, else its own."""
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

    # ---- taking and giving back

    def take(self, uid: int, amounts: Mapping[str, int], limited: bool) -> None:
        """Counts so many more of each kind against a user.  OSError: the user's share is less, and there is a limit."""
        if not limited:
            with self._lock:
                self._add(uid, amounts)
            return
        if self._outdated and "groups" in amounts:
            self.refresh()
        if self._take_if_free(uid, amounts):
            return
        if any(what in _OF_ENGINE for what in amounts):
            self.refresh()
            if self._take_if_free(uid, amounts):
                return
        raise self._refusal(uid, amounts)

    def give_back(self, uid: int, amounts: Mapping[str, int]) -> None:
        """Counts so many less."""
        with self._lock:
            self._add(uid, {what: -amount for what, amount in amounts.items()})

    def open_file(self, uid: int) -> None:
        """A user opens a file or directory.  OSError(ENFILE): the user's share is used up."""
        # the same as take() and give_back() in a third of the time
        with self._lock:
            held = self._files.get(uid, 0) + 1
            if held <= _FILES_FOR_USERS - self._totals["open_files"] - 1 or self.exempts(uid):
                self._files[uid] = held
                self._totals["open_files"] += 1
                return
        raise self._refusal(uid, {"open_files": 1})

    def close_file(self, uid: int) -> None:
        """And closes it."""
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
        """Of what there is too little in the user's share for so many more."""
        rooms = self._rooms(amounts)
        for what, amount in amounts.items():
            room, used = rooms[what]
            left = room - room // _RESERVED - used - amount
            if amount > 0 and self._held[what].get(uid, 0) + amount > left:
                return what
        return None

    def _add(self, uid: int, amounts: Mapping[str, int]) -> None:
        for what, amount in amounts.items():
            held = self._held[what]
            now = held.get(uid, 0) + amount
            if now > 0:
                held[uid] = now
            else:
                held.pop(uid, None)
            if what == "groups":
                self._changes += 1
            elif what in self._totals:
                self._totals[what] += amount

    def _rooms(self, of: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Of each kind: how many there can be, and are."""
        if any(what in _OF_ENGINE for what in of):
            rooms = dict(zip(_OF_ENGINE, self._tree.region.use(), strict=True))
        else:
            rooms = {}
        for what, total in self._totals.items():
            rooms[what] = _OF_DAEMON[what], total
        return rooms

    # ---- counting

    def owners_changed(self) -> None:
        """A group has another owner, or somebody has made or removed groups in the region."""
        self._owners.clear()
        self._outdated = True

    def refresh(self) -> None:
        """Counts the groups of each user once more, if it may be done again already."""
        if monotonic() < self._count_at:
            return
        if self._count_time > _SHORT or self._left:
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
        self._left[lease.id] = account, lease.cells

    def _forget_ended(self) -> None:
        """The leases of an earlier daemon that have ended."""
        if not self._left:
            return
        there = {holder.id for holder in self._tree.holders()}
        for id in self._left.keys() - there:
            account, cells = self._left.pop(id)
            account.give_back(leases=1, cells=cells)

    # ---- telling

    def report(self) -> dict[str, Capacity]:
        """All kinds, and who has the most of each."""
        with self._lock:
            held = {what: list(users.items()) for what, users in self._held.items()}
            rooms = self._rooms(held)
        return {
            what: Capacity(*rooms[what], heapq.nlargest(_LARGEST, users, key=lambda user: user[1]))
            for what, users in held.items()
        }

    def used_up(self, uid: int, amounts: Mapping[str, int]) -> dict[str, int]:
        """Of which kinds a user cannot get so many more, and how many the user has."""
        with self._lock:
            return {
                what: self._held[what].get(uid, 0)
                for what, amount in amounts.items()
                if self._short(uid, {what: amount}) is not None
            }

    def _refusal(self, uid: int, amounts: Mapping[str, int]) -> OSError:
        with self._lock:
            what = self._short(uid, amounts) or next(iter(amounts))
            room, used = self._rooms([what])[what]
            text = (
                f"the share of user {uid} is used up: it has {self._held[what].get(uid, 0)} {what.replace('_', ' ')}, "
                f"and {room - used} of {room} are left for others"
            )
        self._tell(uid, what, text)
        return OSError(errno.ENFILE if what == "open_files" else errno.ENOSPC, text)

    def _tell(self, uid: int, what: str, text: str) -> None:
        now = monotonic()
        if now - self._logged.get((uid, what), -math.inf) < _LOG_INTERVAL:
            return
        if len(self._logged) >= _REMEMBERED:
            self._logged.clear()
        self._logged[uid, what] = now
        log.warning("%s", text)


def _user_of(pid: int) -> int:
    """The user of a process; root if it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return 0

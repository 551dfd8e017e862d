"""Groups and counters in the region, as the control files use them: more than both transports have.

fsmount.shm implements it.  The control files import it instead, because a client has control files and no engine.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

from fsmount.interface.groups import Counter, Group
from fsmount.protocol.listings import CounterSnapshot, HolderLine
from fsmount.protocol.thresholds import Mark


class RegionCounter(Counter):
    """The counter of one resource in a group of the region."""

    __slots__ = ()

    @abstractmethod
    def charge_common_for(self, amount: int, thread: int) -> None:
        """As charge_common(); why() names the process of this thread.  0: this process; -1: it is not known."""

    # ---- events

    @property
    @abstractmethod
    def news(self) -> int:
        """A number that changes whenever events() may have changed, while the tree is listened to."""

    @property
    @abstractmethod
    def last_refusal(self) -> int:
        """The number of the newest refusal of why(), 0 without one; each new refusal gets another number."""

    @abstractmethod
    def watch(self, marks: Sequence[Mark], old: Sequence[int] = ()) -> list[int]:
        """Replaces old watches by one for each mark, all or nothing, and returns the ids of the new ones.

        A watch lasts until unwatch(), the removal of the group, or another daemon.  OSError: ENOSPC.
        """

    @abstractmethod
    def unwatch(self, watches: Sequence[int]) -> None:
        """Ends watches.  No error for one that has ended already."""

    @abstractmethod
    def crossings(self, watch: int) -> int:
        """The number of times that the usage crossed the mark of a watch.  GroupRemoved: the watch has ended."""

    # ---- long lists

    @abstractmethod
    def page_of_holders(self, place: int = 0) -> tuple[Sequence[Holder], int | None]:
        """A page of the holders here, and the place of the next page, None after the last.

        Each page holds the region's lock for a short time.
        """

    @abstractmethod
    def take_snapshot(self) -> Snapshot:
        """A snapshot of this resource in all groups of the tree, as the engine has it."""

    @abstractmethod
    def snapshot_pages(self) -> Iterator[list[CounterSnapshot]]:
        """The rows of snapshot() in pages, so that not all of them need to be Python objects at once.

        The region's lock is held for one look at each group and each cell: about 10 ms for 100,000 groups with a
        million open cells.
        """


class RegionGroup(Group):
    """A group of the region."""

    __slots__ = ()

    @property
    @abstractmethod
    def id(self) -> int:
        """The engine's number of the group, which no other group ever gets."""

    @property
    @abstractmethod
    def tree(self) -> Tree:
        """The tree that it belongs to."""

    @abstractmethod
    def __getitem__(self, resource: str, /) -> RegionCounter:
        """The counter of a resource.  KeyError."""


class Tree(Protocol):
    """The tree as a whole."""

    @property
    def id(self) -> int:
        """A random number that no other tree has."""

    @property
    def path(self) -> str:
        """The path by which another process of this user finds the region."""

    @property
    def mountpoint(self) -> str | None:
        """The mount point; the paths of the groups begin there."""

    @property
    def group_count(self) -> int:
        """The number of groups.  Takes no lock."""

    def file_status(self) -> os.stat_result:
        """The status of the region's file."""

    def count_holders(self) -> tuple[int, int]:
        """The numbers of processes and of leases that are holders.  Takes no lock, so some may be missing."""

    def holder(self, id: int, /) -> Holder | None:
        """The holder with this id; None: it has ended."""


class Holder(Protocol):
    """An attached process or an open lease, as it was at one moment."""

    @property
    def pid(self) -> int:
        """Its process."""

    @property
    def is_process(self) -> bool:
        """Whether it is an attached process."""

    def line(self, commands: dict[int, str], /) -> HolderLine:
        """Its line in R.holders; commands: pid -> the names of processes that were read already."""


class Snapshot(Protocol):
    """The counters of one resource in all groups, of one moment."""

    def fitting(self, path_max: int, each: int, room: int, /) -> tuple[int, int]:
        """(depth, count) of the groups that fit into `room` bytes if each takes `each` plus the length of its path.

        All groups above that depth fit, and the first `count` of that depth.  A group whose path is longer than
        `path_max` never fits, nor do the groups below it.
        """

    def pages(self, top: int, length: int, /) -> Iterator[list[CounterSnapshot]]:
        """The rows of a group and of all groups below, parents before children, in pages of this length."""

"""A group and all groups below it with their counters: from the region if it may be used, otherwise from the files.

A snapshot reads every group in one pass, 10,000 of them in a few ms, at one moment.  This process does it in the
region, or the daemon does it when this process reads a hidden file.  Both include groups with hidden directories.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fsmount.attachment import look
from fsmount.errors import UNMOUNTED, TreeGone
from fsmount.files import LeaseGroup
from fsmount.protocol.listings import STAT_KEYS, CounterSnapshot

if TYPE_CHECKING:
    from fsmount.shm import Group


class Groups:
    """The group at a path and all groups below it.

    OSError, for the group at the path only: GroupRemoved, TreeGone, PermissionError, and errors of the region.
    """

    def __init__(self, top: LeaseGroup) -> None:
        self._top = top
        self.path = top.path
        #: Resource -> "bytes" or "count".
        self.units = top.units
        self._device = os.stat(top.path).st_dev
        self._group: Group | None = None  # kept, so that its tree stays open

    def snapshot(self, resources: Sequence[str]) -> dict[str, list[CounterSnapshot]]:
        """Resource -> the counters of the groups, the same groups for each resource, parents before children."""
        group = self._look()
        rows = {
            resource: (self._top[resource] if group is None else group[resource]).snapshot() for resource in resources
        }
        # without groups that were made or removed between two resources
        ids = set.intersection(*({row.id for row in found} for found in rows.values()))
        return {resource: [row for row in found if row.id in ids] for resource, found in rows.items()}

    def _look(self) -> Group | None:
        """The group in its region.  It asks the daemon, so it fails if the tree is no longer mounted."""
        try:
            self._group = look(self.path)
        except OSError as error:
            self.tell_gone(error)
            raise
        return self._group

    def tell_gone(self, error: OSError) -> None:
        """Raises TreeGone if the group is missing because its tree was unmounted."""
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            try:
                mounted = os.stat(self.path).st_dev == self._device
            except FileNotFoundError:
                mounted = True
            if not mounted:
                raise TreeGone(self.path, UNMOUNTED) from None


def paths(rows: Sequence[CounterSnapshot]) -> dict[int, str]:
    """Id -> path below the first group, whose own path is empty."""
    found: dict[int, str] = {rows[0].id: ""}
    for row in rows[1:]:
        above = found[row.parent]
        found[row.id] = f"{above}/{row.name}" if above else row.name
    return found


def full_path(top: str, below: str) -> str:
    """The path of a group, from its path below the group at the top."""
    return os.path.join(top, below) if below else top


def stat(row: CounterSnapshot) -> dict[str, int]:
    """The numbers of R.stat."""
    return dict(zip(STAT_KEYS, row[3:], strict=True))


def as_tree(rows: Sequence[CounterSnapshot]) -> Iterator[tuple[CounterSnapshot, tuple[bool, ...]]]:
    """Each group before the groups below it, siblings by name.

    The tuple says for each ancestor below the first group, and for the group, whether it is the last of its siblings.
    """
    children: dict[int, list[CounterSnapshot]] = {}
    for row in rows[1:]:
        children.setdefault(row.parent, []).append(row)
    ahead: list[tuple[CounterSnapshot, tuple[bool, ...]]] = [(rows[0], ())]
    while ahead:
        row, last = ahead.pop()
        yield row, last
        below = sorted(children.get(row.id, ()), key=lambda child: child.name, reverse=True)
        ahead += ((child, (*last, child is below[0])) for child in below)


def all_as_tree(
    snapshot: Mapping[str, Sequence[CounterSnapshot]],
) -> Iterator[tuple[CounterSnapshot, tuple[bool, ...], dict[str, CounterSnapshot]]]:
    """As as_tree() for several resources: the third value maps each resource to the row of the group."""
    found = {resource: {row.id: row for row in rows} for resource, rows in snapshot.items()}
    for row, last in as_tree(next(iter(snapshot.values()))):
        yield row, last, {resource: rows[row.id] for resource, rows in found.items()}

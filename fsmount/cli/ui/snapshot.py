"""All groups from one down, with their counters: from the region where it may be used, else through the files.

A snapshot finds every group in one pass, 10,000 of them in a few ms, all of one moment: in the region here, or there in
the daemon, which a hidden file has do it.  Either way the groups that the directories hide are in it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence

from fsmount.attachment import look
from fsmount.errors import UNMOUNTED, TreeGone
from fsmount.files import LeaseGroup
from fsmount.protocol.listings import STAT_KEYS, CounterSnapshot
from fsmount.shm import Group


class Groups:
    """The groups from the one at a path down.  Raises for that one alone what its files would raise.

    OSError: GroupRemoved, TreeGone, PermissionError and what the region has to say.
    """

    def __init__(self, top: LeaseGroup) -> None:
        self._top = top
        self.path = top.path
        #: Resource -> "bytes" or "count".
        self.units = top.units
        self._device = os.stat(top.path).st_dev
        self._group: Group | None = None  # its tree stays open between two looks

    def snapshot(self, resources: Sequence[str]) -> dict[str, list[CounterSnapshot]]:
        """By resource the counters of the groups, the same ones for each, parents before their children."""
        group = self._look()
        rows = {
            resource: self._top[resource].snapshot() if group is None else group.tree.snapshot(resource, group)
            for resource in resources
        }
        # but for those that were made or removed in between
        ids = set.intersection(*({row.id for row in found} for found in rows.values()))
        return {resource: [row for row in found if row.id in ids] for resource, found in rows.items()}

    def _look(self) -> Group | None:
        """The group in its region: asks the daemon, so that a mount that is gone is not taken for one."""
        try:
            self._group = look(self.path)
        except OSError as error:
            self.tell_gone(error)
            raise
        return self._group

    def tell_gone(self, error: OSError) -> None:
        """Raises TreeGone if the group is not there any more because the mount is not."""
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            try:
                mounted = os.stat(self.path).st_dev == self._device
            except FileNotFoundError:
                mounted = True
            if not mounted:
                raise TreeGone(self.path, UNMOUNTED) from None


def paths(rows: Sequence[CounterSnapshot]) -> dict[int, str]:
    """Id -> path below the first, whose own is empty."""
    found: dict[int, str] = {rows[0].id: ""}
    for row in rows[1:]:
        above = found[row.parent]
        found[row.id] = f"{above}/{row.name}" if above else row.name
    return found


def full_path(top: str, below: str) -> str:
    """The path of a group whose path below the one at the top is known."""
    return os.path.join(top, below) if below else top


def stat(row: CounterSnapshot) -> dict[str, int]:
    """What R.stat says of it."""
    return dict(zip(STAT_KEYS, row[3:], strict=True))


def as_tree(rows: Sequence[CounterSnapshot]) -> Iterator[tuple[CounterSnapshot, tuple[bool, ...]]]:
    """Each group before those below it, siblings by name.

    With it, of each on the way from below the first down to it, whether it is the last of its siblings.
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
    """The same by the first resource, and with it the group's rows of all."""
    found = {resource: {row.id: row for row in rows} for resource, rows in snapshot.items()}
    for row, last in as_tree(next(iter(snapshot.values()))):
        yield row, last, {resource: rows[row.id] for resource, rows in found.items()}

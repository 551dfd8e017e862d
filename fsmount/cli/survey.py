"""All groups from one down, with their counters: from the region where it may be used, else through the files.

A survey finds every group in one pass, 10,000 of them in a few ms, all of one moment: in the region here, or there in
the daemon, which a hidden file has do it.  Of a node all there is to know is read when its turn comes, and through the
files a group that may not be read hides what is below it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fsmount.attach import look
from fsmount.errors import GroupRemoved, TreeGone
from fsmount.lease import LeaseGroup
from fsmount.tree import STAT_KEYS, Group, Surveyed

# What hides one group and says nothing against the others.
_CLOSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


class Node(NamedTuple):
    """A group as it was when its turn came."""

    #: Another than that of any other group of the mount.
    id: int
    #: The id of the one above; the first's own.
    parent: int
    path: str
    #: Resource -> the keys of R.stat.
    counters: dict[str, dict[str, int]]
    #: Why neither it nor what is below could be read; empty if they could.
    closed: str = ""


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

    def nodes(self, resources: Sequence[str]) -> Iterator[Node]:
        """Each before those below it, siblings by name."""
        return _walk(self._look() or self._top, self.path, resources)

    def survey(self, resources: Sequence[str]) -> dict[str, list[Surveyed]]:
        """By resource the counters of the groups, the same ones for each, parents before their children."""
        group = self._look()
        rows = {
            resource: self._top[resource].survey() if group is None else group.tree.survey(resource, group)
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
                raise TreeGone(self.path, "it was unmounted; `fsmount mount` mounts it again") from None


def paths(rows: Sequence[Surveyed]) -> dict[int, str]:
    """Id -> path below the first, whose own is empty."""
    found: dict[int, str] = {rows[0].id: ""}
    for row in rows[1:]:
        above = found[row.parent]
        found[row.id] = f"{above}/{row.name}" if above else row.name
    return found


def stat(row: Surveyed) -> dict[str, int]:
    """What R.stat says of it."""
    return dict(zip(STAT_KEYS, row[3:], strict=True))


def as_tree(rows: Sequence[Surveyed]) -> Iterator[tuple[Surveyed, tuple[bool, ...]]]:
    """Each group before those below it, siblings by name.

    With it, of each on the way from below the first down to it, whether it is the last of its siblings.
    """
    children: dict[int, list[Surveyed]] = {}
    for row in rows[1:]:
        children.setdefault(row.parent, []).append(row)
    ahead: list[tuple[Surveyed, tuple[bool, ...]]] = [(rows[0], ())]
    while ahead:
        row, last = ahead.pop()
        yield row, last
        below = sorted(children.get(row.id, ()), key=lambda child: child.name, reverse=True)
        ahead += ((child, (*last, child is below[0])) for child in below)


def _walk(top: Group | LeaseGroup, path: str, resources: Sequence[str]) -> Iterator[Node]:
    hidden = 0
    ahead: list[tuple[Group | LeaseGroup, str, int | None]] = [(top, path, None)]
    while ahead:
        group, path, parent = ahead.pop()
        try:
            id = group.id if isinstance(group, Group) else group.identity[1]
            counters = {resource: group[resource].stat() for resource in resources}
            children = [(child, os.path.join(path, os.path.basename(child.path))) for child in group.children()]
        except GroupRemoved:
            if parent is None:
                raise
        except OSError as error:
            if parent is None or error.errno not in _CLOSED:
                raise
            hidden -= 1
            yield Node(hidden, parent, path, {}, error.strerror or os.strerror(error.errno))
        else:
            yield Node(id, id if parent is None else parent, path, counters)
            children.sort(key=lambda child: child[1], reverse=True)
            ahead += ((*child, id) for child in children)

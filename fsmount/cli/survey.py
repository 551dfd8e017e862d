"""All groups from one down, with their counters: from the region where it may be used, else through the files.

In the region every group of the tree is found in one pass (Tree.survey), 10,000 of them in a few ms, and all is of one
moment.  Through the files a group is read when its turn comes, at the cost of a few requests to the daemon, and one
that may not be read hides what is below it.  Who may open the region may read all of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fsmount.attach import look
from fsmount.errors import GroupRemoved, TreeGone
from fsmount.group import Group
from fsmount.lease import LeaseGroup
from fsmount.tree import ROOT, Surveyed

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


class Survey(NamedTuple):
    """The groups, parents before their children, the same ones for each resource."""

    rows: dict[str, list[Surveyed]]
    #: Why a group could not be read, by its id; its row has zeros.
    closed: dict[int, str]

    @property
    def groups(self) -> list[Surveyed]:
        return next(iter(self.rows.values()))


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

    def survey(self, resources: Sequence[str]) -> Survey:
        """Each group's counters of these resources."""
        group = self._look()
        if group is not None:
            return _from_region(group, self.path, resources)
        return _from_files(list(_walk(self._top, self.path, resources)), resources)

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


def _from_files(nodes: Sequence[Node], resources: Sequence[str]) -> Survey:
    rows = {resource: [_row(node, resource) for node in nodes] for resource in resources}
    return Survey(rows, {node.id: node.closed for node in nodes if node.closed})


def _row(node: Node, resource: str) -> Surveyed:
    stat = node.counters.get(resource) or dict.fromkeys(_FIELDS, 0)
    return Surveyed(node.id, node.parent, os.path.basename(node.path), *(stat[field] for field in _FIELDS))


_FIELDS = Surveyed._fields[3:]


def _from_region(top: Group, path: str, resources: Sequence[str]) -> Survey:
    rows = {resource: _within(top.tree.survey(resource), top.id) for resource in resources}
    ids = set.intersection(*({row.id for row in found} for found in rows.values()))
    if top.id not in ids:
        raise GroupRemoved(path)
    if len(rows) > 1:  # what was made or removed in between
        rows = {resource: [row for row in found if row.id in ids] for resource, found in rows.items()}
    return Survey(rows, {})


def _within(rows: list[Surveyed], top: int) -> list[Surveyed]:
    """The groups from one down."""
    if top == ROOT:
        return rows
    inside: set[int] = set()
    for row in rows:
        if row.id == top or row.parent in inside:
            inside.add(row.id)
    return [row for row in rows if row.id in inside]

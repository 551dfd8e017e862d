"""The attributes of removed groups.

A process can keep a removed directory, or a file in it, open, and stat() must still answer.  So the attributes of a
removed group are remembered until the kernel forgets its directory.  They count against the share of the user that
removed the group; without room in the share they are not remembered.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from fsmount.filesystem import inodes
from fsmount.filesystem.lookup import Lookup
from fsmount.filesystem.shares import Shares
from fsmount.shm import Attributes, Group

_ONE = {"removed_groups": 1}


class AttributesOfGroup(NamedTuple):
    """The attributes of a directory, and of its files that have another owner: slot -> attributes."""

    directory: Attributes
    files: dict[int, Attributes]


class RemovedGroups:
    """The removed groups that a process may still have open.  For the event loop's thread."""

    def __init__(self, lookup: Lookup, shares: Shares) -> None:
        self._slots = lookup.owned_slots()
        self._shares = shares
        #: group -> its attributes, and the user that removed it
        self._groups: dict[int, tuple[AttributesOfGroup, int]] = {}

    def __contains__(self, group: int) -> bool:
        return group in self._groups

    def attributes_of(self, group: Group) -> AttributesOfGroup:
        """The attributes of a group that is about to be removed, for remember()."""
        directory = group.attributes(0)
        files = {number: group.attributes(slot) for number, slot in self._slots.items()}
        owner = directory.uid, directory.gid
        return AttributesOfGroup(directory, {number: of for number, of in files.items() if (of.uid, of.gid) != owner})

    def remember(self, group: int, attributes: AttributesOfGroup, user: int) -> None:
        """Remembers the attributes of a removed group, if the user's share has room."""
        with suppress(OSError):
            self._shares.take(user, _ONE, not self._shares.exempts(user))
            self._groups[group] = attributes, user

    def find(self, inode: int) -> Attributes | None:
        """The attributes of an inode of a removed group."""
        removed = self._groups.get(inodes.group_of(inode))
        if removed is None:
            return None
        attributes, _ = removed
        return attributes.files.get(inodes.slot_of(inode), attributes.directory)

    def forget(self, forgotten: Iterable[int]) -> None:
        """Forgets the groups of inodes that the kernel has forgotten."""
        if not self._groups:
            return
        for inode in forgotten:
            if inodes.slot_of(inode) == inodes.DIRECTORY:
                removed = self._groups.pop(inodes.group_of(inode), None)
                if removed is not None:
                    self._shares.give_back(removed[1], _ONE)

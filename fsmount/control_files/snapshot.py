"""The hidden files `.R.groups`: what fsmount tree and top show where they may not use the region.

Every directory has one for each resource, and no directory lists it.  A line is a group, parents before their children,
and begins with the group that was asked:

    id parent VALUES name

VALUES are those of R.stat, in its order.  All is of one moment, see Tree.snapshot().  A process that may list the
directory may read the file.  It sees all groups below, as in `R.why` and `metrics`.  It takes about 3 us a group.
"""

from collections.abc import Hashable, Iterator
from typing import ClassVar

from fsmount.control_files.long_file import LongFile
from fsmount.protocol.listings import groups_text
from fsmount.shm import Counter, Group

#: About the longest that a line is: a name of 255 bytes, and numbers of usual lengths.
_LINE = 512


class SnapshotFile(LongFile):
    """An open `.R.groups` of a counter."""

    timed: ClassVar[bool] = False

    __slots__ = ("_resource",)

    @classmethod
    def length(cls, group: Group) -> int:
        return _LINE * group.tree.group_count

    def __init__(self, counter: Counter, inode: int, flags: int) -> None:
        super().__init__(counter.group, inode, flags)
        self._resource = counter.resource

    def key(self) -> Hashable:
        return SnapshotFile, self.group.id, self._resource

    def parts(self) -> Iterator[bytes]:
        return map(groups_text, self.group.tree.snapshot_pages(self._resource, self.group))

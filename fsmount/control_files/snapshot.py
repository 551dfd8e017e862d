"""The hidden files .R.groups: the groups that fsmount tree and top show if they may not use the region.

A line is a group, parents before their children, and the first line is the directory's own group:

    id parent VALUES name

VALUES are those of R.stat, in its order, all from one moment (Tree.snapshot()).  It takes about 3 us a group.  A
process that may list the directory may read the file, and sees all groups below, as in `R.why` and `metrics`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from fsmount.control_files.long_file import LongFile
from fsmount.control_files.text import Text
from fsmount.protocol.listings import groups_text

if TYPE_CHECKING:
    from fsmount.interface.region import RegionGroup

#: About the longest line: a name of 255 bytes, and numbers of usual length.
_LINE = 512


class SnapshotFile(LongFile):
    number = 19
    name = "groups"
    mode = 0o444
    hidden = True
    timed = False
    manual = """\
In every group, but not listed: all groups from there down at one moment, one a line: the id, the id of the parent, the
values of R.stat in its order, and the name. A user who may list the directory may read it."""

    __slots__ = ()

    @classmethod
    def mode_in(cls, directory_mode: int) -> int:
        return directory_mode & cls.mode

    @classmethod
    def length(cls, group: RegionGroup) -> int:
        return _LINE * group.tree.group_count

    def key(self) -> Hashable:
        return SnapshotFile, self.group.id, self.opening.resource

    def make(self) -> Text:
        return Text(map(groups_text, self.group[self.opening.resource].snapshot_pages()))

"""The hidden files `.R.groups`: what fsmount tree and top show where they may not use the region.

Every directory has one for each resource, and no directory lists it.  A line is a group, parents before their children,
and begins with the group that was asked:

    id parent VALUES name

VALUES are those of R.stat, in its order.  All is of one moment, see Tree.survey().  Who may list the directory may read
it, and sees the groups below whoever may list those: as in `R.why` and `metrics`.  It is made in a worker thread, about
3 us a group.
"""

from typing import ClassVar

from ..listings import groups_text
from ..tree import Counter
from .guard import leave_loop
from .open_file import OpenFile


class SurveyFile(OpenFile):
    """An open `.R.groups` of a counter."""

    timed: ClassVar[bool] = False

    __slots__ = ("_resource",)

    def __init__(self, counter: Counter, inode: int, flags: int) -> None:
        super().__init__(counter.group, inode, flags)
        self._resource = counter.resource

    def text(self) -> bytes:
        leave_loop()
        return groups_text(self.group.tree.survey(self._resource, self.group))

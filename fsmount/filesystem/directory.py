"""An open directory: its listing, and where the next part of it begins.

A child that exists throughout a listing appears in it exactly once, whatever other children come and go.  A place in
the listing keeps its meaning until the directory is closed or rewound.  So an open directory keeps the ids of the
children from the start of the listing, like a text that is read in parts (texts/kept_texts.py).  A child's name is
looked up when the listing reaches it.
"""

import errno
from array import array
from collections.abc import Hashable, Iterator, Sequence

from pyfuse3 import FUSEError

from fsmount.control_files.text import Text
from fsmount.filesystem import guard, inodes
from fsmount.filesystem.texts.long_texts import LongTexts
from fsmount.shm import Group

#: The files that every group lists before its children: names and slots.
Listed = Sequence[tuple[bytes, int]]

#: The event loop itself looks up at most this many children.
_FEW = 512

#: At most this many ids are kept uncompressed.
_VERY_FEW = 64

#: Children that are looked up at a time.
_AT_ONCE = 64

_ID = array("Q").itemsize
_PART = 1024 * _ID


class Directory:
    """An open directory; `user` has opened it."""

    __slots__ = ("_children", "_listed", "_parent", "group", "user")

    def __init__(self, group: Group, user: int, listed: Listed) -> None:
        self.group = group
        self.user = user
        self._listed = listed
        self._parent = group.id
        self._children: bytes | Text | None = b""

    def key(self) -> Hashable:
        return Directory, self.group.id

    async def start(self, texts: LongTexts) -> None:
        """Starts a listing.  If there are many children, a worker thread finds them.  FUSEError."""
        try:
            if self.group.child_count > _FEW:
                raise guard.MustWait
            children = self._look()
        except Exception as error:
            children = await guard.recover(error, errno.ENODEV, self._look)
        self._children = texts.keep(self, self.key(), children) if isinstance(children, Text) else children

    def _look(self) -> bytes | Text:
        """The ids of the current children, as bytes.  GroupRemoved."""
        self._parent = (self.group.parent or self.group).id
        ids = self.group.child_ids()
        if len(ids) <= _VERY_FEW * _ID:
            return ids
        return Text(ids[at : at + _PART] for at in range(0, len(ids), _PART))

    def lose_text(self) -> None:
        """The next part of the listing fails with ESTALE."""
        self._children = None

    def entries(self, start: int) -> Iterator[tuple[int, int, bytes | None]]:
        """Place, inode and name of each entry from a place on.  A group has no name here: it must be looked up."""
        fixed = [(b".", self.group.id, inodes.DIRECTORY), (b"..", self._parent, inodes.DIRECTORY)]
        fixed += [(name, self.group.id, slot) for name, slot in self._listed]
        for place in range(start, len(fixed)):
            name, group, slot = fixed[place]
            yield place, inodes.number(group, slot), name
        place = max(start, len(fixed))
        while ids := self._ids(place - len(fixed)):
            for id in ids:
                yield place, inodes.number(id, inodes.DIRECTORY), None
                place += 1

    def _ids(self, first: int) -> "array[int]":
        children = self._children
        if children is None:
            raise FUSEError(errno.ESTALE)
        return array("Q", children[first * _ID : (first + _AT_ONCE) * _ID])

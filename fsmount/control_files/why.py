"""The last refusals of a counter's subtree."""

import os
from collections.abc import Hashable, Iterator, Sequence
from typing import ClassVar

from fsmount.control_files.listening import ListeningFile
from fsmount.control_files.long_file import LongFile
from fsmount.protocol import file_table
from fsmount.protocol.file_table import Kind
from fsmount.protocol.refusals import Refusal
from fsmount.shm import Group

#: So many refusals are shown by the event loop itself: each has up to five paths.
_FEW = 8

#: The length of all refusals that a tree remembers, where paths are no longer than usual.
_LENGTH = 256 * 1024


class WhyFile(LongFile, ListeningFile):
    """A line for each, the newest first; poll() tells of a newer one."""

    kind: ClassVar[Kind] = file_table.WHY

    __slots__ = ()

    @classmethod
    def length(cls, group: Group) -> int:
        return _LENGTH

    def counts(self) -> Sequence[int]:
        return (self.counter.last_refusal,)

    def key(self) -> Hashable:
        return WhyFile, self.counter.group.id, self.counter.index

    def short_text(self) -> bytes | None:
        self.seen()  # before it is looked: what is refused meanwhile is told of once more
        refusals = self.counter.why(_FEW + 1)
        if len(refusals) > _FEW:
            return None
        return b"".join(map(_line, refusals))

    def parts(self) -> Iterator[bytes]:
        return map(_line, self.counter.why())


def _line(refusal: Refusal) -> bytes:
    return os.fsencode(f"{refusal}\n")

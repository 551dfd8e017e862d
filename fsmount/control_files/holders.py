"""R.holders: the holders of a counter."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from fsmount.control_files.control_file import CounterFile, Figure
from fsmount.control_files.long_file import LongFile
from fsmount.control_files.text import Text
from fsmount.protocol.listings import HolderLine, holders_text

if TYPE_CHECKING:
    from fsmount.interface.region import Holder, RegionGroup

#: The most holders that the event loop lists itself: it looks up the name of the process of each.
_FEW = 16

#: The length of a line with numbers of usual length and a command of 15 bytes, each of which may be escaped.
_LINE = 128


class HoldersFile(LongFile, CounterFile):
    """A line for each live holder, and for the group itself if it holds anything.

    Many holders are listed in pages, so that no page holds the region's lock for long.  Holders that come and go
    meanwhile may be missing.
    """

    number = 10
    name = "holders"
    mode = 0o444
    manual = """\
The holders, one "pid start_time held stock command" a line. The command of a lease is lease:COMMAND, of the process
that opened it. If the group itself holds an amount, its line is 0 0 HELD 0 common."""
    figures = (Figure("holders", "Processes and leases that hold something in this counter.", quantity=False),)

    __slots__ = ()

    @classmethod
    def length(cls, group: RegionGroup) -> int:
        return _LINE * (sum(group.tree.count_holders()) + 1)

    def key(self) -> Hashable:
        return HoldersFile, self.group.id, self.counter.resource

    def short_text(self) -> bytes | None:
        holders, place = self.counter.page_of_holders()
        if place is not None or len(holders) > _FEW:
            return None
        return _lines(holders, {}) + self._common()

    def make(self) -> Text:
        return Text(self._parts())

    def _parts(self) -> Iterator[bytes]:
        commands: dict[int, str] = {}
        place: int | None = 0
        while place is not None:
            holders, place = self.counter.page_of_holders(place)
            yield _lines(holders, commands)
        yield self._common()

    def _common(self) -> bytes:
        common = self.counter.stat()["common"]
        return holders_text([HolderLine.of_the_group(common)]) if common else b""


def _lines(holders: Sequence[Holder], commands: dict[int, str]) -> bytes:
    """commands: the names of processes that are known already."""
    return holders_text(holder.line(commands) for holder in holders)

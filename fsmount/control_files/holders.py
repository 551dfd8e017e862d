"""The holders of a counter."""

from collections.abc import Hashable, Iterator, Sequence
from typing import ClassVar

from fsmount.control_files.control_file import CounterFile
from fsmount.control_files.long_file import LongFile
from fsmount.protocol import file_table
from fsmount.protocol.file_table import Kind
from fsmount.protocol.listings import HolderLine, holders_text
from fsmount.shm import LEASE, Group, Holder

#: So many holders are shown by the event loop itself: it looks up the name of each one's process.
_FEW = 16

#: The length of a line with numbers of usual lengths, and a command of 15 bytes of which each may be escaped.
_LINE = 128


class HoldersFile(LongFile, CounterFile):
    """`pid start_time held stock command` of each live holder, and of the common pot where it holds something.

    Many holders are listed in pages, so that no page holds the region's lock for long: holders that come and go
    meanwhile may be missing.
    """

    kind: ClassVar[Kind] = file_table.HOLDERS

    __slots__ = ()

    @classmethod
    def length(cls, group: Group) -> int:
        return _LINE * (sum(group.tree.count_holders()) + 1)

    def key(self) -> Hashable:
        return HoldersFile, self.counter.group.id, self.counter.index

    def short_text(self) -> bytes | None:
        holders, place = self.counter.page_of_holders()
        if place is not None or len(holders) > _FEW:
            return None
        return self._lines(holders, {}) + self._common()

    def parts(self) -> Iterator[bytes]:
        commands: dict[int, str] = {}
        place: int | None = 0
        while place is not None:
            holders, place = self.counter.page_of_holders(place)
            yield self._lines(holders, commands)
        yield self._common()

    def _lines(self, holders: Sequence[Holder], commands: dict[int, str]) -> bytes:
        """commands: the names of processes that were looked up already."""
        return holders_text(
            HolderLine(holder.pid, holder.start_time, holder.held, holder.stock, _command(holder, commands))
            for holder in holders
        )

    def _common(self) -> bytes:
        common = self.counter.stat()["common"]
        return holders_text([HolderLine(0, 0, common, 0, "common")]) if common else b""


def _command(holder: Holder, commands: dict[int, str]) -> str:
    """The name of its process, `?` if that is gone; a lease's is marked, as another process may have the file now."""
    command = commands.get(holder.pid)
    if command is None:
        command = commands[holder.pid] = holder.command or "?"
    return f"lease:{command}" if holder.kind == LEASE else command

"""R.threshold: marks of a usage; each open file has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsmount.control_files.control_file import MEDIUM
from fsmount.control_files.listening import ListeningFile
from fsmount.protocol.thresholds import Mark, parse_marks

if TYPE_CHECKING:
    from fsmount.control_files.mount import Opening
    from fsmount.interface.region import RegionGroup


class ThresholdFile(ListeningFile):
    number = 12
    name = "threshold"
    mode = 0o644
    timed = False
    private = True
    manual = """\
The marks of this open file alone, a line "above N", "below N", "above P%" or "below P%" each; see below. A read shows
how often the usage crossed each mark since the write, and poll(2) reports POLLPRI when it crosses one."""
    sections = (
        (
            "Marks of R.threshold",
            """
A mark is an amount, or a whole percentage of the current limit, 0% to 100%. The usage crosses it by rising above it (or
falling below it; equal is neither), or because the limit is set. The usage at the time of the write is no crossing. One
write replaces the whole list. White space alone is an empty list, and anything else is EINVAL and leaves the list
unchanged. A list ends with its open file, or when another daemon takes the mount over. A read shows a line for each
mark with the number of crossings, as in "above 80% 3".
""",
        ),
    )

    __slots__ = ("_account", "_marks", "_watches")

    def __init__(self, opening: Opening) -> None:
        self._account = opening.mount.account(opening)
        self._marks: list[Mark] = []
        self._watches: list[int] = []
        super().__init__(opening)

    def counts(self) -> Sequence[int]:
        return [self.counter.crossings(watch) for watch in self._watches]

    @classmethod
    def size(cls, group: RegionGroup) -> int:
        return MEDIUM

    def text(self) -> bytes:
        self.check_group()
        return "".join(f"{mark} {count}\n" for mark, count in zip(self._marks, self.seen(), strict=True)).encode()

    def command(self, text: bytes) -> None:
        marks = parse_marks(text)
        more = len(marks) - len(self._watches)
        self._account.take(marks=max(more, 0))
        try:
            self._watches = self.counter.watch(marks, self._watches)
        except BaseException:
            self._account.give_back(marks=max(more, 0))
            raise
        self._account.give_back(marks=max(-more, 0))
        self._marks, self._seen = marks, [0] * len(marks)

    def abandon(self) -> None:
        if self._watches:
            self.counter.unwatch(self._watches)
            self._account.give_back(marks=len(self._watches))

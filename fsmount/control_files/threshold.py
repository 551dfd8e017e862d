"""Thresholds of a counter: each open file has marks of its own."""

import errno
from collections.abc import Sequence
from typing import ClassVar

from pyfuse3 import FUSEError, RequestContext

from fsmount.control_files.listening import ListeningFile
from fsmount.filesystem.guard import finish
from fsmount.filesystem.kernel_cache.file_sizes import MEDIUM
from fsmount.filesystem.shares import Shares
from fsmount.protocol import file_table
from fsmount.protocol.file_table import Kind
from fsmount.protocol.thresholds import Mark, parse_marks
from fsmount.shm import Counter, Group


class ThresholdFile(ListeningFile):
    """The marks that were last written, a line for each, and how often each was crossed since."""

    kind: ClassVar[Kind] = file_table.THRESHOLD
    timed: ClassVar[bool] = False
    private: ClassVar[bool] = True

    __slots__ = ("_account", "_marks", "_watches")

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext, shares: Shares) -> None:
        self._account = shares.account(counter.group, ctx.uid)
        self._marks: list[Mark] = []
        self._watches: list[int] = []
        super().__init__(counter, inode, flags, ctx)

    def counts(self) -> Sequence[int]:
        return [self.counter.crossings(watch) for watch in self._watches]

    @classmethod
    def size(cls, group: Group) -> int:
        return MEDIUM

    def text(self) -> bytes:
        if not self.group.exists:
            raise FUSEError(errno.ENODEV)
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

    def release(self) -> None:
        if self._watches:
            finish(self.abandon)

    def abandon(self) -> None:
        self.counter.unwatch(self._watches)
        self._account.give_back(marks=len(self._watches))

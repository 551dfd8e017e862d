"""Files that tell poll() of what was counted, however it came about."""

import select
from abc import ABC, abstractmethod
from collections.abc import Sequence

from pyfuse3 import RequestContext

from fsmount.control_files.control_file import CounterFile
from fsmount.shm import Counter


class ListeningFile(CounterFile, ABC):
    """An open file that shows counts(): poll() reports POLLPRI when they are others than those that were seen().

    Those of its opening count as seen.
    """

    __slots__ = ("_news", "_seen")

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(counter, inode, flags, ctx)
        self._news = -1
        self.seen()

    @property
    def listens(self) -> bool:
        return True

    @abstractmethod
    def counts(self) -> Sequence[int]:
        """What is counted for this file, as of now."""

    def seen(self) -> Sequence[int]:
        """The counts of now, that poll() does not tell of any more."""
        self._seen = self.counts()
        return self._seen

    def poll(self) -> int:
        return super().poll() | (select.POLLPRI if self._has_changed() else 0)

    def has_news(self) -> bool:
        return self.counter.news != self._news and self._has_changed()

    def _has_changed(self) -> bool:
        if not self.group.exists:
            return False
        self._news = self.counter.news  # before the counts: what is counted after them changes it again
        return self.counts() != self._seen

"""Files whose poll() reports every new count, in whichever process it was counted."""

from __future__ import annotations

import select
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsmount.control_files.control_file import CounterFile

if TYPE_CHECKING:
    from fsmount.control_files.mount import Opening


class ListeningFile(CounterFile, ABC):
    """An open file with counts(): poll() reports POLLPRI while they differ from those that were seen() last.

    The counts at the time of the open() count as seen.
    """

    __slots__ = ("_news", "_seen")

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._news = -1
        self.seen()

    @property
    def listens(self) -> bool:
        return True

    @abstractmethod
    def counts(self) -> Sequence[int]:
        """The current counts of this file."""

    def seen(self) -> Sequence[int]:
        """The current counts; poll() reports later ones only."""
        self._seen = self.counts()
        return self._seen

    def poll(self) -> int:
        return super().poll() | (select.POLLPRI if self._has_changed() else 0)

    def has_news(self) -> bool:
        return self.counter.news != self._news and self._has_changed()

    def _has_changed(self) -> bool:
        if not self.group.exists:
            return False
        self._news = self.counter.news  # before the counts: any later event changes it again
        return self.counts() != self._seen

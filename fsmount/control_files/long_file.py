"""Files whose text may be long: a worker thread makes it, readers share it, and it is kept compressed."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING

from fsmount.control_files.control_file import MEDIUM, ControlFile
from fsmount.control_files.text import Text
from fsmount.errors import LockTimeout

if TYPE_CHECKING:
    from fsmount.interface.region import RegionGroup


class MakeText(Exception):
    """A read begins a long text: the mount makes it elsewhere, and gives it to begin()."""


class _LostText(Text):
    """Replaces a text that made room for others."""

    __slots__ = ()

    def __getitem__(self, part: slice) -> bytes:
        raise OSError(errno.ESTALE, "the text made room for others: read from the start")


_LOST = _LostText()


class LongFile(ControlFile, ABC):
    """An open file whose text may be long."""

    grows = True

    __slots__ = ()

    @classmethod
    def size(cls, group: RegionGroup) -> int:
        """A power of two, so that it can be the block size too."""
        length = cls.length(group)
        return max(MEDIUM, 1 << (length + length // 4).bit_length())

    @classmethod
    def length(cls, group: RegionGroup) -> int:
        """About the longest that the text can be now."""
        return 0

    @abstractmethod
    def key(self) -> Hashable:
        """Equal for open files that show the same text."""

    def text(self) -> bytes:
        try:
            text = self.short_text()
        except LockTimeout:  # a worker thread may wait for the lock
            text = None
        if text is None:
            raise MakeText
        return text

    def short_text(self) -> bytes | None:
        """The text if it is short: the event loop itself makes it then."""
        return None

    @abstractmethod
    def make(self) -> Text:
        """The text, from parts of a fixed number of lines; a worker thread makes it.

        Each part occupies the interpreter briefly.
        """

    def begin(self, text: Text) -> None:
        """The following reads show this text."""
        self._text = text

    def lose_text(self) -> None:
        """Reads that go on in the text fail."""
        self._text = _LOST

"""Files whose text may be long: it is made outside the event loop, shared by readers, and kept in little memory."""

import errno
from abc import abstractmethod
from collections.abc import Hashable, Iterable
from typing import ClassVar

from pyfuse3 import FUSEError

from fsmount.control_files.control_file import OpenFile
from fsmount.errors import LockTimeout
from fsmount.filesystem.kernel_cache.file_sizes import size_for
from fsmount.filesystem.texts.kept_texts import Text
from fsmount.shm import Group


class MakeText(Exception):
    """Raised by a read that begins a long text: the text is made elsewhere, and begin() has the file go on."""


class _LostText(Text):
    """In the place of a text that was given up for others."""

    __slots__ = ()

    def __getitem__(self, part: slice) -> bytes:
        raise FUSEError(errno.ESTALE)


_LOST = _LostText()


class LongFile(OpenFile):
    """An open file whose text may be long."""

    grows: ClassVar[bool] = True

    __slots__ = ()

    @classmethod
    def size(cls, group: Group) -> int:
        return size_for(cls.length(group))

    @classmethod
    def length(cls, group: Group) -> int:
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
        """The text if it is short, so that the event loop itself may make it."""
        return None

    def make(self) -> Text:
        """The text, made in a worker thread."""
        return Text(self.parts())

    def parts(self) -> Iterable[bytes]:
        """The text in parts of a fixed number of lines, for each of which the interpreter is occupied briefly."""
        raise NotImplementedError

    def begin(self, text: Text) -> None:
        """The reads that follow show this text."""
        self._text = text

    def lose_text(self) -> None:
        """Reads that go on in the text fail."""
        self._text = _LOST

"""What every open file does: one write is one command, and a read goes on in what it began to read."""

import errno
import os
import select
from typing import ClassVar

from pyfuse3 import FUSEError, PollHandle, RequestContext

from fsmount.filesystem.kernel_cache.file_sizes import SHORT
from fsmount.filesystem.texts.kept_texts import Text
from fsmount.protocol.file_table import Kind
from fsmount.quantities import TEXT_MAX
from fsmount.shm import Counter, Group

_READABLE = select.POLLIN | select.POLLRDNORM
WRITABLE = select.POLLOUT | select.POLLWRNORM
_READY = {os.O_RDONLY: _READABLE, os.O_WRONLY: WRITABLE, os.O_RDWR: _READABLE | WRITABLE}


class OpenFile:
    """One open file of a group.  A kind of file says what text() it has and which command() it obeys.

    text() and command() raise OSError, and change nothing then.  The kernel lets one write at a time into a file.
    """

    __slots__ = ("group", "inode", "since", "task", "truncates", "user", "waiter", "_flags", "_start", "_text")

    #: Whether the time of its last write is kept.
    timed: ClassVar[bool] = True
    #: Whether what it shows is this open file's alone.  The first read after a write begins it then, wherever the write
    #: has left the file's offset: so a shell can write and read through one descriptor.
    private: ClassVar[bool] = False
    #: Whether its size follows from what there is, and so may change at any time.
    grows: ClassVar[bool] = False

    def __init__(self, group: Group, inode: int, flags: int) -> None:
        self.group = group
        self.inode = inode
        #: The user who opened it; the file system says so right after it is made.
        self.user = 0
        #: The thread that did, when, and whether with O_TRUNC.
        self.task = 0
        self.since = 0.0
        self.truncates = False
        self.waiter: PollHandle | None = None
        self._flags = flags
        self._start: int | None = 0
        self._text: bytes | Text | None = None

    @classmethod
    def size(cls, group: Group) -> int:
        """What stat() shows as its size: whole pages, and more than its text has.  See file_sizes.py."""
        return SHORT

    def text(self) -> bytes:
        """What a read from the start shows."""
        raise OSError(errno.EINVAL, "this file cannot be read")

    def command(self, text: bytes) -> None:
        """Does what a write says: 1 to TEXT_MAX bytes."""
        raise OSError(errno.EINVAL, "this file cannot be written")

    def release(self) -> None:
        """The last descriptor is closed."""

    def abandon(self) -> None:
        """The mount has ended under it."""

    def read(self, offset: int, size: int) -> bytes:
        """A part of the text as it was when it was last read from its start."""
        if self._start is None or offset < self._start:
            self._start = offset
        offset -= self._start
        text = self._text
        if offset == 0 or text is None:
            try:
                text = self._text = self.text()
            except OSError as error:
                raise self._first(error) from None
        elif not self.group.exists:
            raise FUSEError(errno.ENODEV)
        return text[offset : offset + size]

    @property
    def readable(self) -> bool:
        """Whether it was opened so that it can be read."""
        return self._flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def length_read(self) -> int:
        """The length of the text that is being read."""
        text = self._text
        return 0 if text is None else text.length if isinstance(text, Text) else len(text)

    def write(self, text: bytes) -> int:
        """Obeys one command, wherever in the file it was written."""
        if not text:
            return 0
        if len(text) > TEXT_MAX:
            raise FUSEError(errno.E2BIG)
        try:
            self.command(text)
        except OSError as error:
            raise self._first(error) from None
        if self.private:
            self._start = None
        return len(text)

    def poll(self) -> int:
        """What poll() reports now."""
        ready = _READY.get(self._flags & os.O_ACCMODE, 0)
        return ready if self.group.exists else ready | select.POLLERR

    @property
    def listens(self) -> bool:
        """Whether what poll() reports may change with an event of the tree."""
        return False

    @property
    def in_line(self) -> bool:
        """Whether it goes on waiting when poll() has returned."""
        return False

    def has_news(self) -> bool:
        """After an event of the tree: whether poll() reports something else than it did.  OSError counts as such."""
        return False

    def _first(self, error: OSError) -> Exception:
        """The error that counts: a group that is gone comes before whatever is wrong with the text."""
        if error.errno in (errno.EINVAL, errno.EPERM, errno.ERANGE) and not self.group.exists:
            return FUSEError(errno.ENODEV)
        return error


class CounterFile(OpenFile):
    """One open file of one counter."""

    kind: ClassVar[Kind]

    __slots__ = ("counter",)

    @classmethod
    def size(cls, group: Group) -> int:
        return SHORT if cls.kind.mode & 0o444 else 0

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(counter.group, inode, flags)
        self.counter = counter

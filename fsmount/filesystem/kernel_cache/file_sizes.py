"""The sizes of files, and how sendfile() and splice() copy the whole current text.

A plain read() asks the daemon each time.  sendfile() and splice() copy from the kernel's page cache, and stop at the
size of the file.  So a file has a size above the length of its text, in whole pages, as files of sysfs have.  Reads
that fill the page cache carry a mark, see _page_reads.c.  The daemon allows for five habits of the kernel:

- A page that the text fills only in part ends the file.  The kernel takes that size for all later readers, however long
  the text is then.  So one open file at a time may be copied.  If several were opened within a second and are still
  open, each gets EINVAL, as from files without sendfile(), and programs fall back to read().  Meanwhile stat() shows
  the kernel's size, since any other answer would change the copy under way.
- When that open file is closed, the daemon invalidates the attributes.  The next open() asks for them, gets the size
  that stat() shows, and drops the pages.  An open() that follows too closely does not ask.  The daemon makes the kernel
  extend the file before it answers such an open().
- The kernel does not shorten a file whose attributes have changed since the read began (attribute_news.py).  It would
  copy the NULs behind the text, so such a read gets EINVAL too.
- Pages stay until they are dropped.  The daemon drops those of short texts before it answers a write, and all pages
  after a few milliseconds.  So sendfile() from the start of a file that stays open shows every earlier write through
  the mount, and every charge in the region that is a few milliseconds old.
- The kernel asks again after EINTR, and does not pass it on.  If the text has grown, the daemon makes the kernel extend
  the file, and answers EINTR.

Dropping a page waits until it is read, so a worker thread does that.  The extension stores a byte far behind the text,
where no page is being read.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from time import monotonic

import trio
from pyfuse3 import FUSEError

from fsmount.control_files.control_file import MEDIUM
from fsmount.filesystem.kernel_cache.attribute_news import COPY_ENDED, AttributeNews
from fsmount.filesystem.kernel_cache.attributes import invalidate_attributes
from fsmount.filesystem.kernel_cache.pages import EXTENDED, drop_pages, extend_file

PAGE = 4096

#: Special values for the kernel's size: the size that stat() shows, and an unknown size, which may be too small.
_SHOWN, _UNKNOWN = -1, -2

#: The largest number of files without a reader whose sizes are remembered, until the kernel asks for attributes.
_REMEMBERED = 1024

#: The longest time until the kernel notes attributes that it was sent, in seconds.
SETTLED = 0.02

#: The time for which later reads get the same pages, in seconds.
_FRESH = 0.003


class _Reader:
    """An open file that can be read, and the state of the copy from it.

    active: the time at which it was opened or last read for the page cache.
    refused: the time at which it first got EINVAL.
    asked_again: the time of the answer to a read that the kernel repeats; infinite until that answer.
    """

    __slots__ = ("active", "asked_again", "refused")

    def __init__(self) -> None:
        self.active = monotonic()
        self.refused = -math.inf
        self.asked_again = -math.inf

    def is_refused(self) -> bool:
        """Whether the copy gets EINVAL: the kernel asks twice, and would note the second answer too late."""
        return monotonic() - self.refused < COPY_ENDED

    def refuse(self) -> FUSEError:
        if self.refused == -math.inf:
            self.refused = monotonic()
        return FUSEError(errno.EINVAL)

    def ask_again(self) -> FUSEError:
        """The error that makes the kernel repeat the read."""
        self.asked_again = math.inf
        return FUSEError(errno.EINTR)

    def is_noting_end(self) -> bool:
        """Whether the reader's own system call may not have noted the end of the file yet."""
        return monotonic() - self.asked_again < SETTLED


class FileSizes:
    """The kernel's sizes of files that were read for its page cache.  For the event loop's thread."""

    def __init__(self) -> None:
        #: inode -> the kernel's size, where it differs from the size that stat() shows
        self._sizes: dict[int, int] = {}
        #: inode -> when it was last read for the page cache
        self._copied: dict[int, float] = {}
        #: inode -> the open file that may shorten it
        self._copying: dict[int, int] = {}
        #: inodes with pages in the cache: of short texts, and of others
        self._cached: set[int] = set()
        self._cached_long: set[int] = set()
        self._read = trio.Event()
        #: inode -> its open files that can be read
        self._readers: dict[int, dict[int, _Reader]] = {}
        #: inodes whose attributes or pages a worker thread changes now
        self._changing: set[int] = set()
        self.news = AttributeNews()

    # ---- attributes that the kernel gets

    def __contains__(self, inode: int) -> bool:
        return inode in self._sizes

    def size_shown(self, inode: int, size: int, thread: int) -> int:
        """The size that stat() shows a thread for a file in this table: `size`, unless a copy is under way."""
        if inode in self._readers and self._is_recent(inode) and 0 <= self._sizes[inode] <= size:
            return self._sizes[inode]
        if inode in self._copying:
            self._sizes[inode] = _SHOWN
            return size
        self._copied.pop(inode, None)
        if inode in self._changing or self.news.may_interfere(inode, thread, 0, size):
            self._sizes[inode] = _UNKNOWN  # the kernel may ignore the answer
        else:
            del self._sizes[inode]
        return size

    def is_noting_end(self, inode: int) -> bool:
        """Whether a reader may not have noted the end of the file yet: other attributes would interfere."""
        copying = self._copying.get(inode)
        return copying is not None and self._readers[inode][copying].is_noting_end()

    # ---- open files

    def truncated(self, inode: int, thread: int) -> None:
        """Notes that the thread opens the file with O_TRUNC."""
        self.news.sent(inode, thread)
        if inode not in self._copying:
            self._remember(inode, _UNKNOWN)

    async def opened(self, inode: int, handle: int, thread: int) -> None:
        """Notes an open() of the thread, before its answer; the open() may not have asked for the size."""
        self.news.goes_on(inode, thread)
        self._readers.setdefault(inode, {})[handle] = _Reader()
        if inode in self._sizes and self._is_alone(inode, handle):
            await self._extend(inode, 0)

    def closed(self, inode: int, handle: int, thread: int, could_read: bool) -> None:
        """Notes that the open file is released: the thread that opened it has gone on."""
        if could_read:
            readers = self._readers[inode]
            del readers[handle]
            if not readers:
                del self._readers[inode]
        self.news.goes_on(inode, thread)
        if self._copying.get(inode) == handle:
            del self._copying[inode]
            self._cached.discard(inode)
            self._cached_long.discard(inode)
            self.invalidate(inode)

    def invalidate(self, inode: int) -> None:
        """Makes the next open() ask for the attributes."""
        invalidate_attributes(inode)
        self.news.changed(inode, 0)

    def _is_recent(self, inode: int) -> bool:
        """Whether a process may have read a page, but not yet the file's size."""
        return monotonic() - self._copied.get(inode, 0) < COPY_ENDED

    def _is_alone(self, inode: int, handle: int) -> bool:
        """Whether no other open file of the inode may be copied."""
        recent = monotonic() - COPY_ENDED
        readers = self._readers[inode].items()
        return not any(reader.active > recent and other != handle for other, reader in readers)

    # ---- reads for the page cache

    def begin_copy(self, inode: int, handle: int) -> None:
        """Notes that the open file is copied.  EINVAL: another open file may be copied too."""
        reader = self._readers[inode][handle]
        reader.active = monotonic()
        if reader.is_refused() or not self._is_alone(inode, handle):
            raise reader.refuse()
        self._copying[inode] = handle
        self._copied[inode] = monotonic()
        self._sizes.setdefault(inode, _SHOWN)

    async def allow_answer(
        self, inode: int, handle: int, thread: int, since: float, end: int | None, length: int, size: int
    ) -> None:
        """Prepares the kernel for a part of a text, before its answer.  EINTR, EINVAL: the part must not be sent.

        thread, since: the thread that opened the file, and the time.  end: the end of the part, if the text ends there.
        length: the length of the text.  size: the size that stat() shows.
        """
        reader = self._readers[inode][handle]
        if inode in self._changing:
            raise reader.ask_again()
        known = self._sizes[inode]
        kernel_size = {_SHOWN: size, _UNKNOWN: -1}.get(known, known)
        if length > kernel_size:
            await self._extend(inode, thread)
            if end is not None:
                raise reader.ask_again()
        elif end is not None and (end < kernel_size or reader.asked_again == math.inf):
            end = self._sizes[inode] = min(end, kernel_size)  # a read behind the end changes nothing
            if self.news.may_interfere(inode, thread, since, end):
                raise reader.refuse()
        (self._cached if size <= MEDIUM else self._cached_long).add(inode)
        self._copied[inode] = monotonic()
        if reader.asked_again > 0:
            reader.asked_again = monotonic()
        self._read.set()

    # ---- changes in worker threads

    async def run(self) -> None:
        """Drops pages when they are no longer fresh, until it is cancelled."""
        while True:
            await self._read.wait()
            self._read = trio.Event()
            await trio.sleep(_FRESH)
            await self._drop(self._cached)
            await self._drop(self._cached_long)
            if self._cached or self._cached_long:
                self._read.set()

    @property
    def has_short_pages(self) -> bool:
        """Whether drop_short_pages() has something to do."""
        return bool(self._cached)

    async def drop_short_pages(self) -> None:
        """Drops the pages of short texts that were read through files that are still open.

        A page of a long text can take as long as the text takes to make, and the writer would wait for it.
        """
        await self._drop(self._cached)

    async def _drop(self, cached: set[int]) -> None:
        for inode in list(cached):
            # nothing may change until the reader has noted the answer to a repeated read
            if self.is_noting_end(inode) or inode not in cached:
                continue
            cached.discard(inode)
            if inode in self._copying:
                self._readers[inode][self._copying[inode]].asked_again = -math.inf
            await self._change(drop_pages, inode)

    async def _extend(self, inode: int, thread: int) -> None:
        self._remember(inode, EXTENDED)
        await self._change(extend_file, inode)
        self.news.changed(inode, thread)

    async def _change(self, change: Callable[[int], None], inode: int) -> None:
        self._changing.add(inode)
        try:
            await trio.to_thread.run_sync(change, inode)
        finally:
            self._changing.discard(inode)

    def _remember(self, inode: int, size: int) -> None:
        self._sizes.pop(inode, None)
        self._sizes[inode] = size
        if len(self._sizes) > _REMEMBERED + len(self._copying):
            forgotten = next(inode for inode in self._sizes if inode not in self._copying)
            del self._sizes[forgotten]
            self._copied.pop(forgotten, None)

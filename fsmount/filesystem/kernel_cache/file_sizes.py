"""The sizes of files, and how sendfile() and splice() come to copy the whole text as it is now.

A plain read() asks us each time.  sendfile() and splice() copy from the kernel's page cache, and stop at the size of
the file.  So a file has a size above the length of its text, in whole pages, as files of sysfs have; and the reads that
fill the page cache carry a mark, see _page_reads.c.  The daemon allows for what the kernel does:

- A text that ends in a page is the end of the file for the kernel: it has that size for all who read it next, however
  long the text is then.  So only an open file that is alone may be copied so: where several were opened within a second
  and are open, each gets EINVAL, as from files without sendfile(), and programs use read().  Meanwhile stat() shows
  the kernel's size: another would be that of the copy under way.
- When that open file is closed, the attributes are invalidated.  The next open() asks for them, and so finds the size
  that stat() shows, and it drops the pages.  An open() that follows too closely has not asked: then the kernel is made
  to extend the file before the open() is answered.
- The kernel does not shorten the file if it has had other news of its attributes since it began to read.  It would copy
  what is behind the text, NULs.  So a read to which that may happen gets EINVAL, too.
- The pages stay until they are dropped: those of short texts before a write is answered, and all after a few
  milliseconds.  So sendfile() from the start of a file that stays open shows what was written through the mount before,
  and what somebody has charged in the region a few milliseconds before.  If the text has become longer, the kernel is
  made to extend the file, and to ask again: EINTR, which it does not pass on.

To drop a page is to wait until it is read, so that is done in a worker thread.  The extension stores a byte far behind
the text, where no page is being read.
"""

from __future__ import annotations

import errno
import logging
import math
import os
from collections import deque
from collections.abc import Callable
from time import monotonic

import pyfuse3
import trio
from pyfuse3 import FUSEError

from fsmount.filesystem.kernel_cache.names_and_attributes import invalidate_attributes

log = logging.getLogger(__name__)

PAGE = 4096

#: The size of a file whose text is short, and of one that may have a few pages.
SHORT, MEDIUM = PAGE, 16 * PAGE

#: Far behind the end of any text: where no page is being read.
_FAR = 1 << 40

#: In the place of a size: the one that stat() shows, and one that may be too small.
_SHOWN, _UNKNOWN = -1, -2

#: How many files that nobody reads any more are remembered: until their attributes were asked for.
_REMEMBERED = 1024

#: How long the kernel may take to note attributes that it was sent, in seconds.
SETTLED = 0.02

#: News of so many files are remembered, and so many of each.
_NEWS, _NEWS_OF_ONE = 512, 32

#: How long a program may take from the last read to the end of its copy, in seconds.
_ENDED = 1.0

#: How long pages are shown again, in seconds.
_FRESH = 0.003


def size_for(length: int) -> int:
    """The size of a file whose text has about this length: a power of two, so that it can be the block size too."""
    return max(MEDIUM, 1 << (length + length // 4).bit_length())


class _News:
    """Attributes that the kernel was sent or has changed, for a thread; noted: the kernel has noted them by now.

    size: the one that it was sent; -1: another one, which is not known.
    """

    __slots__ = ("noted", "size", "thread", "when")

    def __init__(self, thread: int, noted: bool, size: int = -1) -> None:
        self.thread = thread
        self.noted = noted
        self.size = size
        self.when = monotonic()

    def is_pending(self) -> bool:
        """Whether the thread may still have to go on; it may be one that the daemon cannot see."""
        return not self.thread or os.path.exists(f"/proc/{self.thread}")


class FileSizes:
    """The kernel's sizes of files that were read for its page cache.  For the event loop's thread."""

    def __init__(self) -> None:
        #: inode -> the kernel's size, where it is not what stat() shows
        self._sizes: dict[int, int] = {}
        #: inode -> when it was last read for the page cache
        self._copied: dict[int, float] = {}
        #: inode -> the open file that may shorten it
        self._copying: dict[int, int] = {}
        #: whose pages are still there: of files whose texts are short, and of others
        self._cached: set[int] = set()
        self._cached_long: set[int] = set()
        self._read = trio.Event()
        #: inode -> its open files that can be read, and when they were opened or last read for the page cache
        self._open: dict[int, dict[int, float]] = {}
        #: whose attributes or pages change in a worker thread
        self._changing: set[int] = set()
        #: inode -> when its last read was answered, if the kernel had to ask again for it
        self._asked_again: dict[int, float] = {}
        #: open file -> when it was first answered EINVAL
        self._refused: dict[int, float] = {}
        self._news: dict[int, deque[_News]] = {}

    # ---- attributes that the kernel gets

    def __contains__(self, inode: int) -> bool:
        return inode in self._sizes

    def told(self, inode: int, thread: int, size: int = -1) -> None:
        """The kernel gets or changes the attributes of a file, and notes them when that thread goes on."""
        self._goes_on(inode, thread)
        self._note(inode, _News(thread, noted=False, size=size))

    def _goes_on(self, inode: int, thread: int) -> None:
        for news in self._news.get(inode, ()):
            if news.thread == thread and not news.noted:
                news.noted, news.when = True, monotonic()

    def _changed(self, inode: int, thread: int) -> None:
        """The kernel has been made to change the attributes of a file."""
        self._note(inode, _News(thread, noted=True))

    def _note(self, inode: int, news: _News) -> None:
        known = self._news.get(inode)
        if known is None:
            if len(self._news) >= _NEWS:
                del self._news[next(iter(self._news))]
            known = self._news[inode] = deque(maxlen=_NEWS_OF_ONE)
        known.append(news)

    def shown(self, inode: int, size: int, thread: int) -> int:
        """What stat() shows that thread of a file that is among these; `size` if nothing is against it."""
        if inode in self._open and self._is_recent(inode) and 0 <= self._sizes[inode] <= size:
            return self._sizes[inode]
        if inode in self._copying:
            self._sizes[inode] = _SHOWN
            return size
        self._copied.pop(inode, None)
        if inode in self._changing or self._is_unsettled(inode, thread, 0, size):
            self._sizes[inode] = _UNKNOWN  # the kernel may not heed the answer
        else:
            del self._sizes[inode]
        return size

    def is_noting(self, inode: int) -> bool:
        """Whether a reader itself still has to note where the file ends: what else it is sent would be in the way."""
        return monotonic() - self._asked_again.get(inode, 0) < SETTLED

    # ---- open files

    def truncated(self, inode: int, thread: int) -> None:
        """That thread opens it with O_TRUNC."""
        self.told(inode, thread)
        if inode not in self._copying:
            self._remember(inode, _UNKNOWN)

    async def opened(self, inode: int, handle: int, thread: int) -> None:
        """Before an open() of that thread is answered, which may have not asked for the size."""
        self._goes_on(inode, thread)
        self._open.setdefault(inode, {})[handle] = monotonic()
        if inode in self._sizes and self._is_alone(inode, handle):
            await self._extend(inode, 0)

    def _is_recent(self, inode: int) -> bool:
        """Whether somebody may be between the read of a page and the look at the file's size."""
        return monotonic() - self._copied.get(inode, 0) < _ENDED

    def _is_alone(self, inode: int, handle: int) -> bool:
        """Whether no other open file of the inode may be copied."""
        recent = monotonic() - _ENDED
        return not any(when > recent and other != handle for other, when in self._open[inode].items())

    def closed(self, inode: int, handle: int, thread: int, could_read: bool) -> None:
        """That open file, which the thread opened, is released: the thread has gone on."""
        self._refused.pop(handle, None)
        if could_read:
            opened = self._open[inode]
            del opened[handle]
            if not opened:
                del self._open[inode]
        self._goes_on(inode, thread)
        if self._copying.get(inode) == handle:
            del self._copying[inode]
            self._cached.discard(inode)
            self._cached_long.discard(inode)
            self._asked_again.pop(inode, None)
            self.settle(inode)

    def settle(self, inode: int) -> None:
        """The next open() asks for the attributes."""
        invalidate_attributes(inode)
        self._changed(inode, 0)

    # ---- reads for the page cache

    def begin(self, inode: int, handle: int) -> None:
        """This open file is copied; EINVAL: another one may be, too."""
        now = self._open[inode][handle] = monotonic()
        # the kernel asks twice, and would note the second answer too late
        if now - self._refused.get(handle, -math.inf) < _ENDED or not self._is_alone(inode, handle):
            raise self._refusal(handle)
        self._copying[inode] = handle
        self._copied[inode] = monotonic()
        self._sizes.setdefault(inode, _SHOWN)

    async def answered(self, inode: int, thread: int, since: float, end: int | None, length: int, size: int) -> None:
        """Before a part of a text is sent that ends at `end`, if the text does; EINTR or EINVAL: it must not be.

        thread, since: which one opened the file, and when.  length: of the text.  size: what stat() shows.
        """
        if inode in self._changing:
            self._asked_again[inode] = math.inf
            raise FUSEError(errno.EINTR)
        known = self._sizes[inode]
        has = {_SHOWN: size, _UNKNOWN: -1}.get(known, known)
        if length > has:
            await self._extend(inode, thread)
            if end is not None:
                self._asked_again[inode] = math.inf
                raise FUSEError(errno.EINTR)
        elif end is not None and (end < has or self._asked_again.get(inode) == math.inf):
            end = self._sizes[inode] = min(end, has)  # a read behind the end changes nothing
            if self._is_unsettled(inode, thread, since, end):
                raise self._refusal(self._copying[inode])
        (self._cached if size <= MEDIUM else self._cached_long).add(inode)
        self._copied[inode] = monotonic()
        if inode in self._asked_again:
            self._asked_again[inode] = monotonic()
        self._read.set()

    def _refusal(self, handle: int) -> FUSEError:
        self._refused.setdefault(handle, monotonic())
        return FUSEError(errno.EINVAL)

    def _is_unsettled(self, inode: int, thread: int, since: float, end: int) -> bool:
        """Whether the kernel may have had news of the file since it began a read of an open file, other than `end`."""
        recent = monotonic() - _ENDED
        return any(
            news.thread != thread
            and news.size != end
            and news.when > recent
            and (news.when > since if news.noted else news.is_pending())
            for news in self._news.get(inode, ())
        )

    # ---- what is done in worker threads

    async def refresh(self) -> None:
        """Drops the pages of short texts that were read through files that are still open.

        To wait for a page of a long text could take as long as to make the text, and whoever writes would wait for it.
        """
        await self._drop(self._cached)

    async def _drop(self, cached: set[int]) -> None:
        settled = monotonic() - SETTLED
        for inode in list(cached):
            # the reader itself notes the answer to a second request: nothing may change until it has
            if self._asked_again.get(inode, 0) > settled or inode not in cached:
                continue
            cached.discard(inode)
            self._asked_again.pop(inode, None)
            await self._change(_drop_pages, inode)

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
    def shows_pages(self) -> bool:
        """Whether refresh() has something to do."""
        return bool(self._cached)

    async def _extend(self, inode: int, thread: int) -> None:
        self._remember(inode, _FAR + 1)
        await self._change(_extend, inode)
        self._changed(inode, thread)

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


def _extend(inode: int) -> None:
    """Has the kernel take a file for larger than any text, by a byte in a page that nobody reads."""
    try:
        pyfuse3.notify_store(inode, _FAR, b"\0")
    except FileNotFoundError:
        pass  # the kernel does not know it
    except OSError as error:
        log.warning("the kernel may show too little of inode %#x: %s", inode, error)


def _drop_pages(inode: int) -> None:
    try:
        pyfuse3.invalidate_inode(inode)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("the kernel may show old text of inode %#x: %s", inode, error)

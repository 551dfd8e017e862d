"""Recent changes of a file's attributes in the kernel, and whether one may interfere with a read.

The kernel shortens a file at the end of its text only if the attributes have not changed since the read began.  The
daemon cannot see the kernel's attributes, so it keeps the recent answers and changes ("news") of each file.  An answer
counts as noted by the kernel once the thread that asked for it makes its next request.
"""

import os
from collections import deque
from time import monotonic

#: The largest number of files with news, and of news for each file.
_FILES_MAX, _NEWS_MAX = 512, 32

#: The longest time from the last read of a program to the end of its copy, in seconds.
COPY_ENDED = 1.0


class _News:
    """Attributes that the daemon sent or the kernel changed for a thread; `noted`: the kernel has taken them over.

    size: the sent size; -1: an unknown size.
    """

    __slots__ = ("noted", "size", "thread", "when")

    def __init__(self, thread: int, noted: bool, size: int = -1) -> None:
        self.thread = thread
        self.noted = noted
        self.size = size
        self.when = monotonic()

    def is_pending(self) -> bool:
        """Whether the thread may still be waiting for the kernel; thread 0: the daemon cannot see it."""
        return not self.thread or os.path.exists(f"/proc/{self.thread}")


class AttributeNews:
    """The recent news of all files.  For the event loop's thread."""

    def __init__(self) -> None:
        self._of: dict[int, deque[_News]] = {}

    def sent(self, inode: int, thread: int, size: int = -1) -> None:
        """Notes that the daemon sends attributes for a thread; the kernel notes them when that thread goes on."""
        self.goes_on(inode, thread)
        self._add(inode, _News(thread, noted=False, size=size))

    def changed(self, inode: int, thread: int) -> None:
        """Notes that the daemon has made the kernel change the attributes."""
        self._add(inode, _News(thread, noted=True))

    def goes_on(self, inode: int, thread: int) -> None:
        """Notes that the thread makes its next request: the kernel has noted the earlier answers to it."""
        for news in self._of.get(inode, ()):
            if news.thread == thread and not news.noted:
                news.noted, news.when = True, monotonic()

    def may_interfere(self, inode: int, thread: int, since: float, end: int) -> bool:
        """Whether the kernel may have noted another size than `end` since a read of this thread's open file began.

        since: the time at which the file was opened.
        """
        recent = monotonic() - COPY_ENDED
        return any(
            news.thread != thread
            and news.size != end
            and news.when > recent
            and (news.when > since if news.noted else news.is_pending())
            for news in self._of.get(inode, ())
        )

    def _add(self, inode: int, news: _News) -> None:
        known = self._of.get(inode)
        if known is None:
            if len(self._of) >= _FILES_MAX:
                del self._of[next(iter(self._of))]
            known = self._of[inode] = deque(maxlen=_NEWS_MAX)
        known.append(news)

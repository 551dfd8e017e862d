"""The events of a counter's subtree: a file that tells poll() when there were more of them."""

import select
from typing import ClassVar

from pyfuse3 import RequestContext

from .. import control_files
from ..control_files import Kind
from ..tree import Counter
from .open_file import CounterFile


class EventsFile(CounterFile):
    """`key count` lines.  poll() reports POLLPRI when a count is another than this open file last showed, or than it
    was when it was opened.
    """

    kind: ClassVar[Kind] = control_files.EVENTS
    listens: ClassVar[bool] = True

    __slots__ = ("_news", "_seen")

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(counter, inode, flags, ctx)
        self._seen = counter.events()
        self._news = -1

    def text(self) -> bytes:
        self._seen = self.counter.events()
        return "".join(f"{key} {count}\n" for key, count in self._seen.items()).encode()

    def poll(self) -> int:
        return super().poll() | (select.POLLPRI if self._has_changed() else 0)

    def has_news(self) -> bool:
        return self.counter.news != self._news and self._has_changed()

    def _has_changed(self) -> bool:
        if not self.group.exists:
            return False
        self._news = self.counter.news  # before the counts: what is counted after them changes it again
        return self.counter.events() != self._seen

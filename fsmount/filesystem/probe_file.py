"""The probe: what a charge would meet, without charging; each open file has an answer of its own."""

import errno
import os
from typing import ClassVar

from pyfuse3 import FUSEError, RequestContext

from .. import control_files
from ..control_files import Kind
from ..quantities import parse
from ..refusals import Probe
from ..tree import Counter
from .open_file import CounterFile


class ProbeFile(CounterFile):
    """The answer to what was last written here, as of then; empty before.

    The first read after a write begins it, wherever the write has left the file's offset: so a shell can write and read
    through one descriptor.
    """

    kind: ClassVar[Kind] = control_files.PROBE
    timed: ClassVar[bool] = False  # what is written is this open file's alone

    __slots__ = ("_answer", "_start")

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(counter, inode, flags, ctx)
        self._answer: Probe | None = None
        self._start: int | None = None

    def text(self) -> bytes:
        if not self.group.exists:
            raise FUSEError(errno.ENODEV)
        return b"" if self._answer is None else os.fsencode(str(self._answer))

    def command(self, text: bytes) -> None:
        self._answer = self.counter.probe(parse(text))
        self._start = None

    def read(self, offset: int, size: int) -> bytes:
        if self._start is None or offset < self._start:
            self._start = offset
        return super().read(offset - self._start, size)

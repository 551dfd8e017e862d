"""The probe: what a charge would meet, without charging; each open file has an answer of its own."""

import errno
import os
from typing import ClassVar

from pyfuse3 import FUSEError, RequestContext

from fsmount.control_files.control_file import CounterFile
from fsmount.filesystem.kernel_cache.file_sizes import MEDIUM
from fsmount.protocol import file_table
from fsmount.protocol.file_table import Kind
from fsmount.protocol.refusals import Probe
from fsmount.quantities import parse
from fsmount.shm import Counter, Group


class ProbeFile(CounterFile):
    """The answer to what was last written here, as of then; empty before."""

    kind: ClassVar[Kind] = file_table.PROBE
    timed: ClassVar[bool] = False
    private: ClassVar[bool] = True

    __slots__ = ("_answer",)

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(counter, inode, flags, ctx)
        self._answer: Probe | None = None

    @classmethod
    def size(cls, group: Group) -> int:
        return MEDIUM

    def text(self) -> bytes:
        if not self.group.exists:
            raise FUSEError(errno.ENODEV)
        return b"" if self._answer is None else os.fsencode(str(self._answer))

    def command(self, text: bytes) -> None:
        self._answer = self.counter.probe(parse(text))

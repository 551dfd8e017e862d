"""The last refusals of a counter's subtree."""

import os
from collections.abc import Sequence
from typing import ClassVar

from .. import control_files
from ..control_files import Kind
from .listening_file import ListeningFile


class WhyFile(ListeningFile):
    """A line for each, the newest first; poll() tells of a newer one."""

    kind: ClassVar[Kind] = control_files.WHY

    __slots__ = ()

    def counts(self) -> Sequence[int]:
        return (self.counter.last_refusal,)

    def text(self) -> bytes:
        self.seen()  # before it is looked: what is refused meanwhile is told of once more
        return b"".join(os.fsencode(f"{refusal}\n") for refusal in self.counter.why())

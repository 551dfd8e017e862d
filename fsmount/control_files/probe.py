"""R.probe: the outcome that a charge would have; each open file has its own answer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fsmount.control_files.control_file import MEDIUM, CounterFile
from fsmount.quantities import parse

if TYPE_CHECKING:
    from fsmount.control_files.mount import Opening
    from fsmount.interface.region import RegionGroup
    from fsmount.protocol.refusals import Probe


class ProbeFile(CounterFile):
    """The answer to the last write, from the time of that write; empty before."""

    number = 14
    name = "probe"
    mode = 0o666
    timed = False
    private = True
    manual = """\
A write of N asks for the outcome of a charge of N. A read on the same open file shows it, one "key value" a line:
amount, fits (1 or 0), group (the first on the way up that would refuse it, or, if it fits, the group with the least
room), usage and limit of that group, short (the amount of room that is missing) and margin (the most that would fit).
It charges nothing. Idle stock counts as room, but no holder loses it. It is about a charge that does not wait: one that
waits may queue although it would fit."""

    __slots__ = ("_answer",)

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._answer: Probe | None = None

    @classmethod
    def size(cls, group: RegionGroup) -> int:
        return MEDIUM

    def text(self) -> bytes:
        self.check_group()
        return b"" if self._answer is None else os.fsencode(str(self._answer))

    def command(self, text: bytes) -> None:
        self._answer = self.counter.probe(parse(text))

"""R.why: the last refusals of a counter's subtree."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from fsmount.control_files.listening import ListeningFile
from fsmount.control_files.long_file import LongFile
from fsmount.control_files.text import Text

if TYPE_CHECKING:
    from fsmount.interface.region import RegionGroup
    from fsmount.protocol.refusals import Refusal

#: The most refusals that the event loop shows itself: each has up to five paths.
_FEW = 8

#: The length of all refusals that a tree keeps, with paths of usual length.
_LENGTH = 256 * 1024


class WhyFile(LongFile, ListeningFile):
    number = 13
    name = "why"
    mode = 0o444
    manual = """\
The last refusals in the group and below it, one a line, the newest first; see below. poll(2) reports POLLPRI when there
is a new one."""
    sections = (
        (
            "Lines of R.why",
            """
A line is key=value pairs, separated by spaces:

time and since (the last time and the first, UTC) and times (how often).

pid, by (process, lease, or group if the group itself was to be charged), command and asked (the group of the request).

refused (the group whose limit refused), charged (1 if nofail charged it nevertheless), amount, usage, limit and short
(the missing room).

looked (all, some or none of the holders were examined for the largest), looked_at (the time), and largest1 to largest3:
HELD,PID,BY,GROUP,COMMAND of the largest holders below that limit.

Paths are below the mount; "?" is a group that was removed since. A space, a comma, a backslash and any character that
cannot be printed is written as a backslash and three octal digits. New keys go at the end.

Refusals of one process, in one group, by one limit share a line. A tree keeps the last 256 lines, also for the next
daemon. Refusals within 10 ms of another one may be missing from times until the process is refused again.
""",
        ),
    )

    __slots__ = ()

    @classmethod
    def length(cls, group: RegionGroup) -> int:
        return _LENGTH

    def counts(self) -> Sequence[int]:
        return (self.counter.last_refusal,)

    def key(self) -> Hashable:
        return WhyFile, self.group.id, self.counter.resource

    def short_text(self) -> bytes | None:
        self.seen()  # before the refusals: poll() reports any later one
        refusals = self.counter.why(_FEW + 1)
        if len(refusals) > _FEW:
            return None
        return b"".join(map(_line, refusals))

    def make(self) -> Text:
        return Text(map(_line, self.counter.why()))


def _line(refusal: Refusal) -> bytes:
    return os.fsencode(f"{refusal}\n")

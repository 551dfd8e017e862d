"""R.events: the events of a counter's subtree."""

from __future__ import annotations

from collections.abc import Sequence

from fsmount.control_files.listening import ListeningFile
from fsmount.protocol.listings import EVENT_KEYS


class EventsFile(ListeningFile):
    number = 11
    name = "events"
    mode = 0o444
    manual = """\
The events in the group and below it, one "key count" a line; see below. poll(2) reports POLLPRI when a count has
changed."""
    sections = (
        (
            "Keys of R.events",
            """
The keys are limit (charges that a limit refused, or that nofail took past a limit), soft_limit (how often a usage rose
above the soft limit of its group, or fell back; setting the soft limit can do that too) and threshold (how often a
usage crossed a mark in R.threshold). Counts never fall and cannot be reset. The counts of a removed group stay in the
groups above it.

poll(2), epoll and select (exceptional conditions) report POLLPRI as soon as a count differs from the one that this open
file showed last, or at first from the one at its open. They report POLLERR when the group is removed. The charge itself
wakes every process that polls, also if it is made in the region. Several events at once cause one wake-up.
""",
        ),
    )

    __slots__ = ()

    def counts(self) -> Sequence[int]:
        return tuple(self.counter.events().values())

    def text(self) -> bytes:
        return "".join(f"{key} {count}\n" for key, count in zip(EVENT_KEYS, self.seen(), strict=True)).encode()

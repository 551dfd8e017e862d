"""The values that R.stat, R.events, R.holders and .R.groups list, and their lines.

A line of R.holders and .R.groups begins with its numbers and ends with an unescaped name, which may have spaces.  In a
damaged region a name can have a newline.  It becomes a question mark, so that no name ends a line early.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

#: The keys of R.stat, in the order of its lines.
STAT_KEYS = (
    "usage", "usage_local", "common", "reserved", "stock", "holders", "limit", "soft_limit", "hierarchical_limit",
    "margin", "hierarchical_margin", "soft_limit_excess", "max_usage", "min_usage", "failcnt", "global", "batch",
    "error_bound", "refills", "drains",
)  # fmt: skip

#: The keys of R.events, in the order of its lines.
EVENT_KEYS = ("limit", "soft_limit", "threshold")


class CounterSnapshot(NamedTuple):
    """A group and its counter of one resource: a line of .R.groups.  After the name come the values of R.stat."""

    id: int
    parent: int
    name: str
    usage: int
    usage_local: int
    common: int
    reserved: int
    stock: int
    holders: int
    limit: int
    soft_limit: int
    hierarchical_limit: int
    margin: int
    hierarchical_margin: int
    soft_limit_excess: int
    max_usage: int
    min_usage: int
    failcnt: int
    #: `global` in R.stat, which Python reserves.
    global_mode: int
    batch: int
    error_bound: int
    refills: int
    drains: int


# All fields of a group except its name.
_NUMBERS = len(CounterSnapshot._fields) - 1
_GROUP_LINE = "%d " * _NUMBERS + "%s\n"


class HolderLine(NamedTuple):
    """A line of R.holders; that of the group itself has pid 0.  start_time is in clock ticks after boot."""

    pid: int
    start_time: int
    held: int
    stock: int
    command: str

    @classmethod
    def of_the_group(cls, held: int) -> HolderLine:
        """The line for the charges of the group itself."""
        return cls(0, 0, held, 0, "common")


def holders_text(holders: Iterable[HolderLine]) -> bytes:
    """The text of R.holders."""
    lines = [f"{pid} {start} {held} {stock} {_tame(command)}\n" for pid, start, held, stock, command in holders]
    return os.fsencode("".join(lines))


def parse_holders(text: bytes) -> list[HolderLine]:
    found = []
    for line in _lines(text):
        pid, start, held, stock, command = line.split(" ", 4)
        found.append(HolderLine(int(pid), int(start), int(held), int(stock), command))
    return found


def groups_text(rows: Iterable[CounterSnapshot]) -> bytes:
    """The text of .R.groups."""
    return os.fsencode("".join([_GROUP_LINE % (id, parent, *stat, _tame(name)) for id, parent, name, *stat in rows]))


def parse_groups(text: bytes) -> list[CounterSnapshot]:
    found = []
    for line in _lines(text):
        id, parent, *stat, name = line.split(" ", _NUMBERS)
        found.append(CounterSnapshot(int(id), int(parent), name, *map(int, stat)))
    return found


def _tame(name: str) -> str:
    return name.replace("\n", "?")


def _lines(text: bytes) -> list[str]:
    return os.fsdecode(text).split("\n")[:-1]

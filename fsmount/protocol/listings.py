"""What R.holders and .R.groups list: holders and groups as values, and as the lines of the files.

A line begins with its numbers and ends with a name as it is, spaces and all.  No name ends a line early: a newline,
which a group of a damaged region can have in its name, is written as a question mark.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from fsmount.engine import CounterSnapshot

# All fields of a group but its name.
_NUMBERS = len(CounterSnapshot._fields) - 1
_GROUP_LINE = "%d " * _NUMBERS + "%s\n"


class HolderLine(NamedTuple):
    """A line of R.holders; the common pot's has pid 0.  start_time is in clock ticks after boot."""

    pid: int
    start_time: int
    held: int
    stock: int
    command: str


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

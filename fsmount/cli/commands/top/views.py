"""The tables of fsmount top: the groups in some order, or the holders of one group."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fsmount.cli.ui.cells import BAR, Amounts, bar, sparkline
from fsmount.cli.ui.columns import BOLD, DIM, Cell, Column, lines
from fsmount.cli.ui.numbers import number
from fsmount.cli.ui.printable import printable
from fsmount.cli.ui.snapshot import as_tree, full_path, paths, stat
from fsmount.cli.ui.terminal import Glyphs
from fsmount.cli.ui.tree_table import guide
from fsmount.files import HolderLine
from fsmount.protocol.listings import CounterSnapshot

#: The seconds that a sparkline covers, and the seconds of each of its characters.
MINUTE = 60
_SECONDS = MINUTE // BAR
_TREE = "tree"
_NAME = "name"


def _share(row: CounterSnapshot) -> float:
    """The share of the limit; groups without a limit come last."""
    share = Amounts(row.usage, row.limit, row.soft_limit).share
    return -1.0 if share is None else share


_KEYS: dict[str, Callable[[CounterSnapshot], float]] = {
    "usage": lambda row: row.usage,
    "share": _share,
    "failcnt": lambda row: row.failcnt,
    "holders": lambda row: row.holders,
    "stock": lambda row: row.stock,
}
#: The orders of groups.
ORDERS = (*_KEYS, _NAME, _TREE)


class Ordered(NamedTuple):
    """The groups of one resource in an order."""

    rows: list[CounterSnapshot]
    #: Id -> path below the first group.
    paths: dict[int, str]
    #: Id -> the branches that as_tree() returns; empty in any other order.
    last: dict[int, tuple[bool, ...]]


def ordered(rows: Sequence[CounterSnapshot], by: str) -> Ordered:
    """Sorts groups, largest first; equal groups are sorted by path."""
    if by == _TREE:
        found = list(as_tree(rows))
        return Ordered([row for row, _ in found], paths(rows), {row.id: last for row, last in found})
    path = paths(rows)
    in_order = sorted(rows, key=lambda row: path[row.id])
    if by != _NAME:
        in_order.sort(key=_KEYS[by], reverse=True)
    return Ordered(in_order, path, {})


class History:
    """The usage of every group in the last minute: 8 bytes for each group and look."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[int, int], array[int]]] = deque()
        self._ids: list[int] = []
        self._places: dict[int, int] = {}

    def add(self, now: float, rows: Sequence[CounterSnapshot]) -> None:
        """Adds a look at a time, in seconds of any clock."""
        ids = [row.id for row in rows]
        if ids != self._ids:  # otherwise the looks share one table
            self._ids, self._places = ids, {id: place for place, id in enumerate(ids)}
        self._looks.append((now, self._places, array("q", [row.usage for row in rows])))
        while self._looks[0][0] <= now - MINUTE - _SECONDS:
            self._looks.popleft()

    def of(self, id: int) -> list[int | None]:
        """The highest usage in each twelfth of the minute; None: no look then, or no such group."""
        found: list[int | None] = [None] * BAR
        if self._looks:
            first = int(self._looks[-1][0]) // _SECONDS - BAR + 1
            for then, places, usages in self._looks:
                at = int(then) // _SECONDS - first
                place = places.get(id)
                if at >= 0 and place is not None:
                    found[at] = max(found[at] or 0, usages[place])
        return found


def group_lines(
    shown: Sequence[CounterSnapshot],
    groups: Ordered,
    top: str,
    unit: str,
    drawn: Glyphs,
    history: History | None = None,
    width: int | None = None,
) -> list[Cell]:
    """The heads and a line for each group.  Without a width the lines are as long as they must be."""
    columns = [
        Column("group", min_width=16, names=True),
        Column("usage", right=True, min_width=5),
        Column("limit", right=True, min_width=5),
        Column("", min_width=BAR, since=100),
        Column("share", right=True, min_width=5, since=38),
        *([Column("last minute", min_width=BAR, since=52)] if history else []),
        Column("stock", right=True, min_width=5, since=78),
        Column("failcnt", right=True, min_width=7, since=61),
        Column("holders", right=True, min_width=7, since=70),
    ]
    table = []
    for row in shown:
        last = groups.last.get(row.id, ())
        below = row.name if last else groups.paths[row.id]
        name: Cell = [(DIM, guide(last, drawn)), (BOLD, printable(below or top))]
        amounts = Amounts(row.usage, row.limit, row.soft_limit)
        table.append(
            [
                name,
                *amounts.cells(unit, drawn),
                *([[(amounts.style, sparkline(history.of(row.id), drawn))]] if history else []),
                [("", number(row.stock, unit))],
                [("bold" if row.failcnt else "", str(row.failcnt))],
                [("", str(row.holders))],
            ]
        )
    return lines(columns, table, drawn, width, fill=True)


def holder_lines(
    holders: Sequence[HolderLine], usage: int, unit: str, drawn: Glyphs, width: int | None = None
) -> list[Cell]:
    """The heads and a line for each holder of a group, with its share of the usage."""
    columns = [
        Column("command", min_width=12),
        Column("pid", right=True, min_width=7),
        Column("held", right=True, min_width=6),
        Column("", min_width=BAR, since=58),
        Column("share", right=True, min_width=5, since=36),
        Column("stock", right=True, min_width=6, since=44),
    ]
    table = []
    for holder in holders:
        share = min(holder.held / usage, 1.0) if usage else 0.0
        table.append(
            [
                [(BOLD, printable(holder.command))],
                [("", str(holder.pid) if holder.pid else "")],
                [("", number(holder.held, unit))],
                bar(share, "", drawn),
                [("", f"{int(share * 100)}%")],
                [("", number(holder.stock, unit))],
            ]
        )
    return lines(columns, table, drawn, width, fill=True)


def group_object(row: CounterSnapshot, top: str, groups: Ordered) -> dict[str, object]:
    """A group as an object of --json."""
    return {"group": full_path(top, groups.paths[row.id]), **stat(row)}

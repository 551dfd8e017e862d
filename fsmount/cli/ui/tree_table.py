"""A hierarchy of groups as a table, cut to the width of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from fsmount.cli.ui.cells import BAR, Amounts
from fsmount.cli.ui.columns import BOLD, DIM, Cell, Column, joined, lines, plain
from fsmount.cli.ui.printable import printable
from fsmount.cli.ui.snapshot import all_as_tree
from fsmount.cli.ui.streams import echo, writing
from fsmount.cli.ui.terminal import Glyphs, glyphs, on_terminal, terminal_width
from fsmount.protocol.listings import CounterSnapshot


def draw(snapshot: dict[str, list[CounterSnapshot]], top: str, units: dict[str, str]) -> None:
    """Prints the table; units: the unit of each resource."""
    drawn = glyphs(sys.stdout.encoding)
    columns = [
        Column("group", min_width=8, names=True),
        *([Column("resource", max_width=12)] if len(units) > 1 else []),
        *(Column(title, right=True, min_width=6) for title in ("usage", "limit")),
        Column("", min_width=BAR, since=60),
        Column("", right=True, min_width=4, since=44),
    ]
    rows = list(_rows(snapshot, top, units, drawn))
    table = lines(columns, rows, drawn, terminal_width())
    if not on_terminal():
        echo("\n".join(map(plain, table)))
        return
    from prompt_toolkit import print_formatted_text
    from prompt_toolkit.formatted_text import FormattedText

    with writing():
        print_formatted_text(FormattedText(joined(table)), end="")


def _rows(
    snapshot: dict[str, list[CounterSnapshot]], top: str, units: dict[str, str], drawn: Glyphs
) -> Iterator[list[Cell]]:
    ordered = list(all_as_tree(snapshot))
    depths = [len(last) for _, last, _ in ordered[1:]]
    for (row, last, counters), following in zip(ordered, [*depths, 0], strict=True):
        name = [(DIM, guide(last, drawn)), (BOLD, printable(row.name if last else top))]
        for resource, counter in counters.items():
            amounts = Amounts(counter.usage, counter.limit, counter.soft_limit)
            named = [[("", printable(resource))]] if len(units) > 1 else []
            yield [name, *named, *amounts.cells(units[resource], drawn)]
            name = [(DIM, _beside(last, drawn) + (drawn.by if following > len(last) else ""))]


def guide(last: tuple[bool, ...], drawn: Glyphs) -> str:
    """The lines of the tree in front of a name; see as_tree()."""
    return _beside(last[:-1], drawn) + (drawn.last if last[-1] else drawn.branch) if last else ""


def _beside(last: tuple[bool, ...], drawn: Glyphs) -> str:
    """The lines of the tree in front of the second and later lines of a group."""
    return "".join("   " if ended else drawn.by for ended in last)

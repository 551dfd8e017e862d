"""A hierarchy of groups as a table: for a terminal as wide as that is, for anything else as wide as it needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fsmount.cli.printable import printable
from fsmount.quantities import UNLIMITED

if TYPE_CHECKING:
    from fsmount.cli.tree import Node

_BAR = 12
# Of what is no terminal: wider than any group's line can be.
_WIDEST = 1 << 16
# Above what share of its limit a counter is of which colour.
_RED = 0.9
_YELLOW = 0.75

_LINES = {"branch": "├─ ", "last": "└─ ", "by": "│  ", "full": "█", "free": "░"}
_ASCII = {"branch": "|- ", "last": "`- ", "by": "|  ", "full": "#", "free": "."}


def draw(nodes: Sequence[Node], top: str, units: dict[str, str]) -> None:
    """Prints them; units is that of each resource that they have counters of."""
    console = Console(highlight=False)
    glyphs = _ASCII if console.options.ascii_only else _LINES
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("group", min_width=8)  # the one that gives way where the terminal is narrow
    if len(units) > 1:
        table.add_column("resource", no_wrap=True, overflow="ellipsis", max_width=12)
    for title in ("usage", "limit"):
        table.add_column(title, no_wrap=True, justify="right", min_width=6)
    table.add_column("", no_wrap=True, min_width=_BAR)
    table.add_column("", no_wrap=True, justify="right", min_width=4)
    for node, following in zip(nodes, [*nodes[1:], None], strict=True):
        name = _name(node, top, glyphs)
        if node.closed:
            table.add_row(name.append(f"  {node.closed}", "not bold red"))
        for resource, stat in node.counters.items():
            named = [printable(resource)] if len(units) > 1 else []
            table.add_row(name, *named, *_cells(stat, units[resource], glyphs))
            name = _beside(node, following, glyphs)
    if not console.is_terminal:
        console.width = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    console.print(table)


def _name(node: Node, top: str, glyphs: dict[str, str]) -> Text:
    if not node.last:
        return Text(printable(top), "bold", no_wrap=True, overflow="ellipsis")
    *above, last = node.last
    guide = "".join("   " if ended else glyphs["by"] for ended in above) + glyphs["last" if last else "branch"]
    return Text(guide, "dim", no_wrap=True, overflow="ellipsis").append(
        printable(os.path.basename(node.path)), "not dim bold"
    )


def _beside(node: Node, following: Node | None, glyphs: dict[str, str]) -> Text:
    """What stands below its name where it has several lines."""
    guide = "".join("   " if ended else glyphs["by"] for ended in node.last)
    if following is not None and len(following.last) > len(node.last):
        guide += glyphs["by"]
    return Text(guide, "dim", no_wrap=True, overflow="crop")


def _cells(stat: dict[str, int], unit: str, glyphs: dict[str, str]) -> list[Text]:
    usage, limit = stat["usage"], stat["limit"]
    said = size if unit == "bytes" else str
    if limit == UNLIMITED:
        style = "yellow" if stat["soft_limit_excess"] else ""
        return [Text(said(usage), style), Text("max", "dim"), Text(), Text()]
    share = usage / limit if limit else 1.0
    style = "red" if share >= _RED else "yellow" if share >= _YELLOW or stat["soft_limit_excess"] else "green"
    full = min(int(share * _BAR), _BAR)
    bar = Text(glyphs["full"] * full, style).append(glyphs["free"] * (_BAR - full), "dim")
    return [Text(said(usage), style), Text(said(limit)), bar, Text(f"{int(share * 100)}%", style)]


def size(number: int) -> str:
    """Bytes for people, in powers of 1024: 1023, 1.0K, 9.8M, 12G."""
    power = (number.bit_length() - 1) // 10
    if power < 1:
        return str(number)
    value = number / 1024**power
    return f"{value:.{int(value < 9.95)}f}{'KMGTPE'[power - 1]}"

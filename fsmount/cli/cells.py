"""What a counter says, for people: numbers, bars and lines of cells, in columns that fit the terminal.

A cell is a list of pieces (style, text), styles as prompt_toolkit names them: what is written to a terminal gets its
colours from there, and for anything else the texts alone are joined, without that library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fsmount.quantities import UNLIMITED

Piece = tuple[str, str]
Cell = list[Piece]

BOLD = "bold"
DIM = "dim"
RED = "ansired"
_YELLOW = "ansiyellow"
_GREEN = "ansigreen"

#: How wide a bar is, and a line of the last minute.
BAR = 12
# From what share of its limit on a counter is of which colour.
_RED_SHARE = 0.9
_YELLOW_SHARE = 0.75

_GAP = "  "


class Glyphs(NamedTuple):
    branch: str
    last: str
    by: str
    full: str
    free: str
    #: From the lowest to the highest.
    heights: str
    cut: str


_LINES = Glyphs("├─ ", "└─ ", "│  ", "█", "░", "▁▂▃▄▅▆▇█", "…")
_ASCII = Glyphs("|- ", "`- ", "|  ", "#", ".", "_.-:=+*#", "~")


def on_terminal() -> bool:
    """Whether there is somebody to draw for."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def glyphs(encoding: str | None) -> Glyphs:
    """Those that can be written in an encoding."""
    return _LINES if (encoding or "").lower().startswith("utf") else _ASCII


# ---- a counter ------------------------------------------------------------------------------------------


class Amounts(NamedTuple):
    """What is shown of a counter."""

    usage: int
    limit: int
    soft_limit: int

    @property
    def share(self) -> float | None:
        """What part of the limit is used; None without one."""
        if self.limit == UNLIMITED:
            return None
        return self.usage / self.limit if self.limit else 1.0

    @property
    def style(self) -> str:
        """The colour of its distance to the limit."""
        share = self.share
        if share is not None and share >= _RED_SHARE:
            return RED
        if self.usage > self.soft_limit or (share is not None and share >= _YELLOW_SHARE):
            return _YELLOW
        return "" if share is None else _GREEN

    def cells(self, unit: str, drawn: Glyphs) -> list[Cell]:
        """Usage, limit, bar and share."""
        style, share = self.style, self.share
        usage = [(style, number(self.usage, unit))]
        if share is None:
            return [usage, [(DIM, "max")], [], []]
        full = min(int(share * BAR), BAR)
        bar = [(style, drawn.full * full), (DIM, drawn.free * (BAR - full))]
        return [usage, [("", number(self.limit, unit))], bar, [(style, f"{int(share * 100)}%")]]


def number(amount: int, unit: str) -> str:
    """An amount of a resource for people, in its unit."""
    return size(amount) if unit == "bytes" else str(amount)


def size(number: int) -> str:
    """Bytes for people, in powers of 1024: 1023, 1.0K, 9.8M, 12G."""
    power = (number.bit_length() - 1) // 10
    if power < 1:
        return str(number)
    value = number / 1024**power
    return f"{value:.{int(value < 9.95)}f}{'KMGTPE'[power - 1]}"


def sparkline(usages: Sequence[int | None], drawn: Glyphs) -> str:
    """A character for each usage, as high as it is beside the highest; a space for what is not known."""
    top = max((usage for usage in usages if usage is not None), default=0) or 1
    steps = len(drawn.heights) - 1
    return "".join(" " if usage is None else drawn.heights[round(usage / top * steps)] for usage in usages)


# ---- columns --------------------------------------------------------------------------------------------


class Column(NamedTuple):
    title: str
    right: bool = False
    least: int = 0
    most: int | None = None


def lines(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    drawn: Glyphs,
    width: int | None = None,
    *,
    fill: bool = False,
) -> list[Cell]:
    """The titles and the rows (which may end early), a line each.

    With a width no line is wider: the first column gives way.  fill: it takes what is left over, too.
    """
    titled = [[(DIM, column.title)] for column in columns]
    widths = [max(column.least, len(column.title)) for column in columns]
    for row in rows:
        for at, cell in enumerate(row):
            if cell:
                widths[at] = max(widths[at], sum(map(_width, (text for _, text in cell))))
    for at, column in enumerate(columns):
        if column.most is not None:
            widths[at] = min(widths[at], column.most)
    if width is not None:
        room = max(columns[0].least, width - sum(widths[1:]) - len(_GAP) * (len(widths) - 1))
        widths[0] = room if fill else min(widths[0], room)
    found = [_line(columns, row, widths, drawn) for row in (titled, *rows)]
    return found if width is None else [shortened(line, width, drawn) for line in found]


def plain(line: Cell) -> str:
    """A line for what is no terminal."""
    return "".join(text for _, text in line).rstrip()


def shortened(cell: Cell, width: int, drawn: Glyphs) -> Cell:
    """The cell, cut where it is wider."""
    if sum(_width(text) for _, text in cell) <= width:
        return cell
    kept: Cell = []
    left = width - 1
    for style, text in cell:
        part = _start(text, left)
        kept.append((style, part))
        left -= _width(part)
        if part != text:
            kept.append((style, drawn.cut))
            break
    return kept


def _line(columns: Sequence[Column], row: Sequence[Cell], widths: Sequence[int], drawn: Glyphs) -> Cell:
    line: Cell = []
    for at, cell in enumerate(row):
        if at:
            line.append(("", _GAP))
        # a row that ends early has a text that goes over all columns
        wide = widths[at] if at + 1 < len(row) or len(row) == len(columns) else sum(widths) + len(_GAP) * len(widths)
        cut = shortened(cell, wide, drawn)
        space = ("", " " * (wide - sum(_width(text) for _, text in cut)))
        line += [space, *cut] if columns[at].right else [*cut, space]
    return line


def _width(text: str) -> int:
    """How many cells of a terminal it takes."""
    if text.isascii():
        return len(text)
    from prompt_toolkit.utils import get_cwidth

    return get_cwidth(text)


def _start(text: str, width: int) -> str:
    """As much of the text as fits."""
    if text.isascii():
        return text[: max(width, 0)]
    end = 0
    for end, character in enumerate(text):
        width -= _width(character)
        if width < 0:
            return text[:end]
    return text


def joined(table: Iterable[Cell]) -> Cell:
    """The lines as one text."""
    return [piece for line in table for piece in (*line, ("", "\n"))]

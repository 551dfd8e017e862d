"""What a counter says, for people: numbers, bars and lines of cells, in columns that fit the terminal.

A cell is a list of pieces (style, text), styles as prompt_toolkit names them: what is written to a terminal gets its
colours from there, and for anything else the texts alone are joined, without that library.
"""

from __future__ import annotations

import os
import shutil
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
    """Whether there is somebody to draw for, in colours."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def terminal_width() -> int | None:
    """How many columns there are, also where nothing can be drawn; None if it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


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
    """An amount of a resource for people, in its unit; no limit is max."""
    if amount == UNLIMITED:
        return "max"
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
    #: From what width of the table on it is shown.
    since: int = 0
    #: Whether shortened_name() cuts what is too wide.
    names: bool = False


def lines(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    drawn: Glyphs,
    width: int | None = None,
    *,
    fill: bool = False,
) -> list[Cell]:
    """The titles and the rows, a line each.

    With a width no line is wider: columns are left out, and the first one gives way.  fill: it takes what is left
    over, too.
    """
    if width is not None:
        shown = [at for at, column in enumerate(columns) if width >= column.since]
        columns, rows = [columns[at] for at in shown], [[row[at] for at in shown] for row in rows]
    titled = [[(DIM, column.title)] for column in columns]
    widths = [max(column.least, len(column.title)) for column in columns]
    for row in rows:
        for at, cell in enumerate(row):
            if cell:
                widths[at] = max(widths[at], _cell_width(cell))
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
    if _cell_width(cell) <= width:
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


def shortened_name(cell: Cell, width: int, drawn: Glyphs) -> Cell:
    """What leads to a name and the name, cut where they are wider: of both the end tells the most.

    But a name that is cut behind what leads to it keeps its beginning, as that tells where it is sorted.
    """
    if _cell_width(cell) <= width:
        return cell
    (lead_style, lead), *name = cell
    if not lead:
        return [(style, shortened_path(text, width, drawn)) for style, text in name]
    # a name has half of the width at least
    kept = shortened(name, max(width - _width(lead), width // 2), drawn)
    return [(lead_style, shortened_path(lead, width - _cell_width(kept), drawn)), *kept]


def shortened_path(text: str, width: int, drawn: Glyphs) -> str:
    """The text, without its beginning where it is wider."""
    if _width(text) <= width:
        return text
    left = width - 1
    for start in range(len(text) - 1, -1, -1):
        left -= _width(text[start])
        if left < 0:
            return drawn.cut + text[start + 1 :]
    return text


def _line(columns: Sequence[Column], row: Sequence[Cell], widths: Sequence[int], drawn: Glyphs) -> Cell:
    line: Cell = []
    for at, cell in enumerate(row):
        cut = (shortened_name if columns[at].names else shortened)(cell, widths[at], drawn)
        space = ("", " " * (widths[at] - _cell_width(cut)))
        line += [("", _GAP)] if at else []
        line += [space, *cut] if columns[at].right else [*cut, space]
    return line


def _cell_width(cell: Cell) -> int:
    return sum(_width(text) for _, text in cell)


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

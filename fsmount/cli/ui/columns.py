"""Tables that fit the terminal, as lines of cells.

A cell is a list of pieces (style, text) with the styles of prompt_toolkit, which writes them to a terminal.  For any
other output only the texts are joined, without that library.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fsmount.cli.ui.terminal import Glyphs

Piece = tuple[str, str]
Cell = list[Piece]

BOLD = "bold"
DIM = "dim"

_GAP = "  "


class Column(NamedTuple):
    title: str
    right: bool = False
    min_width: int = 0
    max_width: int | None = None
    #: The narrowest table that shows the column.  If the rest is too wide, columns with the largest `since` go first.
    since: int = 0
    #: Whether shortened_name() cuts a text that is too wide.
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

    width: the maximum; some columns are left out for it, and the first column is cut.  fill: the first column is
    extended to the width.
    """
    titled: Sequence[Cell] = [[(DIM, column.title)] for column in columns]
    widths = [max(column.min_width, len(column.title)) for column in columns]
    for row in rows:
        for at, cell in enumerate(row):
            if cell:
                widths[at] = max(widths[at], _cell_width(cell))
    for at, column in enumerate(columns):
        if column.max_width is not None:
            widths[at] = min(widths[at], column.max_width)
    if width is not None:
        shown = _shown(columns, widths, width)
        columns, widths = [columns[at] for at in shown], [widths[at] for at in shown]
        titled, *rows = ([row[at] for at in shown] for row in (titled, *rows))
        room = max(columns[0].min_width, width - sum(widths[1:]) - len(_GAP) * (len(widths) - 1))
        widths[0] = room if fill else min(widths[0], room)
    found = [_line(columns, row, widths, drawn) for row in (titled, *rows)]
    return found if width is None else [shortened(line, width, drawn) for line in found]


def _shown(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """The numbers of the columns that fit."""
    shown = [at for at, column in enumerate(columns) if width >= column.since]
    while columns[0].min_width + sum(len(_GAP) + widths[at] for at in shown[1:]) > width:
        last = max(shown, key=lambda at: columns[at].since)
        if columns[last].since == 0:
            break
        shown.remove(last)
    return shown


def plain(line: Cell) -> str:
    """A line as text for a file or pipe."""
    return "".join(text for _, text in line).rstrip()


def shortened(cell: Cell, width: int, drawn: Glyphs) -> Cell:
    """The cell, cut to the width."""
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
    """A guide and a name, or a path, cut to the width.

    A guide and a path lose their beginnings, because the end identifies the group.  A name behind a guide loses its
    end, because the beginning shows its place in the order.
    """
    if _cell_width(cell) <= width:
        return cell
    (lead_style, lead), *name = cell
    if not lead:
        return [(style, shortened_path(text, width, drawn)) for style, text in name]
    # the name keeps at least half of the width
    kept = shortened(name, max(width - _width(lead), width // 2), drawn)
    return [(lead_style, shortened_path(lead, width - _cell_width(kept), drawn)), *kept]


def shortened_path(text: str, width: int, drawn: Glyphs) -> str:
    """The end of a text that is wider."""
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
    """The number of terminal cells that the text takes."""
    if text.isascii():
        return len(text)
    from prompt_toolkit.utils import get_cwidth

    return get_cwidth(text)


def _start(text: str, width: int) -> str:
    """The beginning of the text that fits."""
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

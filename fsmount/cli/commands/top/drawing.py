"""The texts of fsmount top on a terminal: groups, holders, help and the line of keys."""

from __future__ import annotations

from typing import NamedTuple

from prompt_toolkit.formatted_text import StyleAndTextTuples

from fsmount.cli.commands.top.browser import Browser
from fsmount.cli.commands.top.reader import GroupsSeen, HoldersSeen
from fsmount.cli.commands.top.views import Ordered, group_lines, holder_lines
from fsmount.cli.ui.columns import BOLD, DIM, Cell, joined, shortened, shortened_path
from fsmount.cli.ui.numbers import number
from fsmount.cli.ui.printable import printable
from fsmount.cli.ui.terminal import Glyphs
from fsmount.quantities import UNLIMITED

#: The lines above a table: the title and the heads of the columns.
HEADS = 2

_KEYS = "q quit  ? help  arrows select  enter holders  s sort  r resource  l limit"
_KEYS_HOLDERS = "q quit  ? help  esc back  arrows scroll  r resource  l limit"
_KEYS_HELP = "q quit  esc back  arrows scroll"

_HELP = """\
arrows j k   select a group
PgUp PgDn    by a screen; Home, End
Enter        its holders; Esc: back
s S          sort by the next column, or the one before
r            the next resource
l L          set the limit, or the soft limit (4096, 64K, 2G, max)
Space        look now
^Z           stop; the shell's fg continues
q            quit

last minute  as high as its highest usage
red          nine tenths of the limit
yellow       three quarters, or the soft limit
holders      of this very group
common       what the group itself holds
stock        reserved, here and below"""


class Area(NamedTuple):
    """The part of the terminal for a table: its columns, its rows below the heads, and the characters it can show."""

    columns: int
    rows: int
    glyphs: Glyphs


def content(browser: Browser, area: Area) -> StyleAndTextTuples:
    """The help, the groups or the holders."""
    if browser.help is not None:
        return _help_text(browser, browser.help, area)
    seen = browser.seen
    if isinstance(seen, GroupsSeen) and browser.ordered is not None:
        return _groups_text(browser, seen, browser.ordered, area)
    if isinstance(seen, HoldersSeen):
        return _holders_text(browser, seen, area)
    return [(DIM, "reading...")]


def keys(browser: Browser) -> str:
    """The line of keys."""
    if browser.help is not None:
        return _KEYS_HELP
    return _KEYS_HOLDERS if browser.wanted.path else _KEYS


def _help_text(browser: Browser, first: int, area: Area) -> StyleAndTextTuples:
    lines = _HELP.split("\n")
    first = browser.help = max(min(first, len(lines) - area.rows - HEADS), 0)
    return [*joined(shortened([("", line)], area.columns, area.glyphs) for line in lines[first:])]


def _groups_text(browser: Browser, seen: GroupsSeen, found: Ordered, area: Area) -> StyleAndTextTuples:
    resource = seen.wanted.resource
    first = max(min(browser.first, browser.row, len(found.rows) - area.rows), browser.row - area.rows + 1, 0)
    browser.first = first
    head, *table = group_lines(
        found.rows[first : first + area.rows],
        found,
        browser.top,
        browser.groups.units[resource],
        area.glyphs,
        browser.histories[resource],
        area.columns,
    )
    selected = browser.row - first
    table[selected] = [(f"{style} reverse", text) for style, text in table[selected]]
    count = f"{len(found.rows):,} group{'s' if len(found.rows) > 1 else ''}"
    title = _title(f"{printable(resource)} of {count} by {browser.order}", browser.top, area)
    return [*joined([title, head, *table])]


def _holders_text(browser: Browser, seen: HoldersSeen, area: Area) -> StyleAndTextTuples:
    resource = seen.wanted.resource
    unit = browser.groups.units[resource]
    first = browser.first = max(min(browser.first, len(seen.holders) - area.rows), 0)
    usage, local, limit = (seen.stat[key] for key in ("usage", "usage_local", "limit"))
    table = holder_lines(seen.holders[first : first + area.rows], usage, unit, area.glyphs, area.columns)
    of = "" if limit == UNLIMITED else f" of {number(limit, unit)}"
    below = "" if usage == local else f", {number(usage - local, unit)} in the groups below"
    count = f"{len(seen.holders):,} holder{'' if len(seen.holders) == 1 else 's'}"
    title = _title(f"{printable(resource)}: {number(usage, unit)}{of}{below}, {count}", seen.wanted.path, area)
    if not seen.holders:
        table.append([(DIM, "nobody holds anything in this very group")])
    return [*joined([title, *table])]


def _title(text: str, path: str, area: Area) -> Cell:
    shown = shortened_path(printable(path), area.columns - len(text) - 2, area.glyphs)
    return shortened([(BOLD, text), ("", f"  {shown}")], area.columns, area.glyphs)

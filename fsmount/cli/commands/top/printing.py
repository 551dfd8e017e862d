"""The output of fsmount top without a terminal: a table, or a line of JSON, for each look."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator

from fsmount.cli.commands.top.reader import GroupsSeen, HoldersSeen, Seen, Unseen, Wanted, look, pause
from fsmount.cli.commands.top.views import group_lines, group_object, holder_lines, ordered
from fsmount.cli.ui.columns import plain
from fsmount.cli.ui.snapshot import Groups
from fsmount.cli.ui.streams import echo
from fsmount.cli.ui.terminal import Glyphs, glyphs, terminal_width


def print_looks(
    groups: Groups, top: str, wanted: Wanted, order: str, interval: float, count: int | None, *, as_json: bool
) -> None:
    """Prints `count` looks, or looks until a signal ends it.  Errors are those of look()."""
    drawn = glyphs(sys.stdout.encoding)
    for number in itertools.count(1):
        start = time.monotonic()
        seen = look(groups, wanted)
        if isinstance(seen, Unseen):
            raise seen.error
        if as_json:
            echo(json.dumps(_object(seen, order, groups)))
        else:
            if number > 1:
                echo()
            for line in _lines(seen, order, groups, top, drawn):
                echo(line)
        if number == count:
            return
        time.sleep(pause(time.monotonic() - start, interval))


def _lines(seen: Seen, order: str, groups: Groups, top: str, drawn: Glyphs) -> Iterator[str]:
    unit = groups.units[seen.wanted.resource]
    if isinstance(seen, GroupsSeen):
        in_order = ordered(seen.rows, order)
        table = group_lines(in_order.rows, in_order, top, unit, drawn, width=terminal_width())
    else:
        assert isinstance(seen, HoldersSeen)
        table = holder_lines(seen.holders, seen.stat["usage"], unit, drawn, terminal_width())
    return map(plain, table)


def _object(seen: Seen, order: str, groups: Groups) -> dict[str, object]:
    found: dict[str, object] = {"time": time.time(), "resource": seen.wanted.resource}
    if isinstance(seen, GroupsSeen):
        in_order = ordered(seen.rows, order)
        return found | {"groups": [group_object(row, groups.path, in_order) for row in in_order.rows]}
    assert isinstance(seen, HoldersSeen)
    return found | {"group": seen.wanted.path, "holders": [holder._asdict() for holder in seen.holders]}

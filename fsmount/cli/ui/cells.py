"""Counters as cells of a table: numbers, bars and sparklines, coloured by the distance to the limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fsmount.cli.ui.columns import DIM, Cell
from fsmount.cli.ui.numbers import number
from fsmount.cli.ui.terminal import Glyphs
from fsmount.quantities import UNLIMITED

RED = "ansired"
_YELLOW = "ansiyellow"
_GREEN = "ansigreen"

#: The width of a bar, and of a sparkline.
BAR = 12
# The shares of the limit from which a counter is red, and yellow.
_RED_SHARE = 0.9
_YELLOW_SHARE = 0.75


class Amounts(NamedTuple):
    """The amounts of a counter that a table shows."""

    usage: int
    limit: int
    soft_limit: int

    @property
    def share(self) -> float | None:
        """The used part of the limit; None without a limit."""
        if self.limit == UNLIMITED:
            return None
        return self.usage / self.limit if self.limit else 1.0

    @property
    def style(self) -> str:
        """The colour for the distance to the limit."""
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
        limit = [("", number(self.limit, unit))]
        return [usage, limit, bar(share, style, drawn), [(style, f"{int(share * 100)}%")]]


def bar(share: float, style: str, drawn: Glyphs) -> Cell:
    """A bar filled to the share, or completely above 1."""
    full = min(int(share * BAR), BAR)
    return [(style, drawn.full * full), (DIM, drawn.free * (BAR - full))]


def sparkline(usages: Sequence[int | None], drawn: Glyphs) -> str:
    """A character for each usage, scaled to the highest; a space for an unknown usage."""
    top = max((usage for usage in usages if usage is not None), default=0) or 1
    steps = len(drawn.heights) - 1
    return "".join(" " if usage is None else drawn.heights[round(usage / top * steps)] for usage in usages)

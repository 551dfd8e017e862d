"""What a counter says, for people: numbers, bars and sparklines, in the colours of its distance to the limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fsmount.cli.ui.columns import DIM, Cell
from fsmount.cli.ui.terminal import Glyphs
from fsmount.quantities import UNLIMITED

RED = "ansired"
_YELLOW = "ansiyellow"
_GREEN = "ansigreen"

#: How wide a bar is, and a line of the last minute.
BAR = 12
# From what share of its limit on a counter is of which colour.
_RED_SHARE = 0.9
_YELLOW_SHARE = 0.75


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
        limit = [("", number(self.limit, unit))]
        return [usage, limit, bar(share, style, drawn), [(style, f"{int(share * 100)}%")]]


def bar(share: float, style: str, drawn: Glyphs) -> Cell:
    """As much of a bar as the share is, or all of it."""
    full = min(int(share * BAR), BAR)
    return [(style, drawn.full * full), (DIM, drawn.free * (BAR - full))]


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

"""The output: whether it is a terminal, its width, and the characters that it can show."""

from __future__ import annotations

import os
import shutil
import sys
from typing import NamedTuple


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
    """Whether the output is a terminal with colours."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def terminal_width() -> int | None:
    """The width of the terminal, also without colours; None: the output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def glyphs(encoding: str | None) -> Glyphs:
    """The glyphs that an encoding can write."""
    return _LINES if (encoding or "").lower().startswith("utf") else _ASCII

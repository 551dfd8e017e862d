"""What can be drawn where the output goes: whether it is a terminal, how wide, and with which characters."""

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
    """Whether there is somebody to draw for, in colours."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def terminal_width() -> int | None:
    """How many columns there are, also where nothing can be drawn; None if it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def glyphs(encoding: str | None) -> Glyphs:
    """Those that can be written in an encoding."""
    return _LINES if (encoding or "").lower().startswith("utf") else _ASCII

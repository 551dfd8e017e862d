"""Writes the pages into the directory that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from . import commands, files

directory = Path(sys.argv[1])
(directory / "fsmount.1").write_text(commands.page())
(directory / "fsmount.5").write_text(files.page())

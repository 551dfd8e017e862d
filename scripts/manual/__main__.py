"""Writes the pages into the given checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from . import commands, files

PAGES = {
    "man/fsmount.1": commands.page,
    "man/fsmount.5": files.page,
    "fsmount/docs/files.md": files.markdown,
}

root = Path(sys.argv[1])
for name, page in PAGES.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(page())

"""The command fsmount, and python -m fsmount."""

from __future__ import annotations

import gc
import os


def main() -> None:
    """Runs the command."""
    gc.disable()  # collections during the imports find nothing, and take 4 ms
    from fsmount.cli import main as command

    command(prog_name="fsmount", obj=os._exit)


if __name__ == "__main__":
    main()

"""A process that reads a short file during long operations."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


def served_while(action: Callable[[], object], path: Path) -> int:
    """The number of reads of the file that are answered while a thread does the action."""
    worker = threading.Thread(target=action)
    fd = os.open(path, os.O_RDONLY)
    served = 0
    try:
        worker.start()
        while worker.is_alive():
            os.pread(fd, 100, 0)
            served += 1
    finally:
        worker.join()
        os.close(fd)
    return served

"""What the kernel says of a process."""

from __future__ import annotations

import time
from pathlib import Path


def state(pid: int) -> str:
    """The letter that ps shows: R runs, S sleeps, T is stopped, Z is dead and waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def sleeps(pid: int) -> bool:
    """Whether a process or thread does so for a while: it waits for something, and not for a processor."""
    for _ in range(10):
        if state(pid) != "S":
            return False
        time.sleep(0.002)
    return True

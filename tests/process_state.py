"""What the kernel says of a process."""

from __future__ import annotations

from pathlib import Path


def state(pid: int) -> str:
    """The letter that ps shows: R runs, S sleeps, T is stopped, Z is dead and waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

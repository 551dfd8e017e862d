"""What the kernel says of a process."""

from __future__ import annotations

import time
from pathlib import Path


def state(pid: int) -> str:
    """The letter that ps shows: R runs, S sleeps, T is stopped, Z is dead and waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def waits_for_the_daemon(pid: int) -> bool:
    """Whether it sleeps in a request to a FUSE file system."""
    return Path(f"/proc/{pid}/wchan").read_text() == "request_wait_answer"


def sleeps(pid: int) -> bool:
    """Whether a process or thread does so for a while: it waits, and not for a processor or a daemon's answer."""
    for _ in range(10):
        if state(pid) != "S" or waits_for_the_daemon(pid):
            return False
        time.sleep(0.002)
    return True

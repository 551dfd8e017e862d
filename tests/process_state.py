"""The state of a process, as the kernel reports it."""

from __future__ import annotations

import time
from pathlib import Path


def state(pid: int) -> str:
    """The letter that ps shows: R runs, S sleeps, T is stopped, Z is dead but not reaped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def waits_for_the_daemon(pid: int) -> bool:
    """Whether the process sleeps in a request to a FUSE file system."""
    return Path(f"/proc/{pid}/wchan").read_text() == "request_wait_answer"


def sleeps(pid: int) -> bool:
    """Whether a process or thread sleeps for a while, and not for a processor or an answer of a daemon."""
    for _ in range(10):
        if state(pid) != "S" or waits_for_the_daemon(pid):
            return False
        time.sleep(0.002)
    return True

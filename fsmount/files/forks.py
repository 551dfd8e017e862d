"""A lock that a fork waits for, so that no child inherits a descriptor that nothing knows of."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

# Reentrant because a signal handler may open or close a lease.
_lock = threading.RLock()


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """No thread forks inside."""
    with _lock:
        yield


def _renew() -> None:
    """In a forked child, which has none of the threads that may hold the old lock."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_renew)

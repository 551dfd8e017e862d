"""A lock that a fork waits for, so that a child inherits no descriptor that is opened but not yet recorded."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

# Reentrant because a signal handler may open or close a lease.
_lock = threading.RLock()


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """No thread forks during the block."""
    with _lock:
        yield


def _renew() -> None:
    """Replaces the lock in a forked child: the thread that owns the old lock may not exist there."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_renew)

"""The signals that ask the daemon to unmount and end: SIGINT, SIGTERM and SIGHUP."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Blocks the signals until first_signal(): without the event loop nothing would unmount."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def first_signal(act: Callable[[int], None]) -> Iterator[None]:
    """Calls act, at once, with the number of the first signal; later ones are ignored.

    The handler first makes this process ignore the signals: they can come faster than Python handles one, and handlers
    that interrupt each other pile up.  A SIGHUP that the parent process ignored, as nohup does, stays ignored.
    """
    ends = [number for number in _END if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]

    def on_signal(number: int, _frame: object) -> None:
        for ending in ends:
            signal.signal(ending, signal.SIG_IGN)
        act(number)

    for number in ends:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END)
    try:
        yield
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)

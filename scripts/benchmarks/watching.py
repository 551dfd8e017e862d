"""fsmount top in a terminal."""

import os
import pty
import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple


class Watched(NamedTuple):
    seconds: float
    #: Processor seconds.
    processor: float


def watched(mountpoint: Path, looks: int, interval: float) -> Watched:
    """Runs `fsmount top` for this number of screens, with at least this many seconds between two."""
    command = [sys.executable, "-m", "fsmount", "top", str(mountpoint), "-n", str(looks), "-d", str(interval)]
    start = perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(command[0], command, os.environ | {"TERM": "xterm-256color"})
        finally:
            os._exit(127)
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:  # the last process has closed the terminal
        pass
    _, status, used = os.wait4(pid, 0)
    os.close(terminal)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return Watched(perf_counter() - start, used.ru_utime + used.ru_stime)

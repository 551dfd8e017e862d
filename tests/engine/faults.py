"""A package whose engine has fault points, and orders for processes that use it: where to die or to stop."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

from tests.mounts import eventually

CHECKOUT = Path(__file__).parent.parent.parent
ORDERS = struct.Struct("ii120s")  # as in fault_orders.c
ANYBODY = -1


def build(directory: Path) -> None:
    """The package, built with fault points, in a directory."""
    directory.mkdir()
    shutil.copytree(CHECKOUT / "fsmount", directory / "fsmount", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, directory)
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_clib", "build_ext", "--inplace"],
        cwd=directory,
        env={**os.environ, "FSMOUNT_FAULT_POINTS": str(Path(__file__).with_name("fault_orders.c"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class FaultOrders:
    """What is to happen; the processes have its `path` in FSMOUNT_FAULT_ORDERS as they start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(ORDERS.size))
        with path.open("r+b") as file:
            self._given = mmap.mmap(file.fileno(), ORDERS.size)

    def give(self, pid: int, what: signal.Signals, place: str) -> None:
        """The process is to send itself the signal when it next passes "function/done"."""
        # the pid last: it is what the process looks at first
        self._given[4 : ORDERS.size] = ORDERS.pack(0, what, place.encode())[4:]
        self._given[:4] = struct.pack("i", pid)

    @property
    def carried_out(self) -> bool:
        return not any(self._given[:4])

    def wait(self) -> None:
        eventually(lambda: self.carried_out, within=30, what="the order is carried out")

    def close(self) -> None:
        self._given.close()

"""A package whose engine has fault points, and orders to its processes: where to die or to stop."""

from __future__ import annotations

import ctypes
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
GENERATED = CHECKOUT / "build" / "cython"
ORDERS = struct.Struct("ii120s")  # as in fault_orders.c
ANYBODY = -1


def build(directory: Path) -> ctypes.CDLL:
    """Builds the package with fault points in a directory, and returns the engine in it."""
    directory.mkdir()
    shutil.copytree(CHECKOUT / "fsmount", directory / "fsmount", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, directory)
    if GENERATED.exists():  # so that Cython has nothing to do
        shutil.copytree(GENERATED, directory / "build" / "cython")
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_clib", "build_ext", "--inplace"],
        cwd=directory,
        env={**os.environ, "FSMOUNT_FAULT_POINTS": str(Path(__file__).with_name("fault_orders.c"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (engine,) = (directory / "fsmount/engine").glob("_binding.*.so")
    return ctypes.CDLL(str(engine))


class FaultOrders:
    """An order that processes read from `path`; they start with it in FSMOUNT_FAULT_ORDERS."""

    def __init__(self, path: Path, engine: ctypes.CDLL) -> None:
        self.path = path
        self._engine = engine
        path.write_bytes(bytes(ORDERS.size))
        with path.open("r+b") as file:
            self._given = mmap.mmap(file.fileno(), ORDERS.size)

    def give(self, pid: int, what: signal.Signals, place: str) -> None:
        """Orders the process to send itself the signal when it next passes "function/done"."""
        assert self.is_place(place), f"{place} is no fault point of the engine"
        # the pid last: the process reads it first
        self._given[4 : ORDERS.size] = ORDERS.pack(0, what, place.encode())[4:]
        self._given[:4] = struct.pack("i", pid)

    def is_place(self, place: str) -> bool:
        return bool(self._engine.is_fault_point(place.encode()))

    @property
    def carried_out(self) -> bool:
        return not any(self._given[:4])

    def wait(self) -> None:
        eventually(lambda: self.carried_out, within=30, what="the order is carried out")

    def close(self) -> None:
        self._given.close()

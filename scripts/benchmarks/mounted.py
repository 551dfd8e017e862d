"""fsmount and the bare file systems, each mounted in a temporary directory while a part measures."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 20.0

SOURCE = Path(__file__).parent / "baselines" / "bare.c"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2"]


@contextmanager
def fsmount_tree() -> Iterator[Path]:
    """A mounted tree of fsmount."""
    with _served([sys.executable, "-m", "fsmount", "mount", "-f"]) as mountpoint:
        yield mountpoint


@contextmanager
def bare_tree() -> Iterator[Path]:
    """A mounted bare file system."""
    with _served([sys.executable, "-m", "benchmarks.baselines.bare"]) as mountpoint:
        yield mountpoint


@contextmanager
def bare_tree_in_c() -> Iterator[Path]:
    """A mounted bare file system in C; it is compiled first."""
    with tempfile.TemporaryDirectory(prefix="fsmount-bench-") as directory:
        program = str(Path(directory) / "bare")
        library = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "fuse3"], check=True, stdout=subprocess.PIPE, text=True
        )
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, *FLAGS, str(SOURCE), *library.stdout.split(), "-o", program], check=True)
        with _served([program]) as mountpoint:
            yield mountpoint


@contextmanager
def _served(command: Sequence[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fsmount-bench-") as directory:
        mountpoint = Path(directory) / "tree"
        mountpoint.mkdir()
        server = subprocess.Popen([*command, str(mountpoint)], stdin=subprocess.DEVNULL)
        try:
            if not _mounted(mountpoint, server):
                raise RuntimeError(f"nothing was mounted by {' '.join(command)}")
            yield mountpoint
        finally:
            server.terminate()
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
                subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=False)


def _mounted(mountpoint: Path, server: subprocess.Popen[bytes]) -> bool:
    """Waits until the mount is there; RuntimeError: its process has ended."""
    deadline = time.monotonic() + PATIENCE
    outside = mountpoint.parent.stat().st_dev
    while mountpoint.stat().st_dev == outside:
        if server.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

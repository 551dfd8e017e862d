"""An fsmount daemon in the background that a part can kill and mount again."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsmount import Tree
from fsmount.admin import region_path

from .mounted import PATIENCE


class Daemon:
    def __init__(self, mountpoint: Path, *options: str) -> None:
        self.mountpoint = mountpoint
        self._options = options

    def mount(self) -> float:
        """The seconds that the command takes."""
        start = time.perf_counter()
        self._run("mount", *self._options)
        return time.perf_counter() - start

    def unmount(self) -> None:
        self._run("umount")

    def _run(self, command: str, *options: str) -> None:
        subprocess.run([sys.executable, "-m", "fsmount", command, *options, str(self.mountpoint)], check=True)

    @property
    def region(self) -> Path:
        found = region_path.find(str(self.mountpoint))
        if found is None:
            raise RuntimeError(f"{self.mountpoint} has no region")
        return Path(found)

    @property
    def pid(self) -> int:
        with Tree.open(self.region) as tree:
            return tree.daemon.pid if tree.daemon else 0

    @property
    def memory(self) -> int:
        """Resident bytes, including those of the region."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"{self.mountpoint} has no daemon")

    @property
    def processor_time(self) -> float:
        """Processor seconds of the daemon."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Kills the daemon and waits for its end."""
        process = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], PATIENCE)
        finally:
            os.close(process)

    def discard(self) -> None:
        """Unmounts, whatever the tree holds."""
        self.kill()
        subprocess.run(["fusermount3", "-uz", str(self.mountpoint)], check=False)
        self.region.unlink()
        region_path.forget(str(self.mountpoint))


@contextmanager
def daemon(*options: str) -> Iterator[Daemon]:
    """A tree with a daemon in the background."""
    with tempfile.TemporaryDirectory(prefix="fsmount-bench-") as directory:
        mountpoint = Path(directory).resolve() / "tree"
        mountpoint.mkdir()
        served = Daemon(mountpoint, *options)
        served.mount()
        try:
            yield served
            served.unmount()
        except BaseException:
            served.discard()
            raise

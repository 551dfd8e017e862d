"""The control files of cgroup v1 for memory, in groups without processes that exist while a part measures."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .admission import PROCESSES, Join, Limits, Unavailable


def hierarchy() -> Path:
    """The mount point of cgroup v1's memory hierarchy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mountpoint, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(mountpoint)
    raise Unavailable("no cgroup v1 memory hierarchy is mounted")


class ControlFiles:
    """A write of the leaf's limit and a read of the parent's usage: cgroup v1 has no request for a charge."""

    def __init__(self, group: Path, process: int, limit: int) -> None:
        self._opened = (group / str(process) / "memory.limit_in_bytes").open("r+b", buffering=0)
        self._opened_too = (group / "memory.usage_in_bytes").open("rb", buffering=0)
        self._limit = self._opened.fileno()
        self._usage = self._opened_too.fileno()
        self._text = b"%d\n" % limit

    def charge(self, amount: int) -> None:
        os.pwrite(self._limit, self._text, 0)

    def uncharge(self, amount: int) -> None:
        os.pread(self._usage, 32, 0)


@contextmanager
def control_files(limits: Limits) -> Iterator[Join]:
    group = hierarchy() / f"fsmount-bench-{os.getpid()}"
    leaves = [group / str(process) for process in range(PROCESSES)]
    try:
        try:
            for directory in (group, *leaves):
                directory.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(limits.parent))
        except OSError as error:
            raise Unavailable(str(error)) from None
        yield lambda process: ControlFiles(group, process, limits.leaf)
    finally:
        for directory in (*leaves, group):
            with suppress(OSError):
                directory.rmdir()

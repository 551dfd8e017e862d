"""What a daemon takes of the machine, so that a test can say that work has left nothing behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import NamedTuple

from tests.mounts import eventually


class Footprint(NamedTuple):
    """Of one process.  Memory is what is its own: the region's pages are the tree's, not the daemon's."""

    memory: int  # bytes of RssAnon
    descriptors: int
    threads: int
    mappings: int  # of files: a region that nobody unmapped is one more

    @classmethod
    def of(cls, pid: int) -> Footprint:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        mapped = {line.split(None, 5)[5] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/" in line}
        return cls(
            int(status["RssAnon"].split()[0]) << 10,
            len(os.listdir(f"/proc/{pid}/fd")),
            int(status["Threads"]),
            len(mapped),
        )


def leaves_nothing(pid: int, before: Footprint, *, tolerance: float = 0.05) -> Footprint:
    """
    Waits until the process takes what it took before, memory within the tolerance.

    `before` is to be taken after a warm-up: a round of the very work, which fills caches and pools of threads. Idle
    threads end by themselves after 10 s at most, so there may be as many as a pool has kept.
    """
    gc.collect()  # what this process has open at the daemon and forgot to close
    seen: list[Footprint] = []

    def settled() -> bool:
        seen.append(now := Footprint.of(pid))
        return (
            now.memory <= before.memory * (1 + tolerance)
            and now.descriptors <= before.descriptors
            and now.mappings <= before.mappings
        )

    eventually(settled, what=f"the footprint {before} again, not {Footprint.of(pid)}")
    return seen[-1]

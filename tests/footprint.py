"""The resources that a daemon occupies, so that a test can check that work leaves nothing behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import NamedTuple

from tests.mounts import eventually


class Footprint(NamedTuple):
    """The footprint of one process, without the pages of the region, which belong to the tree."""

    memory: int  # bytes of RssAnon
    descriptors: int
    threads: int
    mappings: int  # files: each region that stays mapped is one more

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
    Waits until the footprint of the process is as before, with memory within the tolerance.

    Take `before` after a warm-up: a round of the same work, which fills caches and pools of threads. Idle threads end
    within 10 s, so the number of threads does not count.
    """
    gc.collect()  # closes forgotten files of this process at the daemon
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

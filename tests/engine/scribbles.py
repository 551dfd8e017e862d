"""Overwrites regions with nonsense and uses them: any error is allowed, but no crash and no hang.

usage: python -m tests.engine.scribbles DIRECTORY SEED FIRST END

Each round from FIRST to END depends only on the seed and its number, so one round can be repeated alone.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from fsmount import Tree
from fsmount.engine import LEASE, PROCESS, Request, request
from fsmount.shm import Group, set_patience

SELF = os.getpid()

VALUES = [0, 1, 2, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def furnish(path: Path) -> None:
    """A region with something in every part, stock included."""
    tree = Tree.create(path, ["memory", "tokens:count"], groups=16, holders=4, cells=32)
    a = tree.root.mkdir("a")
    groups = [a, a.mkdir("b"), a.child("b").mkdir("c"), tree.root.mkdir("d"), tree.root.mkdir("gone")]
    tree.root.rmdir("gone")
    a["memory"].limit = 1 << 30
    groups[3]["tokens"].charge_common(5)
    groups[2].set_attributes(1, 1, mode=0o600)
    region = tree.region
    for group in groups[:4]:
        attached = group.attach(on_exit="keep" if group is a else "release")
        for resource in attached.resources:
            attached[resource].charge(1000)
            attached[resource].uncharge(600)
    for amount in (1 << 30, 1 << 20):
        request((groups[1]["memory"],), (amount,))
    lease = region.holder_create(SELF, 1, LEASE, 0)
    region.holder_join_one(lease, groups[1].id, 0)
    path.with_suffix(".copy").write_bytes(path.read_bytes())  # as a death would leave it
    tree.close()


def touch_everything(path: Path, source: random.Random) -> None:
    """Runs every operation twice, in random order; each may raise any OSError."""
    try:
        tree = Tree.open(path)
    except OSError:
        return
    region = tree.region
    ids = [source.choice([0, 1, 2, 3, 4, 5]) | source.choice([0, 1, 2]) << 32 for _ in range(4)]
    group, other = tree.group(ids[0]), tree.group(ids[1])
    holders: list[int] = []
    attached: list[Group] = []
    asked: list[Request | None] = []
    operations: list[Callable[[], object]] = [
        tree.check,
        tree.repair,
        tree.reap,
        tree.holders,
        lambda: group.mkdir(f"n{source.randrange(100)}"),
        group.remove,
        other.remove,
        lambda: tree.root.rename("a", f"r{source.randrange(100)}"),
        lambda: tree.root.child("a"),
        group.children,
        lambda: tree.snapshot(source.choice(["memory", "tokens"])),
        lambda: other.path,
        lambda: group["memory"].stat(),
        lambda: other["tokens"].usage,
        lambda: other["memory"].max_usage,
        lambda: setattr(group["memory"], "limit", source.randrange(1 << 40)),
        lambda: setattr(other["memory"], "soft_limit", 5),
        lambda: group["memory"].charge_common(100),
        lambda: group["memory"].uncharge_common(50),
        lambda: other["memory"].force_empty(),
        lambda: group["memory"].reset_max_usage(),
        lambda: group["tokens"].holders(),
        lambda: group.set_attributes(1, 3, mode=0o600),
        lambda: group.attributes(2),
        lambda: attached.append(group.attach()),
        lambda: attached.append(other.attach()),
        lambda: attached[0]["memory"].charge(10),
        lambda: attached[0]["memory"].charge(1 << 20),
        lambda: asked.append(request((attached[0]["memory"], attached[0]["tokens"]), (1 << 20, 5))),
        lambda: asked[0] and asked[0].wait(0.001),
        lambda: asked[0] and asked[0].end(),
        lambda: attached[-1]["memory"].charge(1 << 30, wait=True, timeout=0.001),
        lambda: attached[-1]["tokens"].charge_nofail(1 << 20),
        lambda: attached[-1]["memory"].uncharge(5),
        lambda: attached[0]["memory"].give(2),
        lambda: attached[0]["memory"].take(1),
        lambda: attached[0]["memory"].held,
        lambda: attached[0].close(),
        lambda: holders.append(region.holder_create(SELF, 1, PROCESS, 1)),
        lambda: region.holder_join(holders[0], ids[2]),
        lambda: region.holder_leave(holders[0], ids[2], 1),
        lambda: region.holder_end(holders[0]),
        lambda: region.holder_get(ids[3]),
        lambda: setattr(tree, "batch", source.choice([0, 64, "auto"])),
        lambda: tree.daemon,
    ]
    source.shuffle(operations)
    for operation in operations + operations:
        try:
            operation()
        except (OSError, LookupError, ValueError):  # LookupError, ValueError: the object does not exist, or is closed
            pass
    try:
        tree.close()
    except OSError:
        pass


def scribble(good: bytes, used: list[int], source: random.Random) -> bytes:
    """A copy with some words replaced."""
    data = bytearray(good)
    for _ in range(source.choice([1, 1, 2, 5, 50])):
        at = source.choice(used) + source.randrange(0, 64, 4)
        value = source.choice([*VALUES, source.randrange(64), source.randrange(1 << 32)])
        data[at : at + 4] = struct.pack("=I", value)
    return bytes(data)


def main(directory: str, seed: int, first: int, end: int) -> None:
    set_patience(0.02)
    path = Path(directory) / "region"
    furnish(path)
    good = path.with_suffix(".copy").read_bytes()
    used = [start for start in range(0, len(good), 64) if any(good[start : start + 64])]
    for number in range(first, end):
        print(f"the last one: python -m tests.engine.scribbles {directory} {seed} {number} {number + 1}", flush=True)
        source = random.Random(f"{seed} {number}")
        path.write_bytes(scribble(good, used, source))
        signal.alarm(20)
        touch_everything(path, source)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

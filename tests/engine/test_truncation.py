"""The file of a mapped region is truncated: an error, and not SIGBUS."""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fsmount import RegionCorrupt, Tree
from fsmount.shm import Group


def check(group: Group) -> None:
    """A check returns, whatever it finds."""
    if found := group.tree.check():
        raise RegionCorrupt(found[-1], group.tree.path)


USES: dict[str, Callable[[Group], object]] = {
    "charge": lambda group: group["memory"].charge(1 << 20),
    "try_charge": lambda group: group["memory"].try_charge(1 << 20),
    "uncharge": lambda group: group["memory"].uncharge(1000),
    "usage": lambda group: group["memory"].usage,
    "limit": lambda group: setattr(group["memory"], "limit", 5),
    "stat": lambda group: group["memory"].stat(),
    "mkdir": lambda group: group.mkdir("new"),
    "children": lambda group: group.children(),
    "check": check,
    "repair": lambda group: group.tree.repair(),
}


@pytest.mark.parametrize("length", [0, 100, 4096, 40960, -4096])
@pytest.mark.parametrize("use", USES)
def test_each_use_of_a_truncated_region_is_an_error_or_still_right(tmp_path: Path, use: str, length: int) -> None:
    path = tmp_path / "region"
    tree = Tree.create(path, groups=64, holders=4, cells=64)
    group = tree.root.mkdir("group").attach()
    group["memory"].charge(1000)
    size = path.stat().st_size
    os.truncate(path, length % size)
    try:
        USES[use](group)
    except RegionCorrupt as error:
        assert error.region == str(path)
    else:
        assert length not in (0, 100, 4096) or use == "uncharge"  # into the stock of its cell
    os.truncate(path, size)
    try:
        tree.close()
    except RegionCorrupt:
        pass


def test_a_truncated_region_stays_an_error_in_processes_that_saw_it(tmp_path: Path) -> None:
    path = tmp_path / "region"
    tree = Tree.create(path, groups=64, holders=4, cells=64)
    group = tree.root.attach()
    group["memory"].charge(1000)
    size = path.stat().st_size
    os.truncate(path, 0)
    for _ in range(3):
        with pytest.raises(RegionCorrupt, match="truncated"):
            group["memory"].charge(1 << 40)
        os.truncate(path, size)
    with Tree.create(tmp_path / "other") as other, other.root.attach() as attached:
        attached["memory"].charge(5)
        assert other.root["memory"].usage == 5


def test_a_bus_error_elsewhere_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        signal.alarm(20)
        with Tree.create(tmp_path / "region"), path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 8192)
            os.truncate(path, 0)
            memory[5000]
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGBUS

"""Exhausted resources of a mounted tree: a clear error, no change, and normal work when there is room again."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from fsmount import Tree
from tests.holder_process import HolderProcess
from tests.mounts import GroupFiles, Mount, eventually, fails_with, mounted

# ---- the daemon's descriptors


@contextlib.contextmanager
def room_for_descriptors(pid: int, more: int) -> Iterator[None]:
    """The process can open `more` descriptors until the block ends."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    free = (number for number in count() if number not in used)
    limit = next(islice(free, more, None))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def watched_processes(pid: int) -> int:
    """The number of pidfds that a daemon watches with epoll; a pidfd that it has just opened may not count yet."""
    files = Path(f"/proc/{pid}/fd")
    pidfds, registered = set(), set()
    for name in os.listdir(files):
        with contextlib.suppress(FileNotFoundError):
            if "pidfd" in os.readlink(files / name):
                pidfds.add(name)
            registered.update(re.findall(r"(?m)^tfd: +(\d+)", Path(f"/proc/{pid}/fdinfo/{name}").read_text()))
    return len(pidfds & registered)


def test_open_fails_without_a_descriptor_for_the_daemon_and_open_files_keep_working() -> None:
    with mounted() as mount:
        assert mount.daemon is not None
        group = mount.root.mkdir("group")
        with group.lease() as lease, HolderProcess(group.path, transport="memory") as process:
            lease.write("100")
            process.charge(50)
            pid = mount.daemon.pid
            before = group.tree_counters()
            eventually(lambda: watched_processes(pid) == 1, what="the process is watched")
            with room_for_descriptors(pid, 0):
                with fails_with(errno.ENFILE):
                    group.lease()
                with fails_with(errno.ENFILE):
                    os.open(group / ".fsmount", os.O_RDWR)
                for transport in ("memory", "auto"):
                    with fails_with(errno.ENFILE):
                        HolderProcess(group.path, transport=transport)
                with HolderProcess(group.path, transport="files") as refused, fails_with(errno.ENFILE):
                    refused.charge(1)  # this opens the lease
                assert group.tree_counters() == before
                # no other operation needs a descriptor
                group.set_limit(1000)
                group.charge(1)
                child = group.mkdir("child")
                os.chmod(child / "memory.limit_in_bytes", 0o600)
                os.rmdir(child.path)
                lease.write("+1")
                process.charge(1)
                assert group.usage == 153
                with fails_with(errno.ENOMEM):
                    lease.write("+1000")
            with group.lease() as late, HolderProcess(group.path) as another:
                late.write("1")
                another.charge(1)
                assert group.usage == 155
        eventually(lambda: group.usage == 1)
        group.remove()


def test_holders_leave_the_daemon_its_descriptors_and_are_still_released() -> None:
    with mounted() as mount:
        assert mount.daemon is not None
        group = mount.root.mkdir("group")
        with room_for_descriptors(mount.daemon.pid, 18), contextlib.ExitStack() as stack:
            processes = [stack.enter_context(HolderProcess(group.path, transport="memory")) for _ in range(6)]
            for process in processes:
                process.charge(10)
            with group.lease() as lease:
                lease.write("5")
                assert group.usage == 65
            for process in processes:
                process.kill()
            eventually(group.empty, what="the charges of unwatched holders are released")
        group.remove()


# ---- the region's capacities, through the mount


def test_a_region_full_of_any_kind_refuses_more_and_keeps_working() -> None:
    with mounted("--groups", "4", "--holders", "1", "--cells", "3") as mount:
        one, two, three = (mount.root.mkdir(name) for name in ("one", "two", "three"))
        with HolderProcess(one.path, transport="memory") as process, one.lease() as first, two.lease() as second:
            process.charge(1)
            first.write("2")
            second.write("3")
            with three.lease() as third:
                before = mount.root.tree_counters()
                for text in ("4", "0", "+1", "take 0"):
                    with fails_with(errno.ENOSPC):
                        third.write(text)
                with fails_with(errno.ENOSPC):
                    HolderProcess(three.path, transport="memory")
                with fails_with(errno.ENOSPC):
                    mount.root.mkdir("four")
                with fails_with(errno.ENOSPC):
                    three.mkdir("four")
                assert mount.root.tree_counters() == before
                assert third.held == 0
                second.close()
                eventually(lambda: two.usage == 0)
                third.write("4")
                assert (third.held, mount.root.usage) == (4, 7)
            first.write("20")
            process.charge(10)
            assert mount.root.usage == 31
        eventually(mount.root.empty)
        for group in (one, two, three):
            group.remove()


def test_a_hundred_refused_groups_cost_nothing_and_block_no_request() -> None:
    with mounted("--groups", "3") as mount:
        group = mount.root.mkdir("group")
        full = group.mkdir("full")
        for number in range(100):
            with fails_with(errno.ENOSPC):
                full.mkdir(f"{number}")
        with fails_with(errno.EEXIST):
            group.mkdir("full")
        with fails_with(errno.EINVAL):
            full.mkdir("a\nb")
        os.rename(full.path, group / "renamed")
        assert os.stat(group.path).st_nlink == 3
        os.rmdir(group / "renamed")
        group.mkdir("again").remove()
        group.remove()


# ---- the memory that a region lies in


class Memory:
    """A small file system for regions, which a test can fill."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.filler = path / "filler"

    def fill(self) -> None:
        with self.filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        self.filler.unlink()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    path = tmp_path / "memory"
    path.mkdir(mode=0o700)
    for directory in (path, *path.parents):
        if directory.stat().st_mode & 0o022 and not directory.stat().st_mode & 0o1000:
            directory.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(path)], check=True)
    yield Memory(path)
    subprocess.run(["umount", str(path)], check=True)


def everything(group: GroupFiles) -> list[Any]:
    """All that can be read of a group and the groups below it."""
    seen: list[Any] = []
    for each in group.walk():
        for name in sorted(os.listdir(each.path)):
            status = os.stat(each / name)
            seen.append((name, status.st_mode, status.st_uid, status.st_nlink))
        seen += [each.read(name) for name in ("usage", "limit", "soft_limit", "max_usage", "failcnt", "holders")]
        seen.append(each.counters())
    return seen


def until_refused(action: Any) -> int:
    """The number of successes of the action until there is no room; it may still use pages that exist."""
    for number in range(10_000):
        try:
            action(number)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            return number
    raise AssertionError("it was never refused")


@pytest.mark.root
def test_in_full_shared_memory_growth_is_enospc_and_the_rest_keeps_working(memory: Memory) -> None:
    region = memory.path / "region"
    with mounted("--region", str(region)) as mount:
        group = mount.root.mkdir("group")
        group.set_limit(1_000_000)
        with HolderProcess(group.path, transport="memory") as process, group.lease() as lease:
            process.charge(100)
            lease.write("50")
            memory.fill()
            made = until_refused(lambda number: group.mkdir(f"group{number}"))
            leases = []
            with contextlib.ExitStack() as stack:
                leases = [stack.enter_context(group.lease()) for _ in range(400)]
                written = until_refused(lambda number: leases[number].write("1"))
                until_refused(lambda number: os.chmod(group / f"group{number}" / "memory.stat", 0o400))
                before = everything(mount.root)
                assert group.usage == 150 + written
                for _ in range(3):
                    with fails_with(errno.ENOSPC):
                        group.mkdir("one too many")
                    with fails_with(errno.ENOSPC):
                        leases[written].write("1")
                assert everything(mount.root) == before
                assert not mount.ended
                # an existing holder needs no memory
                process.charge(1000)
                process.uncharge(1000)
                lease.write("+10")
                lease.write("-10")
                group.charge(7)
                group.uncharge(7)
                assert group.usage == 150 + written
                with Tree.open(region) as tree:
                    assert tree.check() == []
                memory.empty()
                group.mkdir("one more")
                leases[written].write("1")
                os.chmod(group / "one more" / "memory.stat", 0o400)
                assert group.usage == 151 + written
        eventually(group.empty)
        assert len(group.children()) == made + 1
        group.remove()


@pytest.mark.root
def test_a_daemon_takes_over_a_region_in_full_shared_memory(memory: Memory) -> None:
    with mounted("--region", str(memory.path / "region")) as mount:
        group = mount.root.mkdir("group")
        group.charge(5)
        with HolderProcess(group.path, transport="memory") as process:
            process.charge(10)
            memory.fill()
            mount.kill()
            process.charge(1)
            mount.start()
            assert group.usage == 16
            assert os.stat(group / "memory.stat").st_uid == 0
        eventually(lambda: group.usage == 5)
        memory.empty()
        group.remove()


@pytest.mark.root
def test_a_mount_in_full_shared_memory_fails_and_leaves_nothing_behind(memory: Memory) -> None:
    memory.fill()
    mount = Mount()
    try:
        command = [sys.executable, "-m", "fsmount", "mount", str(mount.path), "--region", str(memory.path / "region")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert os.strerror(errno.ENOSPC) in done.stderr
        assert [path.name for path in memory.path.iterdir()] == ["filler"]
        with fails_with(errno.ENOSPC):
            partial(Tree.create, memory.path / "region")()
        assert [path.name for path in memory.path.iterdir()] == ["filler"]
    finally:
        mount.destroy()

"""Mounts with other options, and mounts whose daemon has died."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from fsmount import LockTimeout, Tree
from fsmount.shm import set_patience
from tests.companions import companion
from tests.holder_process import HolderProcess
from tests.mounts import GROUP_FILES, UNLIMITED, GroupFiles, Mount, eventually, fails_with, mounted, resource_files

pytestmark = pytest.mark.any_user


def fsmount(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmount", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# ---- resources


def test_each_resource_has_files_named_after_its_unit() -> None:
    with mounted("--resource", "disk:bytes", "--resource", "tokens:count", "--resource", "memory") as mount:
        files = {
            **resource_files("disk"),
            **resource_files("tokens", "count"),
            **resource_files("memory"),
            **GROUP_FILES,
        }
        assert set(os.listdir(mount.path)) == {*files, "metrics"}
        group = mount.root.mkdir("group")
        assert set(os.listdir(group.path)) == set(files)
        for number, resource in enumerate(mount.units, 1):
            group.charge(number, resource)
        assert [mount.root.number("usage", resource) for resource in mount.units] == [1, 2, 3]
        group.remove()


def test_the_default_resource_is_memory_in_bytes() -> None:
    with mounted() as mount:
        assert set(os.listdir(mount.path)) == {*resource_files(), *GROUP_FILES, "metrics"}


# ---- batch 0


@pytest.fixture(scope="module")
def exact() -> Iterator[Mount]:
    with mounted("--batch", "0") as mount:
        yield mount


def test_with_batch_0_nothing_is_ever_reserved_ahead(exact: Mount) -> None:
    group = exact.root.mkdir("group")
    group.set_limit(1 << 30)
    with HolderProcess(group.path) as process:
        for number in range(1, 51):
            process.charge(number)
            process.charge(3 * number)
            process.uncharge(2 * number)
            stat = group.stat()
            assert (stat["stock"], stat["batch"], stat["error_bound"]) == (0, 0, 0)
            assert stat["reserved"] == stat["usage"] == process.held
            assert group.holders()[0].stock == 0
    eventually(group.empty)
    group.remove()


def test_with_batch_0_max_usage_is_exact_for_any_operations_of_a_process(exact: Mount) -> None:
    group = exact.root.mkdir("group")
    with HolderProcess(group.path) as process:
        process.charge(123_457)
        process.uncharge(100_000)
        assert group.max_usage == 123_457
        group.write("max_usage", "0")
        assert group.max_usage == 23_457
        process.charge(1)
        process.uncharge(1)
        assert group.max_usage == 23_458
    eventually(group.empty)
    group.remove()


def test_stat_shows_the_batch_of_the_mount() -> None:
    with mounted("--batch", "64K") as mount, HolderProcess(mount.path) as process:
        process.charge(1)
        assert mount.root.stat()["batch"] == 64 << 10
        assert mount.root.usage == 1


# ---- capacities


def test_attach_without_room_for_a_holder_is_enospc_and_the_mount_lives_on() -> None:
    with mounted("--holders", "2") as mount:
        group = mount.root.mkdir("group")
        processes: list[HolderProcess] = []
        with fails_with(errno.ENOSPC):
            for _ in range(4):
                processes.append(HolderProcess(group.path, transport="memory"))
                processes[-1].charge(10)
        assert group.usage == 10 * len(processes) > 0
        processes.pop().kill()
        eventually(lambda: len(group.holders()) == len(processes))
        with HolderProcess(group.path, transport="memory") as late:
            late.charge(5)
            assert group.usage == 10 * len(processes) + 5
        for process in processes:
            process.end()
        eventually(group.empty)
        group.remove()


def test_a_charge_without_room_for_a_cell_is_enospc_and_changes_nothing() -> None:
    with mounted("--cells", "8") as mount:
        groups = [mount.root.mkdir(f"group{number}") for number in range(8)]
        leases = []
        for group in groups:
            leases += [group.lease(), group.lease()]
        written = 0
        with fails_with(errno.ENOSPC):
            for lease in leases:
                lease.write("10")
                written += 1
        assert mount.root.usage == 10 * written
        assert all(lease.held == 0 for lease in leases[written:])
        for lease in leases:
            lease.close()
        eventually(mount.root.empty)
        for group in groups:
            group.remove()


# ---- read-only


def test_a_tree_mounted_read_only_can_be_read_but_not_changed() -> None:
    with mounted("--batch", "0") as mount:
        group = mount.root.mkdir("group")
        group.set_limit(1000)
        group.charge(10)
        before = mount.root.tree_counters()
        mount.umount("--keep")
        mount.start("-o", "ro")
        assert mount.root.tree_counters() == before
        for action in (
            lambda: group.charge(1),
            lambda: group.set_limit(5),
            lambda: group.write("force_empty", "0"),
            lambda: group.lease(),
            lambda: os.mkdir(group / "child"),
            lambda: os.rmdir(group.path),
            lambda: os.rename(group.path, mount.path / "other"),
            lambda: os.chmod(group / "memory.stat", 0o600),
            lambda: os.unlink(group / "memory.stat"),
        ):
            with fails_with(errno.EROFS):
                action()
        assert mount.root.tree_counters() == before


# ---- in the background


def test_mount_returns_with_the_files_in_place_and_umount_removes_them() -> None:
    mount = Mount()
    try:
        done = fsmount("mount", mount.path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert set(os.listdir(mount.path)) == {*resource_files(), *GROUP_FILES, "metrics"}
        mount.root.charge(5)
        assert mount.root.usage == 5
        mount.root.uncharge(5)
        done = fsmount("umount", mount.path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert os.listdir(mount.path) == []
    finally:
        mount.destroy()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_unmounts_cleanly(number: signal.Signals) -> None:
    with mounted() as mount:
        assert mount.daemon is not None
        mount.daemon.send_signal(number)
        assert mount.daemon.wait(60) == 0
        assert not mount.unexpected_log()
        assert os.listdir(mount.path) == []
        mount.daemon = None


def test_umount_with_live_holders_is_ebusy_and_changes_nothing() -> None:
    with mounted() as mount, HolderProcess(mount.path) as process:
        process.charge(10)
        done = fsmount("umount", mount.path)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith(f"fsmount: {mount.path}: ")
        assert done.stderr.count("\n") == 1
        mount.check()
        process.charge(1)
        assert mount.root.usage == 11


# ---- the death of the daemon


def test_every_charge_survives_a_killed_daemon_and_a_new_mount() -> None:
    with mounted("--resource", "memory", "--resource", "tokens:count") as mount:
        group = mount.root.mkdir("web")
        child = group.mkdir("größe")
        group.set_limit(1 << 30)
        group.write("soft_limit", 500)
        child.set_limit(5000)
        child.charge(4096)
        child.charge(3, "tokens")
        with fails_with(errno.ENOMEM):
            child.charge(905)
        child.uncharge(96)
        before = mount.root.tree_counters()
        mount.kill()
        with fails_with(errno.ENOTCONN):
            os.listdir(mount.path)
        mount.start()
        assert mount.root.tree_counters() == before
        child.uncharge(4000)
        child.uncharge(3, "tokens")
        group.remove()


def test_a_process_charges_without_a_daemon_and_the_next_daemon_knows_it() -> None:
    with mounted() as mount:
        group = mount.root.mkdir("group")
        group.set_limit(1 << 20)
        with HolderProcess(group.path, transport="memory") as process, HolderProcess(group.path) as doomed:
            process.charge(1000)
            doomed.charge(77)
            mount.kill()
            process.charge(200)
            process.uncharge(100)
            with fails_with(errno.ENOMEM):
                process.charge(1 << 20)
            doomed.kill()
            mount.start()
            eventually(lambda: group.usage == 1100)
            assert [(line.pid, line.held) for line in group.holders()] == [(process.pid, 1100)]
            process.charge(1)
            assert (group.usage, group.failcnt) == (1101, 1)
            with fails_with(errno.EBUSY):
                os.rmdir(group.path)
        eventually(group.empty)
        group.remove()


def test_a_process_that_dies_after_a_takeover_is_released() -> None:
    with mounted() as mount:
        group = mount.root.mkdir("group")
        process = HolderProcess(group.path, transport="memory")
        process.charge(1000)
        mount.kill()
        mount.start()
        assert group.usage == 1000
        process.kill()
        eventually(group.empty)
        group.remove()


def test_umount_keep_leaves_everything_for_the_next_mount() -> None:
    with mounted() as mount:
        group = mount.root.mkdir("group")
        group.charge(10)
        with HolderProcess(group.path, transport="memory") as process:
            process.charge(500)
            mount.umount("--keep")
            assert os.listdir(mount.path) == []
            process.charge(5)
            mount.start()
            assert (group.usage, group.stat()["common"]) == (515, 10)
        eventually(lambda: group.usage == 10)
        group.uncharge(10)
        group.remove()


def test_umount_without_keep_forgets_the_tree() -> None:
    with mounted() as mount:
        mount.root.mkdir("group").charge(10)
        mount.umount()
        mount.start()
        assert mount.root.children() == []
        assert (mount.root.usage, mount.root.limit) == (0, UNLIMITED)


def test_two_mounts_are_two_trees(exact: Mount) -> None:
    with mounted() as other:
        group = exact.root.mkdir("group")
        group.charge(10)
        assert (exact.root.usage, other.root.usage, other.root.children()) == (10, 0, [])
        group.remove()


# ---- a process that holds the region's lock and does not run

HAMMER = """
import sys
import fsmount
memory = fsmount.attach(sys.argv[1], transport="memory")["memory"]
print("up", flush=True)
while True:
    memory.charge(1)
    memory.uncharge(1)
"""


@contextlib.contextmanager
def stopped_in_the_lock(mount: Mount, group: GroupFiles, process: subprocess.Popen[bytes]) -> Iterator[Future[None]]:
    """Stops the process at random moments until it holds the lock; yields another process's write that waits for it."""

    def is_in_the_lock() -> bool:
        try:
            tree.root["memory"].usage  # noqa: B018
        except LockTimeout as error:
            return error.pid == process.pid
        return False

    rng = random.Random(1)
    assert mount.region is not None
    set_patience(0.05)
    try:
        with Tree.open(mount.region) as tree, ThreadPoolExecutor(1) as pool:
            for _ in range(1000):
                end = time.monotonic() + rng.uniform(0.0005, 0.01)
                while time.monotonic() < end:
                    pass
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                try:
                    if is_in_the_lock():
                        yield pool.submit(group.set_limit, 5000)
                        return
                finally:
                    process.send_signal(signal.SIGCONT)
    finally:
        set_patience(3)
    pytest.fail("never stopped while it held the lock")


def test_a_process_stopped_in_the_lock_delays_others_by_seconds_and_blocks_no_handler() -> None:
    with mounted("--batch", "0") as mount:
        mount.expected_log = [r"lock is held by process \d+"]
        group = mount.root.mkdir("group")
        names = ("usage", "limit", "stat", "holders", "failcnt", "max_usage", "soft_limit")
        files = [os.open(group.file(name), os.O_RDONLY) for name in names]
        process = subprocess.Popen(companion(sys.executable, "-c", HAMMER, group.path), stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            with stopped_in_the_lock(mount, group, process) as writing, ThreadPoolExecutor(len(files)) as pool:
                start = time.monotonic()
                reading = [pool.submit(os.pread, fd, 4096, 0) for fd in files]
                answers = [writing.exception(), *(answer.exception() for answer in reading)]
                # If a handler waited, the requests would wait one after the other.
                assert time.monotonic() - start < 20
                assert {type(error) for error in answers} <= {TimeoutError, type(None)}
                assert any(answers)
            assert f"process {process.pid}" in mount.log.read_text()
            assert group.usage <= 1
            group.set_limit(4000)
            assert [os.pread(fd, 4096, 0) for fd in files[1:2]] == [b"4000\n"]
        finally:
            process.kill()
            process.communicate()
            for fd in files:
                os.close(fd)
        eventually(group.empty)
        group.remove()


def test_names_attributes_and_limits_stay_readable_while_a_process_is_stopped_in_the_lock() -> None:
    """An operation that needs the lock fails, like the last one here."""
    with mounted("--batch", "0") as mount:
        mount.expected_log = [r"lock is held by process \d+"]
        group, other = mount.root.mkdir("group"), mount.root.mkdir("other")
        group.set_limit(5000)
        other.mkdir("inner").set_limit(77)
        process = subprocess.Popen(companion(sys.executable, "-c", HAMMER, group.path), stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            with stopped_in_the_lock(mount, group, process) as writing:
                for one, limit in ((mount.root, UNLIMITED), (group, 5000), (other, UNLIMITED)):
                    assert (one.limit, one.soft_limit, one.failcnt) == (limit, UNLIMITED, 0)
                assert set(os.listdir(mount.path)) == {*resource_files(), *GROUP_FILES, "metrics", "group", "other"}
                assert not (other / "missing").exists()
                assert (other.child("inner").limit, os.stat(other / "inner").st_nlink) == (77, 2)
                listed = subprocess.run(["ls", "-lR", str(mount.path)], capture_output=True, text=True, check=True)
                assert listed.stdout.count("memory.limit_in_bytes") == 4
                with fails_with(errno.ETIMEDOUT):
                    _ = group.usage
            assert f"process {process.pid}" in mount.log.read_text()
            eventually(writing.done)
            assert group.usage <= 1
        finally:
            process.kill()
            process.communicate()
        eventually(group.empty)
        mount.root.child("other").remove()
        group.remove()


# ---- an overwritten region


def test_no_handler_ends_the_mount_on_an_overwritten_region() -> None:
    with mounted("--groups", "64", "--cells", "256") as mount:
        # Errors must be logged here.
        mount.expected_log = [""]
        groups: list[GroupFiles] = []
        for number in range(8):
            groups.append(mount.root.mkdir(f"group{number}"))
            groups.append(groups[-1].mkdir("child"))
            groups[-1].charge(1000 + number)
        region = Path(json.loads((mount.path / ".fsmount").read_bytes())["region"])
        size = region.stat().st_size
        with region.open("r+b") as file:
            # The header stays, or the file is no region any more.
            for offset in range(4096, size, 4096):
                file.seek(offset)
                file.write(b"\xff\x00\x5a\xff" * 256)
        answers: set[int] = set()

        def attempt(path: Path) -> None:
            for action in (
                lambda: os.stat(path),
                lambda: os.listdir(path),
                lambda: path.read_bytes(),
                lambda: path.write_bytes(b"5"),
                lambda: os.mkdir(path),
                lambda: os.rmdir(path),
                lambda: os.rename(path, path.with_name("renamed")),
            ):
                try:
                    action()
                except OSError as error:
                    answers.add(error.errno or 0)

        for group in [mount.root, *groups]:
            for name in ("", "child", "new", *resource_files()):
                attempt(group / name)
        assert errno.ENOTCONN not in answers
        assert answers & {errno.EUCLEAN, errno.EIO}
        assert mount.daemon is not None
        assert not mount.ended
        mount.daemon.terminate()
        mount.daemon.wait(60)
        mount.daemon = None

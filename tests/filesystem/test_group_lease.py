"""lease: an open file that holds charges of all resources, and changes several at once or none."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount import Refusal
from tests.mounts import GroupFiles, eventually, fails_with, mounted


class GroupLease:
    """An open lease of all resources."""

    def __init__(self, group: GroupFiles) -> None:
        self.fd = os.open(group / "lease", os.O_RDWR)

    def write(self, text: str) -> None:
        assert os.pwrite(self.fd, text.encode(), 0) == len(text)

    def read(self) -> str:
        return os.pread(self.fd, 4096, 0).decode()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


@pytest.fixture
def lease(group: GroupFiles) -> Iterator[GroupLease]:
    opened = GroupLease(group)
    yield opened
    opened.close()
    eventually(lambda: group.stat()["holders"] == group.stat("tokens")["holders"] == 0)
    for resource in ("memory", "tokens"):
        group.write("force_empty", 1, resource)


def usages(group: GroupFiles) -> tuple[int, int]:
    return group.usage, group.number("usage", "tokens")


def commons(group: GroupFiles) -> tuple[int, int]:
    return group.stat()["common"], group.stat("tokens")["common"]


def test_a_new_lease_holds_nothing_of_any_resource_and_is_no_holder(group: GroupFiles, lease: GroupLease) -> None:
    assert lease.read() == "memory=0 tokens=0\n"
    assert group.holders() == group.holders("tokens") == []


def test_named_resources_are_set_or_adjusted_and_the_others_stay(group: GroupFiles, lease: GroupLease) -> None:
    held = []
    for text in ("memory=8G tokens=4", "tokens=+3", " memory=-4G\n\ttokens=1 ", "tokens=0x10 memory=1k", "tokens=0"):
        lease.write(text)
        held.append((lease.read(), usages(group)))
    assert held == [
        ("memory=8589934592 tokens=4\n", (8 << 30, 4)),
        ("memory=8589934592 tokens=7\n", (8 << 30, 7)),
        ("memory=4294967296 tokens=1\n", (4 << 30, 1)),
        ("memory=1024 tokens=16\n", (1024, 16)),
        ("memory=1024 tokens=0\n", (1024, 0)),
    ]


def test_a_refusal_of_one_resource_changes_none_and_counts_at_the_group_that_refused(
    group: GroupFiles, lease: GroupLease
) -> None:
    child = group.mkdir("child")
    group.set_limit(10, "tokens")
    below = GroupLease(child)
    below.write("memory=100 tokens=7")
    for text in ("memory=200 tokens=11", "memory=+1 tokens=+4", "memory=0 tokens=11"):
        with fails_with(errno.ENOMEM):
            below.write(text)
    assert below.read() == "memory=100 tokens=7\n" and usages(group) == (100, 7)
    assert (group.number("failcnt", "tokens"), child.number("failcnt", "tokens"), group.failcnt) == (3, 0, 0)
    (refusal,) = map(Refusal.parse, child.read("why", "tokens").splitlines())
    assert (refusal.by, refusal.pid, refusal.amount, refusal.short) == ("lease", os.getpid(), 4, 1)
    assert refusal.asked == f"{refusal.refused}/child"
    below.write("memory=200 tokens=10")
    below.close()
    eventually(lambda: usages(group) == (0, 0))


@pytest.mark.parametrize(
    "text",
    ["memory=-11 tokens=1", "tokens=1 memory=-11", "give memory=11 tokens=1", "take memory=1 tokens=3", "tokens=8E"],
)
def test_giving_back_more_than_held_is_erange_and_changes_nothing(
    group: GroupFiles, lease: GroupLease, text: str
) -> None:
    group.charge(2, "tokens")
    group.charge(1)
    lease.write("memory=10 tokens=5")
    with fails_with(errno.ERANGE):
        lease.write(text)
    assert lease.read() == "memory=10 tokens=5\n"
    assert usages(group) == (11, 7) and commons(group) == (1, 2)


@pytest.mark.parametrize(
    "text",
    (
        "\n|5|memory|memory=|=5|memory 1|memory = 1|memory=1,tokens=1|memory=1 disk=1|memory=1 memory=1|memory=max|"
        "memory=1 tokens=x|memory=+-1|memory=1 give|give give|give memory=+1|take|nofail|nofail memory=1 tokens=1|"
        "keep memory=1"
    ).split("|"),
)
def test_a_malformed_request_is_einval_and_changes_nothing(group: GroupFiles, lease: GroupLease, text: str) -> None:
    lease.write("memory=10 tokens=5")
    with fails_with(errno.EINVAL):
        lease.write(text)
    assert lease.read() == "memory=10 tokens=5\n" and usages(group) == (10, 5)


def test_give_moves_charges_to_the_group_and_take_moves_them_back(group: GroupFiles, lease: GroupLease) -> None:
    lease.write("memory=10 tokens=5")
    lease.write("give")
    assert lease.read() == "memory=0 tokens=0\n" and commons(group) == (10, 5)
    lease.write("take tokens=3 memory=1")
    lease.write("give tokens=1")
    assert lease.read() == "memory=1 tokens=2\n" and commons(group) == (9, 3)
    assert usages(group) == (10, 5)


def test_nofail_passes_the_limit_of_its_one_resource(group: GroupFiles, lease: GroupLease) -> None:
    group.set_limit(10, "tokens")
    lease.write("nofail tokens=11")
    assert lease.read() == "memory=0 tokens=11\n" and group.number("failcnt", "tokens") == 1


@pytest.mark.parametrize(("word", "kept"), [("keep", (10, 5)), ("release", (0, 0))])
def test_the_last_close_releases_all_or_leaves_all_to_the_group(
    group: GroupFiles, lease: GroupLease, word: str, kept: tuple[int, int]
) -> None:
    lease.write("memory=10 tokens=5")
    lease.write("keep")
    lease.write(word)
    copy = os.dup(lease.fd)
    lease.close()
    assert usages(group) == (10, 5)
    os.close(copy)
    eventually(lambda: commons(group) == usages(group) == kept)


def test_a_killed_process_holds_nothing(group: GroupFiles) -> None:
    script = 'exec 9<>"$1"; echo memory=4096 tokens=5 >&9; cat "$2"; kill -9 $$'
    command = ["sh", "-c", script, "sh", str(group / "lease"), str(group.file("usage", "tokens"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("5\n", -signal.SIGKILL)
    eventually(lambda: usages(group) == (0, 0))


def test_every_resource_lists_the_lease_as_one_holder(group: GroupFiles, lease: GroupLease) -> None:
    lease.write("memory=10 tokens=5")
    comm = Path("/proc/self/comm").read_text().strip()
    listed = [(line.pid, line.held, line.command) for r in ("memory", "tokens") for line in group.holders(r)]
    assert listed == [(os.getpid(), 10, f"lease:{comm}"), (os.getpid(), 5, f"lease:{comm}")]
    with fails_with(errno.EBUSY):
        os.rmdir(group.path)


def test_a_lease_of_a_removed_group_answers_enodev(group: GroupFiles) -> None:
    child = group.mkdir("child")
    lease = GroupLease(child)
    os.rmdir(child.path)
    for text in ("memory=1 tokens=1", "give", "keep", "nonsense"):
        with fails_with(errno.ENODEV):
            lease.write(text)
    with fails_with(errno.ENODEV):
        lease.read()
    lease.close()


def test_the_mode_of_the_lease_file_is_its_own_and_outlives_the_daemon() -> None:
    with mounted("--resource", "memory", "--resource", "tokens:count") as tree:
        group = tree.root.mkdir("group")
        os.chmod(group / "lease", 0o640)
        modes = {name: os.stat(group / name).st_mode for name in os.listdir(group.path)}
        assert [name for name, mode in modes.items() if mode & 0o777 == 0o640] == ["lease"]
        tree.kill()
        tree.start()
        assert {name: os.stat(group / name).st_mode for name in os.listdir(group.path)} == modes

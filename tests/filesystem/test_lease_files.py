"""R.lease: the charges of an open file, and their release at any kind of last close."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.mounts import GroupFiles, Lease, eventually, fails_with

pytestmark = pytest.mark.any_user


def test_a_new_lease_holds_nothing(group: GroupFiles) -> None:
    with group.lease() as lease:
        assert lease.held == 0
        assert group.holders() == []


def test_a_bare_number_resizes_and_a_signed_one_adjusts(group: GroupFiles) -> None:
    with group.lease() as lease:
        held = []
        for text in ("100", "+50", "-30", "100", "7", "0", "+1k", "-0x10", "1K\n", " 5 "):
            lease.write(text)
            held.append((lease.held, group.usage))
    assert [h for h, _ in held] == [100, 150, 120, 100, 7, 0, 1024, 1008, 1024, 5]
    assert all(h == usage for h, usage in held)


def test_a_lease_counts_at_every_ancestor(group: GroupFiles) -> None:
    child = group.mkdir("a").mkdir("b")
    with child.lease() as lease:
        lease.write("12345")
        assert (child.usage, group.usage) == (12345, 12345)
    eventually(group.empty)


def test_each_open_of_the_file_is_a_separate_lease(group: GroupFiles) -> None:
    with group.lease() as one, group.lease() as two, group.lease(flags=os.O_RDONLY) as three:
        one.write("10")
        two.write("5")
        assert (one.held, two.held, three.held, group.usage) == (10, 5, 0, 15)
        one.close()
        eventually(lambda: group.usage == 5)
        assert two.held == 5


def test_leases_of_different_resources_are_separate(group: GroupFiles) -> None:
    with group.lease("tokens") as tokens, group.lease() as memory:
        tokens.write("3")
        memory.write("4096")
        assert (tokens.held, memory.held) == (3, 4096)
        assert (group.number("usage", "tokens"), group.usage) == (3, 4096)


def test_growing_past_a_limit_is_enomem_and_changes_nothing(group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(1000)
    with child.lease() as lease:
        lease.write("600")
        before = group.tree_counters()
        for text in ("1001", "+401", "1G"):
            with fails_with(errno.ENOMEM):
                lease.write(text)
        after = group.tree_counters()
        assert after[".", "memory"].pop("failcnt") == before[".", "memory"].pop("failcnt") + 3
        assert after == before
        assert lease.held == 600
        lease.write("1000")
        lease.write("0")
        lease.write("+1000")


def test_resizing_within_the_limit_needs_room_for_the_difference_only(group: GroupFiles) -> None:
    group.set_limit(1000)
    with group.lease() as lease:
        lease.write("900")
        lease.write("1000")
        lease.write("999")
        assert (group.usage, group.failcnt) == (999, 0)


def test_giving_back_more_than_the_lease_holds_is_erange_and_changes_nothing(group: GroupFiles) -> None:
    group.charge(1000)
    with group.lease() as lease, group.lease() as other:
        lease.write("10")
        other.write("90")
        with fails_with(errno.ERANGE):
            lease.write("-11")
        assert (lease.held, other.held, group.usage) == (10, 90, 1100)


def test_a_write_only_lease_works(group: GroupFiles) -> None:
    with group.lease(flags=os.O_WRONLY | os.O_TRUNC | os.O_CREAT) as lease:
        lease.write("10")
        lease.write("+10")
        assert group.usage == 20
    eventually(group.empty)


def test_writes_at_any_offset_and_appended_writes_are_commands(group: GroupFiles) -> None:
    with group.lease(flags=os.O_RDWR | os.O_APPEND) as lease:
        os.pwrite(lease.fd, b"100", 4000)
        os.lseek(lease.fd, 10, os.SEEK_SET)
        os.write(lease.fd, b"+1")
        assert lease.held == 101


def test_the_first_read_after_a_write_starts_the_text_at_any_offset(group: GroupFiles) -> None:
    with group.lease() as lease:
        os.write(lease.fd, b"1234")
        assert (os.read(lease.fd, 2), os.read(lease.fd, 9), os.read(lease.fd, 9)) == (b"12", b"34\n", b"")
        with fails_with(errno.EINVAL):
            os.write(lease.fd, b"x")
        assert os.read(lease.fd, 9) == b""
        os.write(lease.fd, b"-4")
        assert (os.pread(lease.fd, 3, 0), os.pread(lease.fd, 9, 3), os.pread(lease.fd, 9, 0)) == (
            b"123",
            b"0\n",
            b"1230\n",
        )


def test_truncating_a_lease_changes_nothing(group: GroupFiles) -> None:
    with group.lease() as lease:
        lease.write("100")
        os.ftruncate(lease.fd, 0)
        os.close(os.open(group / "memory.lease", os.O_WRONLY | os.O_TRUNC))
        os.fsync(lease.fd)
        assert (lease.held, group.usage) == (100, 100)


@pytest.mark.parametrize("text", ["keep", "release", "0", "give 0", "x"])
def test_a_lease_of_a_removed_group_answers_enodev_to_every_word(group: GroupFiles, text: str) -> None:
    child = group.mkdir("child")
    with child.lease() as lease:
        os.rmdir(child.path)
        with fails_with(errno.ENODEV):
            lease.write(text)


# ---- the last close


def test_the_last_close_releases_everything(group: GroupFiles) -> None:
    with group.lease() as lease:
        lease.write("100")
        copy = os.dup(lease.fd)
        lease.close()
        os.pwrite(copy, b"+1", 0)
        assert group.usage == 101
        os.close(copy)
    eventually(group.empty)
    assert group.holders() == []


def test_a_lease_passed_over_a_socket_lives_on_in_the_receiving_process(group: GroupFiles) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, group.lease() as lease:
        lease.write("100")
        socket.send_fds(ours, [b"x"], [lease.fd])
        lease.close()
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        assert os.pread(descriptors[0], 100, 0) == b"100\n"
        assert group.usage == 100
        os.close(descriptors[0])
    eventually(group.empty)


HOLD = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.write(fd, b"4097")
print("held", flush=True)
sys.stdin.read()
{how}
"""


def end_by_eof(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("", end_by_eof),
        ("os._exit(3)", end_by_eof),
        ("os.abort()", end_by_eof),
        ("os.close(fd)", end_by_eof),
        ("os.execv('/bin/true', ['true'])", end_by_eof),
        ("", lambda process: process.send_signal(signal.SIGKILL)),
        ("", lambda process: process.send_signal(signal.SIGTERM)),
        ("", lambda process: process.send_signal(signal.SIGSEGV)),
    ],
    ids=["exit", "_exit", "abort", "close", "exec", "SIGKILL", "SIGTERM", "SIGSEGV"],
)
def test_a_lease_is_released_at_any_end_of_its_process(
    group: GroupFiles, how: str, end: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    command = [sys.executable, "-c", HOLD.format(how=how), str(group / "memory.lease")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert group.usage == 4097
        end(process)
        process.wait(60)
        eventually(group.empty)
    assert group.holders() == []


def test_a_lease_inherited_by_a_child_is_released_when_both_processes_are_gone(group: GroupFiles) -> None:
    with group.lease() as lease:
        lease.write("100")
        command = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lease.fd]) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            lease.close()
            assert group.usage == 100
            child.kill()
            child.wait(60)
            eventually(group.empty)


def test_a_child_adjusts_an_inherited_lease(group: GroupFiles) -> None:
    with group.lease() as lease:
        lease.write("100")
        command = [sys.executable, "-c", f"import os; os.write({lease.fd}, b'+11')"]
        subprocess.run(command, pass_fds=[lease.fd], check=True)
        assert lease.held == 111


def test_many_leases_are_all_released(group: GroupFiles) -> None:
    leases: list[Lease] = []
    try:
        for number in range(1, 201):
            leases.append(group.lease())
            leases[-1].write(str(number))
        assert group.usage == 200 * 201 // 2
        assert len(group.holders()) == 200
        assert [lease.held for lease in leases] == list(range(1, 201))
    finally:
        for lease in leases:
            lease.close()
    eventually(group.empty)
    assert group.holders() == []


def test_rmdir_is_ebusy_while_a_lease_holds_charges(group: GroupFiles) -> None:
    child = group.mkdir("child")
    with child.lease() as lease:
        lease.write("1")
        with fails_with(errno.EBUSY):
            os.rmdir(child.path)
        assert lease.held == 1
    eventually(lambda: child.holders() == [])
    os.rmdir(child.path)

"""A refused lease becomes writable when there is room for it and its turn comes."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.holder_process import HolderProcess
from tests.mounts import GroupFiles, eventually, fails_with

#: Long enough on any machine, in ms; no test takes this long if it passes.
PATIENCE = 60_000


class Waiting:
    """An open lease, with the answers of poll()."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR)
        self.poll = select.poll()
        self.poll.register(self.fd, select.POLLOUT)

    def write(self, text: str) -> None:
        os.pwrite(self.fd, text.encode(), 0)

    def refuses(self, text: str, error: int = errno.ENOMEM) -> None:
        with fails_with(error):
            self.write(text)

    @property
    def text(self) -> str:
        return os.pread(self.fd, 4096, 0).decode().strip()

    def is_writable(self, milliseconds: int = 0) -> bool:
        return any(reported & select.POLLOUT for _, reported in self.poll.poll(milliseconds))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


@contextlib.contextmanager
def leases(group: GroupFiles, count: int, file: str = "memory.lease") -> Iterator[list[Waiting]]:
    opened = [Waiting(f"{group.path}/{file}") for _ in range(count)]
    try:
        yield opened
    finally:
        for lease in opened:
            lease.close()


@pytest.fixture
def full(group: GroupFiles) -> GroupFiles:
    """A group that itself holds all of its limit: 10."""
    group.set_limit(10)
    group.charge(10)
    return group


def test_a_lease_without_a_refusal_is_writable(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        assert lease.is_writable()


def test_a_refused_lease_is_writable_when_there_is_room(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        lease.refuses("+4")
        assert not lease.is_writable(50)
        full.uncharge(3)
        assert not lease.is_writable(50)
        full.uncharge(1)
        assert lease.is_writable(PATIENCE)
        assert lease.text == "0"
        lease.write("+4")
        assert (lease.text, full.usage) == ("4", 10)
        assert lease.is_writable()


def test_a_request_in_another_notation_is_the_same_request(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        full.uncharge(2)
        lease.write("2")
        lease.refuses("6")
        assert not lease.is_writable()
        full.uncharge(4)
        assert lease.is_writable(PATIENCE)
        lease.write(" +4\n")
        assert (lease.text, full.usage) == ("6", 10)


def test_another_request_replaces_the_refused_one(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        lease.refuses("+6")
        assert not lease.is_writable()
        full.uncharge(6)
        assert lease.is_writable(PATIENCE)
        lease.write("+1")
        assert (lease.text, full.usage) == ("1", 5)


def test_a_raised_limit_makes_a_refused_lease_writable(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        lease.refuses("+40")
        assert not lease.is_writable(50)
        full.set_limit(50)
        assert lease.is_writable(PATIENCE)
        lease.write("+40")


def test_a_grant_that_is_not_fetched_is_given_back(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        lease.refuses("+4")
        assert not lease.is_writable()
        full.uncharge(4)
        eventually(lambda: full.usage == 6)
        assert lease.is_writable(PATIENCE)  # and a repeated request is served again
        lease.write("+4")
        assert full.usage == 10


def test_a_write_at_the_moment_of_the_return_charges_all_or_fails(full: GroupFiles, soak: bool) -> None:
    """Each lease fetches its room within microseconds of the moment at which the daemon gives it back."""
    count = 10
    for attempt in range(60 if soak else 2):
        with leases(full, count) as opened:
            for lease in opened:
                lease.refuses("+1")
                assert not lease.is_writable()
            full.uncharge(count)
            granted = time.monotonic()
            assert all(lease.is_writable(PATIENCE) for lease in opened)
            for number, lease in enumerate(opened):
                while time.monotonic() < granted + 0.998 + 0.0005 * number + 0.0001 * (attempt % 5):
                    pass
                with contextlib.suppress(OSError):  # ENOMEM: the room may have gone back to the others
                    lease.write("+1")
                    assert lease.text == "1"
            assert full.stat()["usage"] == sum(int(lease.text) for lease in opened) <= count
        full.charge(count)


def test_the_oldest_request_is_served_first_whatever_its_amount(full: GroupFiles) -> None:
    with leases(full, 3) as (large, small, other):
        large.refuses("wait 8", errno.EAGAIN)
        small.refuses("wait 1", errno.EAGAIN)
        other.refuses("+1")
        assert not any(lease.is_writable() for lease in (large, small, other))
        full.uncharge(7)
        assert not any(lease.is_writable(20) for lease in (large, small, other))
        full.uncharge(1)
        assert large.is_writable(PATIENCE)
        assert not any(lease.is_writable(20) for lease in (small, other))
        large.write("wait 8")
        full.uncharge(2)
        assert small.is_writable(PATIENCE)
        assert other.is_writable(PATIENCE)


def test_a_new_waiter_queues_behind_others_even_where_there_is_room(full: GroupFiles) -> None:
    with leases(full, 3) as (first, second, third):
        first.refuses("wait 8", errno.EAGAIN)
        full.uncharge(5)
        second.refuses("wait 1", errno.EAGAIN)
        third.write("+1")  # a charge that does not wait takes free room
        first.write("wait")
        assert second.is_writable(PATIENCE)
        second.write("wait 1")


def test_a_waiter_stays_in_the_queue_during_other_commands_of_its_lease(full: GroupFiles) -> None:
    full.uncharge(2)
    with leases(full, 2) as (lease, other):
        lease.write("2")
        lease.refuses("wait 3", errno.EAGAIN)
        other.refuses("wait 1", errno.EAGAIN)
        lease.write("-1")
        lease.write("+1")
        assert lease.text == "2"
        full.uncharge(3)
        assert lease.is_writable(PATIENCE)
        lease.write("wait 3")
        assert (lease.text, full.usage) == ("5", 10)


def test_a_request_that_gave_up_and_was_refused_later_is_in_no_queue(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        for _ in range(20):
            lease.refuses("wait 4", errno.EAGAIN)
            assert not lease.is_writable(5)  # a waiting poll, which the daemon remembers
            lease.write("wait")
            lease.refuses("+4")
            full.uncharge(4)
            assert full.usage == 6
            full.charge(4)


def test_a_closed_lease_leaves_the_queue(full: GroupFiles) -> None:
    with leases(full, 2) as (first, second):
        first.refuses("wait 10", errno.EAGAIN)
        second.refuses("wait 1", errno.EAGAIN)
        full.uncharge(1)
        assert not second.is_writable(20)
        first.close()
        assert second.is_writable(PATIENCE)


def test_a_killed_waiter_leaves_the_queue(full: GroupFiles) -> None:
    command = """
import os, sys, time
lease = os.open(sys.argv[1], os.O_RDWR)
try:
    os.write(lease, b"wait 10")
except BlockingIOError:
    print("waits", flush=True)
time.sleep(100)
"""
    with leases(full, 1) as (lease,):
        path = f"{full.path}/memory.lease"
        with subprocess.Popen([sys.executable, "-c", command, path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waits\n"
            lease.refuses("wait 1", errno.EAGAIN)
            full.uncharge(1)
            assert not lease.is_writable(20)
            process.send_signal(signal.SIGKILL)
        assert lease.is_writable(PATIENCE)


def test_room_that_is_made_in_the_region_wakes_the_waiter(full: GroupFiles) -> None:
    full.uncharge(10)
    with HolderProcess(full.path, transport="memory") as holder, leases(full, 1) as (lease,):
        holder.charge(10)
        lease.refuses("+10")
        assert not lease.is_writable()
        holder.uncharge(10)
        assert lease.is_writable(PATIENCE)
        lease.write("+10")


def test_a_request_for_several_resources_waits_for_all_of_them(full: GroupFiles) -> None:
    with leases(full, 2, "lease") as (holder, lease):
        full.write("limit", "5", "tokens")
        holder.write("tokens=5")
        lease.refuses("wait memory=4 tokens=2", errno.EAGAIN)
        full.uncharge(4)
        assert not lease.is_writable(20)
        holder.write("tokens=3")
        assert lease.is_writable(PATIENCE)
        lease.write("wait memory=4 tokens=2")
        assert lease.text == "memory=4 tokens=2"


def test_a_group_is_not_removed_while_a_lease_waits_in_it(group: GroupFiles) -> None:
    child = group.mkdir("child")
    child.set_limit(1)
    with leases(child, 1) as (lease,):
        lease.refuses("wait 2", errno.EAGAIN)
        with fails_with(errno.EBUSY):
            os.rmdir(child.path)
        lease.write("wait")
        os.rmdir(child.path)
        lease.refuses("wait 1", errno.ENODEV)


def test_a_lease_that_gives_up_stays_a_holder_if_it_was_one(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        lease.write("+0")
        lease.refuses("+4")
        lease.refuses("-1", errno.ERANGE)
        assert [(line.pid, line.held) for line in full.holders() if line.pid] == [(os.getpid(), 0)]
        lease.refuses("wait 4", errno.EAGAIN)
        lease.write("wait")
        assert [(line.pid, line.held) for line in full.holders() if line.pid] == [(os.getpid(), 0)]


def test_a_request_that_gives_up_leaves_nothing_behind(full: GroupFiles) -> None:
    with leases(full, 1) as (lease,):
        lease.refuses("wait 4", errno.EAGAIN)
        full.uncharge(4)
        assert lease.is_writable(PATIENCE)
        lease.write("wait")
        assert (lease.text, full.usage, [line for line in full.holders() if line.pid]) == ("0", 6, [])

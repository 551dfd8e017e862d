"""R.events: the events it counts, and the wake-up of its pollers, neither early nor late."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import fsmount
from tests.holder_process import HolderProcess
from tests.mounts import GroupFiles, eventually, fails_with

#: Long enough on any machine; no test takes this long if it passes.
PATIENCE = 60


class Events:
    """An open events file."""

    def __init__(self, group: GroupFiles) -> None:
        self.fd = os.open(group.file("events"), os.O_RDONLY)
        self.poll = select.poll()
        self.poll.register(self.fd, select.POLLPRI)

    def read(self) -> dict[str, int]:
        lines = os.pread(self.fd, 4096, 0).decode().splitlines()
        return {key: int(count) for key, count in (line.split(" ") for line in lines)}

    @property
    def are_new(self) -> bool:
        return bool(self.reported(0) & select.POLLPRI)

    def reported(self, seconds: float = PATIENCE) -> int:
        """The events of poll(), as soon as it reports any."""
        return sum(reported for _, reported in self.poll.poll(seconds * 1000))


@contextlib.contextmanager
def opened(group: GroupFiles) -> Iterator[Events]:
    events = Events(group)
    try:
        yield events
    finally:
        os.close(events.fd)


def refuse(group: GroupFiles) -> None:
    with fails_with(errno.ENOMEM):
        group.charge(group.limit + 1)


def by_poll(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    return poll.poll(PATIENCE * 1000) == [(fd, select.POLLPRI)]


def by_epoll(fd: int) -> bool:
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLPRI)
        return epoll.poll(PATIENCE) == [(fd, select.EPOLLPRI)]


def by_select(fd: int) -> bool:
    return select.select([], [], [fd], PATIENCE) == ([], [], [fd])


# ---- the counts --------------------------------------------------------------------------------------


def test_refusals_and_soft_limits_crossed_either_way_are_counted_up_to_the_root_and_in_no_group_beside(
    group: GroupFiles,
) -> None:
    child, other = group.mkdir("child"), group.mkdir("other")
    child.set_limit(100)
    child.write("soft_limit", 10)
    group.write("soft_limit", 50)
    child.charge(10)
    assert child.read("events") == "limit 0\nsoft_limit 0\nthreshold 0\n"
    child.charge(1)
    child.charge(40)
    refuse(child)
    child.uncharge(41)
    assert child.read("events") == "limit 1\nsoft_limit 2\nthreshold 0\n"
    assert group.read("events") == "limit 1\nsoft_limit 4\nthreshold 0\n"
    assert other.read("events") == group.read("events", "tokens") == "limit 0\nsoft_limit 0\nthreshold 0\n"


def test_a_soft_limit_that_is_set_to_the_other_side_of_the_usage_is_crossed(group: GroupFiles) -> None:
    group.charge(10)
    for soft_limit, crossings in ((10, 0), (9, 1), (0, 1), (10, 2), (5, 3), ("max", 4)):
        group.write("soft_limit", soft_limit)
        assert group.read("events") == f"limit 0\nsoft_limit {crossings}\nthreshold 0\n"


def test_events_of_a_removed_group_stay_in_the_groups_above(group: GroupFiles) -> None:
    child = group.mkdir("child")
    grandchild = child.mkdir("grandchild")
    grandchild.set_limit(10)
    refuse(grandchild)
    grandchild.write("soft_limit", 5)
    grandchild.charge(6)
    grandchild.uncharge(6)
    for removed in (grandchild, child):
        os.rmdir(removed.path)
        assert group.read("events") == "limit 1\nsoft_limit 2\nthreshold 0\n"
    assert group.mkdir("child").read("events") == "limit 0\nsoft_limit 0\nthreshold 0\n"


def test_a_reset_of_failcnt_leaves_the_events_alone(group: GroupFiles) -> None:
    group.set_limit(10)
    refuse(group)
    group.write("failcnt", 0)
    refuse(group)
    assert (group.failcnt, group.read("events")) == (1, "limit 2\nsoft_limit 0\nthreshold 0\n")


# ---- pollers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [by_poll, by_epoll, by_select])
def test_poll_epoll_and_select_report_events_since_the_last_read(
    group: GroupFiles, wait: Callable[[int], bool]
) -> None:
    group.set_limit(10)
    with opened(group) as events, opened(group) as late:
        assert not events.are_new
        refuse(group)
        assert wait(events.fd) and wait(events.fd)
        assert events.read() == {"limit": 1, "soft_limit": 0, "threshold": 0}
        assert not events.are_new
        assert late.are_new, "each open file has its own mark"
        refuse(group)
        assert wait(events.fd)


def test_a_file_opened_after_an_event_reports_only_later_events(group: GroupFiles) -> None:
    group.set_limit(10)
    refuse(group)
    with opened(group) as events:
        assert not events.are_new


@pytest.mark.parametrize("wait", [by_poll, by_epoll, by_select])
def test_a_poller_wakes_when_another_process_charges_in_the_region(
    group: GroupFiles, wait: Callable[[int], bool]
) -> None:
    child = group.mkdir("child")
    child.set_limit(10)
    with opened(group) as events, HolderProcess(child.path, transport="memory") as process:
        for number in range(1, 11):
            woken: list[bool] = []
            sleeper = threading.Thread(target=lambda found=woken: found.append(wait(events.fd)))
            sleeper.start()
            with pytest.raises(OSError):
                process.charge(11)
            sleeper.join()
            assert woken == [True]
            assert events.read()["limit"] == number


def test_poll_reports_the_exact_charge_that_crosses_while_holders_have_stock(group: GroupFiles, seed: int) -> None:
    """Two holders with stock charge in the region, without a request to the daemon."""
    source = random.Random(seed)
    child = group.mkdir("child")
    soft_limit = 100_000
    group.write("soft_limit", soft_limit)
    with (
        opened(group) as events,
        fsmount.attach(child.path, transport="memory") as first,
        fsmount.attach(child.path, transport="memory", on_exit="keep") as second,
    ):
        counters = first["memory"], second["memory"]
        for counter in counters:
            counter.charge(45_000)
        usage = 90_000
        steps = crossings = 0
        while steps < 1500 or crossings < 20:
            steps += 1
            counter = source.choice(counters)
            amount = source.choice((1, 10, 1000)) + source.randrange(20)
            before = usage
            if source.random() < (0.6 if usage < soft_limit else 0.4) or counter.held < amount:
                counter.charge(amount)
                usage += amount
            else:
                counter.uncharge(amount)
                usage -= amount
            crossed = (before > soft_limit) != (usage > soft_limit)
            crossings += crossed
            assert events.are_new == crossed, f"{before} -> {usage}"
            if crossed:
                assert events.read()["soft_limit"] == crossings
        for counter in counters:
            counter.uncharge(counter.held)


def test_pollers_of_other_files_are_not_woken(group: GroupFiles) -> None:
    child, other = group.mkdir("child"), group.mkdir("other")
    child.set_limit(10)
    with opened(group) as events, opened(other) as others:
        assert not others.are_new
        refuse(child)
        assert events.reported() == select.POLLPRI
        assert not others.are_new


def test_a_poller_of_a_removed_group_wakes_and_gets_enodev(group: GroupFiles) -> None:
    child = group.mkdir("child")
    with opened(child) as events:
        assert not events.are_new
        remover = threading.Thread(target=os.rmdir, args=(child.path,))
        remover.start()
        assert events.reported() & select.POLLERR
        remover.join()
        with fails_with(errno.ENODEV):
            events.read()


def test_an_events_file_cannot_be_written(group: GroupFiles) -> None:
    os.chmod(group.file("events"), 0o644)
    with fails_with(errno.EINVAL):
        group.write("events", "limit 0")


# ---- many --------------------------------------------------------------------------------------------

#: A program that charges past the soft limit and back until its input ends, and prints how often.
CROSS = """
import os, select, sys, fsmount
memory = fsmount.attach(sys.argv[1], transport="memory")["memory"]
times = 0
while not select.select([0], [], [], 0)[0]:
    for _ in range(100):
        memory.charge(2)
        memory.uncharge(2)
        times += 2
print(times)
"""


def test_ten_thousand_crossings_in_a_row_are_all_counted_and_a_poller_sees_the_last(group: GroupFiles) -> None:
    """An idle machine does it in less than a second; the test prints the rate."""
    group.write("soft_limit", 1)
    with opened(group) as events:
        command = [sys.executable, "-c", CROSS, str(group.path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin and process.stdout
            assert events.reported() == select.POLLPRI
            begun = events.read()["soft_limit"]
            began, seconds = time.monotonic(), 0.0
            rate = wakes = 0
            while seconds < 1 or rate * seconds < 10_000:
                assert events.reported() == select.POLLPRI
                seen = events.read()["soft_limit"]
                seconds = time.monotonic() - began
                rate = int((seen - begun) / seconds)
                wakes += 1
            process.stdin.close()
            crossings = int(process.stdout.read())
        while events.are_new:
            seen = events.read()["soft_limit"]
        assert seen == crossings
        print(f"{rate} crossings in a second, {wakes} wake-ups")


def test_events_of_killed_processes_reach_the_pollers(group: GroupFiles, seed: int) -> None:
    """A process is killed at a random instruction: its counted events are reported, and no crossing is lost."""
    source = random.Random(seed)
    group.write("soft_limit", 1)
    with opened(group) as events:
        for _ in range(15):
            command = [sys.executable, "-c", CROSS, str(group.path)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                assert events.reported() == select.POLLPRI
                time.sleep(source.uniform(0, 0.01))  # a random instruction is the point here
                process.kill()
                process.wait()
            seen = events.read()
            # its charges are released
            while seen["soft_limit"] % 2:
                assert events.reported() == select.POLLPRI
                seen = events.read()
            # or the next owner of its lock finds the event
            eventually(lambda: group.usage == 0, what="the dead one's charges are given back")
            are_new, now = events.are_new, events.read()
            assert are_new == (now != seen)
            assert now["soft_limit"] % 2 == 0

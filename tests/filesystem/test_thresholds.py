"""R.threshold: each open file has its own marks, and its poller wakes at the charge that crosses one."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import fsmount
from tests.holder_process import HolderProcess
from tests.mounts import GroupFiles, Mount, fails_with, mounted

#: Long enough on any machine; no test takes this long if it passes.
PATIENCE = 60


class Threshold:
    """An open threshold file."""

    def __init__(self, group: GroupFiles, marks: str = "") -> None:
        self.fd = os.open(group.file("threshold"), os.O_RDWR)
        self.poll = select.poll()
        self.poll.register(self.fd, select.POLLPRI)
        if marks:
            self.write(marks)

    def write(self, marks: str) -> None:
        assert os.pwrite(self.fd, marks.encode(), 0) == len(marks)

    def read(self) -> str:
        return os.pread(self.fd, 8192, 0).decode()

    def reported(self, seconds: float = PATIENCE) -> int:
        """The events of poll(), as soon as it reports any."""
        return sum(reported for _, reported in self.poll.poll(seconds * 1000))

    def is_crossed(self) -> bool:
        return bool(self.reported(0) & select.POLLPRI)


@contextlib.contextmanager
def opened(group: GroupFiles, marks: str = "") -> Iterator[Threshold]:
    threshold = Threshold(group, marks)
    try:
        yield threshold
    finally:
        os.close(threshold.fd)


# ---- the list ----------------------------------------------------------------------------------------


def test_a_threshold_file_shows_its_marks_and_how_often_each_was_crossed(group: GroupFiles) -> None:
    group.set_limit(1000)
    with opened(group) as threshold:
        assert threshold.read() == ""
        threshold.write("above 80%\nabove 512\n below\t10% \n\nbelow 0x10\n")
        assert threshold.read() == "above 80% 0\nabove 512 0\nbelow 10% 0\nbelow 16 0\n"
        for charged in (801, 0, 513, 99):
            group.write("force_empty", 1)
            group.charge(charged)
        assert threshold.read() == "above 80% 1\nabove 512 2\nbelow 10% 2\nbelow 16 2\n"
        assert group.read("events") == "limit 0\nsoft_limit 0\nthreshold 7\n"
        threshold.write("above 2K")
        assert threshold.read() == "above 2048 0\n"
        threshold.write("\n")
        assert threshold.read() == ""
        assert group.read("events") == "limit 0\nsoft_limit 0\nthreshold 7\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("above", errno.EINVAL),
        ("above 101%", errno.EINVAL),
        ("above 010%", errno.EINVAL),
        ("above 5 %", errno.EINVAL),
        ("above -1", errno.EINVAL),
        ("above max", errno.EINVAL),
        ("over 5", errno.EINVAL),
        ("above 5 0", errno.EINVAL),
        ("above 1\nbelow x\n", errno.EINVAL),
        ("80%", errno.EINVAL),
        ("above 8E", errno.ERANGE),
        ("above 1\n" * 600, errno.E2BIG),
    ],
)
def test_a_malformed_list_is_refused_and_the_old_list_stays(group: GroupFiles, text: str, error: int) -> None:
    with opened(group, "above 7") as threshold:
        with fails_with(error):
            os.write(threshold.fd, text.encode())
        group.charge(8)
        assert threshold.read() == "above 7 1\n"


def test_each_open_file_has_its_own_list_until_it_is_closed(group: GroupFiles) -> None:
    with opened(group, "above 5") as one, opened(group, "above 50") as other:
        group.charge(6)
        assert (one.is_crossed(), other.is_crossed()) == (True, False)
        assert (one.read(), other.read()) == ("above 5 1\n", "above 50 0\n")
    group.uncharge(6)
    group.charge(100)
    assert group.read("events") == "limit 0\nsoft_limit 0\nthreshold 1\n"
    assert group.read("threshold") == ""


# ---- crossing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "usage", "mark", "crossing"),
    [
        (1000, 100, "above 100", lambda group: group.charge(1)),
        (1000, 90, "below 90", lambda group: group.uncharge(1)),
        (1111, 99, "above 9%", lambda group: group.charge(1)),
        (1111, 100, "below 9%", lambda group: group.uncharge(1)),
        (1125, 90, "above 8%", lambda group: group.set_limit(1124)),
    ],
)
def test_poll_reports_a_crossing_until_the_file_is_read(
    group: GroupFiles, limit: int, usage: int, mark: str, crossing: Callable[[GroupFiles], None]
) -> None:
    """Equal is neither above nor below."""
    group.set_limit(limit)
    group.charge(usage)
    with opened(group, mark) as threshold:
        assert not threshold.is_crossed()
        crossing(group)
        assert threshold.reported() == select.POLLPRI
        assert threshold.is_crossed()
        assert threshold.read() == f"{mark} 1\n"
        assert not threshold.is_crossed()


def test_a_mark_that_the_usage_has_passed_before_is_no_crossing(group: GroupFiles) -> None:
    group.charge(50)
    with opened(group, "above 10\nbelow 90") as threshold:
        group.charge(1)
        assert not threshold.is_crossed()
        group.uncharge(45)
        group.charge(45)
        assert threshold.read() == "above 10 1\nbelow 90 0\n"


def test_poll_reports_the_exact_charge_that_crosses_while_holders_have_stock(group: GroupFiles, seed: int) -> None:
    """Two holders with stock charge in the region below, without a request to the daemon."""
    source = random.Random(seed)
    child = group.mkdir("child")
    group.set_limit(1_000_000)
    marks = {"above 60%": 600_000, "above 500000": 500_000, "below 45%": 449_999, "below 520000": 519_999}
    with (
        opened(group, "\n".join(marks)) as threshold,
        fsmount.attach(child.path, transport="memory") as first,
        fsmount.attach(child.path, transport="memory", on_exit="keep") as second,
    ):
        counters = first["memory"], second["memory"]
        usage = 0
        counts = dict.fromkeys(marks, 0)
        steps = 0
        while steps < 1500 or min(counts.values()) == 0:
            steps += 1
            counter = source.choice(counters)
            amount = source.choice((1, 100, 20_000)) + source.randrange(20)
            before = usage
            if source.random() < (0.8 if usage < 400_000 else 0.2 if usage > 650_000 else 0.5):
                counter.charge(amount)
                usage += amount
            elif counter.held >= amount:
                counter.uncharge(amount)
                usage -= amount
            crossed = False
            for line, mark in marks.items():
                if before <= mark < usage if line.startswith("above") else usage <= mark < before:
                    counts[line] += 1
                    crossed = True
            assert threshold.is_crossed() == crossed, f"{before} -> {usage}"
            if crossed:
                assert threshold.read() == "".join(f"{line} {count}\n" for line, count in counts.items())
        for counter in counters:
            counter.uncharge(counter.held)


def test_a_poller_wakes_for_a_charge_in_the_region(group: GroupFiles) -> None:
    child = group.mkdir("child")
    with opened(group, "above 100") as threshold, HolderProcess(child.path, transport="memory") as process:
        for number in range(1, 11):
            woken: list[int] = []
            sleeper = threading.Thread(target=lambda found=woken: found.append(threshold.reported()))
            sleeper.start()
            process.charge(101)
            sleeper.join()
            assert woken == [select.POLLPRI]
            assert threshold.read() == f"above 100 {number}\n"
            process.uncharge(101)


# ---- ends --------------------------------------------------------------------------------------------


def test_a_poller_of_a_removed_group_wakes_and_gets_enodev(group: GroupFiles) -> None:
    child = group.mkdir("child")
    with opened(child, "above 5") as threshold, opened(child) as empty:
        assert not threshold.is_crossed()
        os.rmdir(child.path)
        assert threshold.reported() & select.POLLERR
        assert empty.reported() & select.POLLERR
        again = group.mkdir("child")
        with opened(again, "above 1"):
            for each in (threshold, empty):
                with fails_with(errno.ENODEV):
                    each.read()
                with fails_with(errno.ENODEV):
                    each.write("above 6")
        os.rmdir(again.path)


def test_a_killed_process_leaves_no_watch_behind(group: GroupFiles) -> None:
    script = "import os, signal, sys; f = os.open(sys.argv[1], os.O_RDWR); os.write(f, b'above 5'); os.kill(0, 9)"
    process = subprocess.Popen([sys.executable, "-c", script, str(group.file("threshold"))], start_new_session=True)
    assert process.wait() == -signal.SIGKILL
    group.charge(6)
    assert group.read("events") == "limit 0\nsoft_limit 0\nthreshold 0\n"


def test_a_full_region_refuses_a_list_and_a_close_makes_room() -> None:
    with mounted("--cells", "4") as mount, opened(mount.root, "above 1\nabove 2\nabove 3") as threshold:
        with opened(mount.root, "above 4") as other:
            for each in (threshold, other):
                with fails_with(errno.ENOSPC):
                    each.write("above 5\nabove 6\nabove 7")
            mount.root.charge(5)
            assert threshold.read() == "above 1 1\nabove 2 1\nabove 3 1\n"
            assert other.read() == "above 4 1\n"
        threshold.write("above 9")
        assert threshold.read() == "above 9 0\n"
        mount.root.uncharge(5)


def test_watches_of_a_daemon_end_when_another_takes_over_the_region() -> None:
    def count(mount: Mount) -> str:
        return mount.root.read("events").splitlines()[-1]

    with mounted() as mount:
        threshold = Threshold(mount.root, "above 5")
        mount.root.charge(6)
        assert threshold.reported() == select.POLLPRI
        mount.kill()
        os.close(threshold.fd)
        mount.start()
        assert count(mount) == "threshold 1"
        mount.root.uncharge(6)
        mount.root.charge(6)
        assert count(mount) == "threshold 1"
        mount.root.uncharge(6)

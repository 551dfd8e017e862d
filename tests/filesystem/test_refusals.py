"""R.why and R.probe: past refusals with the groups that refused, and the prediction of a charge."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator

import pytest

import fsmount
from fsmount import Refusal
from tests.holder_process import HolderProcess
from tests.mounts import UNLIMITED, GroupFiles, Lease, Mount, fails_with, mounted

#: Long enough on any machine; no test takes this long if it passes.
PATIENCE = 60


def why(group: GroupFiles, resource: str = "memory") -> list[Refusal]:
    return [Refusal.parse(line) for line in group.read("why", resource).splitlines()]


# ---- R.why -------------------------------------------------------------------------------------------


def test_a_line_names_time_process_group_refusing_ancestor_and_missing_amount(mount: Mount, group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(1000)
    with fails_with(errno.ENOMEM), Lease(child.file("lease")) as lease:
        lease.write("600")
        child.charge(401)
    (line,) = child.read("why").splitlines()
    above = f"/{group.path.relative_to(mount.root.path)}"
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(
        rf"time=({moment}) since=\1 times=1 pid={os.getpid()} by=group command=\S+ asked={above}/child refused={above} "
        rf"charged=0 amount=401 usage=600 limit=1000 short=1 looked=all looked_at=\1 "
        rf"largest1=600,{os.getpid()},lease,{above}/child,\S+",
        line,
    )
    assert abs(why(child)[0].last - time.time()) < 60


@pytest.mark.parametrize("transport", ["memory", "files"])
def test_a_refused_process_is_named_after_its_death(group: GroupFiles, transport: str) -> None:
    group.set_limit(100)
    with HolderProcess(group.path, transport=transport) as holder:
        holder.charge(60)
        assert not holder.try_charge(50)
        holder.kill()
        (refusal,) = why(group)
    assert (refusal.pid, refusal.by) == (holder.pid, {"memory": "process", "files": "lease"}[transport])
    assert refusal.command.startswith("python")
    assert (refusal.amount, refusal.usage, refusal.limit, refusal.short) == (50, 60, 100, 10)
    assert [(held.held, held.pid, held.by) for held in refusal.largest] == [(60, holder.pid, refusal.by)]


def test_a_group_shows_the_refusals_of_its_subtree_and_resource_only(group: GroupFiles) -> None:
    left, right = group.mkdir("left"), group.mkdir("right")
    below = left.mkdir("below")
    group.set_limit(0)
    for where in (below, right, left):
        with fails_with(errno.ENOMEM):
            where.charge(1)
    asked = [(refusal.asked or "").rsplit("/", 1)[-1] for refusal in why(group)]
    assert asked == ["left", "right", "below"]
    assert [refusal.asked for refusal in why(left)] == [why(group)[0].asked, why(group)[2].asked]
    assert [refusal.asked for refusal in why(right)] == [why(group)[1].asked]
    assert why(group, "tokens") == []


def test_the_three_largest_holders_below_the_refusing_group_are_named(group: GroupFiles) -> None:
    child, other = group.mkdir("child"), group.mkdir("other")
    group.set_limit(1000)
    with contextlib.ExitStack() as stack:
        sizes = (100, 400, 50, 200)
        holders = [stack.enter_context(HolderProcess((child, other)[n % 2].path)) for n in range(4)]
        for holder, size in zip(holders, sizes, strict=True):
            holder.charge(size)
        other.charge(150)
        assert not holders[0].try_charge(200)
        (refusal,) = why(group)
        assert [(held.held, held.pid) for held in refusal.largest] == [
            (400, holders[1].pid),
            (200, holders[3].pid),
            (150, 0),
        ]
        assert [held.by for held in refusal.largest] == ["process", "process", "group"]
        assert {held.group for held in refusal.largest} == {f"{refusal.refused}/other"}
        assert refusal.looked == "all"


def test_a_charge_nofail_past_a_limit_is_recorded_as_charged(group: GroupFiles) -> None:
    group.set_limit(100)
    with Lease(group.file("lease")) as lease:
        lease.write("nofail 150")
        (refusal,) = why(group)
        assert (refusal.charged, refusal.amount, refusal.usage, refusal.short) == (True, 150, 0, 50)
        with fails_with(errno.ENOMEM):
            lease.write("+1")
        assert [refusal.charged for refusal in why(group)] == [False, True]


def test_a_flood_of_refusals_is_one_line_and_displaces_no_other(group: GroupFiles) -> None:
    quiet, loud = group.mkdir("quiet"), group.mkdir("loud")
    for limited in (quiet, loud):
        limited.set_limit(10)
    with fails_with(errno.ENOMEM):
        quiet.charge(11)
    with fsmount.attach(loud.path, transport="memory") as attached:
        until = time.monotonic() + 0.1
        times = 0
        while time.monotonic() < until:
            assert not attached["memory"].try_charge(11)
            times += 1
        time.sleep(0.03)  # repeated refusals are only counted for this long
        assert not attached["memory"].try_charge(12)
    first, second = why(group)
    assert (first.times, first.amount) == (times + 1, 12) == (loud.failcnt, 12)
    assert first.first < first.last
    assert (second.times, second.asked) == (1, why(quiet)[0].asked)


def test_refusals_of_a_removed_group_never_show_in_its_successor(group: GroupFiles) -> None:
    removed = group.mkdir("removed")
    group.set_limit(10)
    with fails_with(errno.ENOMEM):
        removed.charge(11)
    os.rmdir(removed.path)
    again = group.mkdir("again")
    assert again.read("why") == ""
    (refusal,) = why(group)
    assert (refusal.asked, refusal.times) == (None, 1)
    assert "asked=? refused=/" in group.read("why")


def test_a_name_with_spaces_and_control_characters_stays_one_word(group: GroupFiles) -> None:
    odd = group.mkdir("a b,\\\x1b[1m=\udcff")
    odd.set_limit(1)
    with fails_with(errno.ENOMEM):
        odd.charge(2)
    line = odd.file("why").read_bytes()
    assert len(line.split()) == 15
    assert rb"/a\040b\054\134\033[1m=\377 " in line
    assert Refusal.parse(os.fsdecode(line[:-1])).asked == f"{why(group)[0].refused}"
    assert (why(group)[0].asked or "").endswith("/a b,\\\x1b[1m=\udcff")


def test_a_poller_wakes_for_refusals_in_the_subtree_only(group: GroupFiles) -> None:
    child, other = group.mkdir("child"), group.mkdir("other")
    group.set_limit(10)
    fd = os.open(child.file("why"), os.O_RDONLY)
    beside = os.open(other.file("why"), os.O_RDONLY)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        poll.register(beside, select.POLLPRI)
        assert poll.poll(0) == []
        with fails_with(errno.ENOMEM):
            child.charge(11)  # a group above refuses it
        assert poll.poll(PATIENCE * 1000) == [(fd, select.POLLPRI)]
        assert os.pread(fd, 65536, 0).count(b"\n") == 1
        assert poll.poll(0) == []
    finally:
        os.close(fd)
        os.close(beside)


def test_refusals_outlive_the_daemon() -> None:
    with mounted() as mount:
        child = mount.root.mkdir("child")
        child.set_limit(10)
        with fails_with(errno.ENOMEM):
            child.charge(11)
        before = mount.root.read("why")
        assert "asked=/child refused=/child" in before
        mount.kill()
        mount.start()
        assert mount.root.read("why") == before


def test_a_shell_reads_the_lines_and_awk_the_values(group: GroupFiles) -> None:
    group.set_limit(10)
    with fails_with(errno.ENOMEM):
        group.charge(14)
    script = (
        'while read -r line; do for pair in $line; do [[ $pair != short=* ]] || echo "${pair#*=}"; done; done <"$1"'
    )
    awk = '{ for (i = 1; i <= NF; i++) { split($i, pair, "="); if (pair[1] == "short") print pair[2] } }'
    for command in (["bash", "-c", script, "bash"], ["awk", awk]):
        assert subprocess.check_output([*command, group.file("why")], text=True) == "4\n"


# ---- R.probe -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(group: GroupFiles) -> Iterator[int]:
    fd = os.open(group.file("probe"), os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def ask(fd: int, amount: int | str) -> dict[str, str]:
    os.write(fd, str(amount).encode())
    return dict(line.split(" ") for line in os.read(fd, 4096).decode().splitlines())


def test_a_probe_predicts_a_charge_and_changes_nothing(group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(1000)
    child.set_limit(2000)
    child.charge(600)
    before = group.counters(), child.counters()
    with opened(child) as fd:
        assert ask(fd, "401") == {
            "amount": "401",
            "fits": "0",
            "group": ask(fd, 400)["group"],
            "usage": "600",
            "limit": "1000",
            "short": "1",
            "margin": "400",
        }
        assert ask(fd, "0x190")["fits"] == "1"
        assert ask(fd, "1K")["short"] == "624"
        assert (ask(fd, 1401)["group"], ask(fd, 1401)["short"]) == (f"{ask(fd, 400)['group']}/child", "1")
        assert ask(fd, 0)["fits"] == "1"
        assert ask(fd, UNLIMITED)["short"] == str(UNLIMITED - 1400)
    assert (group.counters(), child.counters()) == before


def test_a_probe_counts_idle_stock_as_free_and_leaves_it_alone(group: GroupFiles) -> None:
    group.set_limit(100_000)
    with HolderProcess(group.path) as holder, opened(group) as fd:
        holder.charge(1000)
        holder.uncharge(900)
        stat = group.stat()
        assert stat["stock"] > 0
        assert (ask(fd, 99_900)["fits"], ask(fd, 99_901)["fits"], ask(fd, 1)["margin"]) == ("1", "0", "99900")
        assert group.stat() == stat
        group.charge(99_900)


def test_each_open_probe_has_its_own_answer_and_none_before_its_first_request(group: GroupFiles) -> None:
    group.set_limit(10)
    with opened(group) as one, opened(group) as other:
        assert os.read(one, 100) == b""
        assert (ask(one, 5)["amount"], ask(other, 20)["amount"]) == ("5", "20")
        assert os.pread(one, 4096, 0).startswith(b"amount 5\n")
        assert os.pread(other, 3, 0) + os.pread(other, 6, 3) == b"amount 20"
        for wrong, error in (("", 0), ("-1", errno.EINVAL), ("max", errno.EINVAL), (str(UNLIMITED + 1), errno.ERANGE)):
            with fails_with(error) if error else contextlib.nullcontext():
                os.write(one, wrong.encode())
        assert os.pread(one, 4096, 0).startswith(b"amount 5\n")


def test_a_shell_writes_and_reads_a_probe_through_one_descriptor(group: GroupFiles) -> None:
    group.set_limit(10)
    script = (
        'exec 3<>"$1"; for n in 5 11; do echo $n >&3; while read -r key value; do echo "$key=$value"; done <&3; done'
    )
    said = subprocess.check_output(["bash", "-c", script, "bash", group.file("probe")], text=True).splitlines()
    assert [line for line in said if line.startswith(("amount", "fits"))] == [
        "amount=5",
        "fits=1",
        "amount=11",
        "fits=0",
    ]


def test_a_probe_of_a_removed_group_answers_enodev(group: GroupFiles) -> None:
    removed = group.mkdir("removed")
    with opened(removed) as fd:
        ask(fd, 1)
        os.rmdir(removed.path)
        with fails_with(errno.ENODEV):
            os.pread(fd, 100, 0)
        with fails_with(errno.ENODEV):
            os.write(fd, b"1")


# ---- Python ------------------------------------------------------------------------------------------


def test_both_transports_return_the_same_refusals(group: GroupFiles) -> None:
    child = group.mkdir("a b")
    group.set_limit(1000)
    with HolderProcess(child.path) as holder:
        holder.charge(900)
        assert not holder.try_charge(200)
        with (
            fsmount.attach(child.path, transport="memory") as one,
            fsmount.attach(child.path, transport="files") as other,
        ):
            assert one["memory"].why() == other["memory"].why() != []
            for amount in (0, 100, 101, UNLIMITED):
                assert one["memory"].probe(amount) == other["memory"].probe(amount)
            assert other["memory"].probe(101).short == 1
            with pytest.raises(OverflowError):
                other["memory"].probe(UNLIMITED + 1)

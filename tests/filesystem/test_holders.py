"""Attached processes and R.holders: the charges of each holder, and their release when it dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsmount.files import group_at
from tests.holder_process import HolderProcess, Refused
from tests.mounts import GroupFiles, HolderLine, eventually, fails_with

TRANSPORTS = ["memory", "files"]


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; the name before it may contain spaces."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


# ---- R.holders


def test_an_attached_process_has_a_line(group: GroupFiles) -> None:
    with HolderProcess(group.path, transport="memory") as process:
        process.charge(4097)
        [line] = group.holders()
        expected = HolderLine(process.pid, start_time(process.pid), 4097, line.stock, comm(process.pid))
        assert line == expected
        assert line.stock == group.stat()["stock"]
    eventually(lambda: group.holders() == [])


def test_a_lease_has_a_line_of_the_process_that_opened_it(group: GroupFiles) -> None:
    with group.lease() as lease:
        lease.write("77")
        pid = os.getpid()
        [line] = group.holders()
        assert line == HolderLine(pid, start_time(pid), 77, line.stock, f"lease:{comm(pid)}")
    eventually(lambda: group.holders() == [])


def test_the_common_holder_has_a_line_while_the_group_itself_holds_something(group: GroupFiles) -> None:
    assert group.holders() == []
    group.charge(500)
    assert group.holders() == [HolderLine(0, 0, 500, 0, "common")]
    group.uncharge(500)
    assert group.holders() == []


def test_the_lines_add_up_to_the_local_usage_of_the_group(group: GroupFiles) -> None:
    child = group.mkdir("child")
    child.charge(10_000)
    group.charge(1)
    with HolderProcess(group.path) as one, HolderProcess(group.path) as two, group.lease() as lease:
        one.charge(20)
        two.charge(300)
        lease.write("4000")
        lines = group.holders()
        assert sorted(line.held for line in lines) == [1, 20, 300, 4000]
        assert sum(line.held for line in lines) == group.stat()["usage_local"] == 4321
        assert sum(line.stock for line in lines) == group.stat()["stock"]


def test_holders_are_listed_by_resource(group: GroupFiles) -> None:
    with HolderProcess(group.path, transport="memory") as process:
        process.charge(5)
        process.charge(3, "tokens")
        assert [line.held for line in group.holders("memory")] == [5]
        assert [line.held for line in group.holders("tokens")] == [3]


@pytest.mark.parametrize("name", ["a b  c", "a\nb", "\n", " ", "0 0 7 0 x", "\udcff\x1b"], ids=ascii)
def test_a_holder_has_one_line_of_five_fields_under_any_process_name(group: GroupFiles, name: str) -> None:
    own = Path("/proc/self/comm")
    before = own.read_bytes()[:-1]
    own.write_bytes(os.fsencode(name))
    try:
        with group.lease() as lease:
            lease.write("5")
            text = group.file("holders").read_bytes()
            (told,) = group_at(str(group.path))["memory"].holders()
    finally:
        own.write_bytes(before)
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    fields = text.split(b" ", 4)
    assert (int(fields[0]), int(fields[2])) == (os.getpid(), 5)
    assert fields[4].startswith(b"lease:")
    assert (told.pid, told.held, told.command) == (os.getpid(), 5, os.fsdecode(fields[4][:-1]))


# ---- a holder's operations, as the files show them


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_charges_of_a_process_are_the_usage_of_its_group_and_of_all_above(group: GroupFiles, transport: str) -> None:
    child = group.mkdir("child")
    with HolderProcess(child.path, transport=transport) as process:
        process.charge(70_001)
        assert (child.usage, group.usage, process.held) == (70_001, 70_001, 70_001)
        process.uncharge(70_000)
        assert (child.usage, group.usage, process.held) == (1, 1, 1)
        process.charge(3, "tokens")
        assert group.number("usage", "tokens") == 3
    eventually(group.empty)
    assert group.number("usage", "tokens") == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_process_is_refused_at_the_limit_and_try_charge_returns_false(group: GroupFiles, transport: str) -> None:
    group.set_limit(1000)
    with HolderProcess(group.path, transport=transport) as process:
        assert process.try_charge(1000)
        assert not process.try_charge(1)
        with fails_with(errno.ENOMEM):
            process.charge(1)
        assert (group.usage, group.failcnt, process.held) == (1000, 2, 1000)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_process_cannot_uncharge_charges_of_other_holders(group: GroupFiles, transport: str) -> None:
    group.charge(1000)
    with HolderProcess(group.path, transport=transport) as process, HolderProcess(group.path) as other:
        other.charge(500)
        process.charge(10)
        with pytest.raises(Refused) as refused:
            process.uncharge(11)
        assert (refused.value.kind, refused.value.errno) == ("NotHeld", errno.ERANGE)
        assert refused.value.details == {"resource": "memory", "requested": 11, "held": 10}
        assert (group.usage, process.held, other.held) == (1510, 10, 500)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_given_charges_belong_to_the_group_and_outlive_the_process(group: GroupFiles, transport: str) -> None:
    with HolderProcess(group.path, transport=transport) as process:
        process.charge(100)
        process.give(60)
        assert (process.held, group.stat()["common"], group.usage) == (40, 60, 100)
        with fails_with(errno.ERANGE):
            process.give(41)
    eventually(lambda: group.usage == 60)
    group.uncharge(60)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_process_takes_charges_of_the_group_itself(group: GroupFiles, transport: str) -> None:
    group.charge(100)
    group.set_limit(100)
    with HolderProcess(group.path, transport=transport) as process:
        process.take(60)
        assert (process.held, group.stat()["common"], group.usage) == (60, 40, 100)
        with fails_with(errno.ERANGE):
            process.take(41)
    eventually(lambda: group.usage == 40)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_process_reads_the_same_values_as_the_files(group: GroupFiles, transport: str) -> None:
    group.set_limit(10_000)
    group.write("soft_limit", 200)
    group.charge(900)
    group.uncharge(600)
    with fails_with(errno.ENOMEM):
        group.charge(9_701)
    with HolderProcess(group.path, transport=transport) as process:
        names = ("usage", "limit", "soft_limit", "max_usage", "failcnt", "margin", "soft_limit_excess")
        assert [process.get(name) for name in names] == [300, 10_000, 200, 900, 1, 9_700, 100]
        stat = process.get("stat")
        assert list(stat) == list(group.stat())
        assert {key: stat[key] for key in group.counters()} == group.counters()
        assert process.ask(None, "path") == str(group.path)
        assert process.ask(None, "name") == group.path.name


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_files_show_the_values_that_a_process_sets(group: GroupFiles, transport: str) -> None:
    group.charge(900)
    group.uncharge(600)
    with HolderProcess(group.path, transport=transport) as process:
        process.ask("memory", "set", "limit", 300)
        process.ask("memory", "set", "soft_limit", 7)
        with fails_with(errno.EBUSY):
            process.ask("memory", "set", "limit", 299)
        with fails_with(errno.ENOMEM):
            process.charge(1)
        assert (group.limit, group.soft_limit, group.max_usage, group.failcnt) == (300, 7, 900, 1)
        process.ask("memory", "reset_max_usage")
        process.ask("memory", "reset_failcnt")
        assert (group.max_usage, group.failcnt) == (300, 0)


# ---- the end of a holder


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_kill_9_releases_the_charges_of_a_process(group: GroupFiles, transport: str) -> None:
    child = group.mkdir("child")
    child.charge(3)
    process = HolderProcess(child.path, transport=transport)
    process.charge(100_000)
    process.uncharge(4_000)
    assert group.usage == 96_003
    process.kill()
    eventually(lambda: group.usage == 3)
    assert [line.command for line in child.holders()] == ["common"]
    stat = group.stat()
    assert (stat["reserved"], stat["stock"]) == (3, 0)


@pytest.mark.parametrize("end", [HolderProcess.end, HolderProcess.kill], ids=["exit", "kill -9"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_on_exit_keep_leaves_the_charges_to_the_group(
    group: GroupFiles, transport: str, end: Callable[[HolderProcess], None]
) -> None:
    process = HolderProcess(group.path, on_exit="keep", transport=transport)
    process.charge(5_000)
    process.uncharge(1)
    end(process)
    eventually(lambda: group.stat()["common"] == 4_999)
    assert group.usage == 4_999
    eventually(lambda: [line.command for line in group.holders()] == ["common"])
    group.uncharge(4_999)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_room_of_a_killed_process_can_be_charged(group: GroupFiles, transport: str) -> None:
    group.set_limit(1000)
    process = HolderProcess(group.path, transport=transport)
    process.charge(1000)
    with fails_with(errno.ENOMEM):
        group.charge(1)
    process.kill()
    eventually(group.empty)
    group.charge(1000)


def test_only_charges_of_killed_processes_are_released(group: GroupFiles) -> None:
    processes = [HolderProcess(group.path) for _ in range(4)]
    for number, process in enumerate(processes):
        process.charge(10**number)
    processes[1].kill()
    processes[3].kill()
    eventually(lambda: group.usage == 101)
    assert sorted(line.held for line in group.holders()) == [1, 100]
    processes[0].end()
    processes[2].end()
    eventually(group.empty)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_rmdir_is_ebusy_while_an_attached_process_holds_nothing(group: GroupFiles, transport: str) -> None:
    child = group.mkdir("child")
    with HolderProcess(child.path, transport=transport) as process:
        process.charge(1)
        process.uncharge(1)
        with fails_with(errno.EBUSY):
            os.rmdir(child.path)
    eventually(lambda: child.holders() == [])
    os.rmdir(child.path)


def test_rmdir_of_a_sibling_leaves_an_attached_process_alone(group: GroupFiles) -> None:
    one, two = group.mkdir("one"), group.mkdir("two")
    with HolderProcess(one.path) as process:
        process.charge(4096)
        os.rmdir(two.path)
        process.charge(4096)
        assert group.usage == 8192


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_rename_changes_nothing_for_an_attached_process(group: GroupFiles, transport: str) -> None:
    child = group.mkdir("before")
    with HolderProcess(child.path, transport=transport) as process:
        process.charge(4096)
        os.rename(child.path, group / "after")
        renamed = group.child("after")
        process.charge(1)
        assert (renamed.usage, process.held) == (4097, 4097)
        process.uncharge(4097)


def test_a_process_reports_the_new_name_of_its_group(group: GroupFiles) -> None:
    child = group.mkdir("before")
    child.set_limit(100)
    with HolderProcess(child.path, transport="memory") as process:
        os.rename(child.path, group / "after")
        assert process.ask(None, "path") == str(group / "after")
        assert process.ask(None, "name") == "after"
        with pytest.raises(Refused) as refused:
            process.charge(101)
        assert refused.value.details["group"] == str(group / "after")


def test_attaching_to_a_missing_group_is_enoent(group: GroupFiles) -> None:
    with pytest.raises(Refused) as refused:
        HolderProcess(group / "nowhere")
    assert refused.value.errno == errno.ENOENT

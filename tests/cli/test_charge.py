"""fsmount charge and uncharge: common charges of the group itself, for all resources or none."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

from tests.cli.place import refused, run, run_here
from tests.mounts import GroupFiles, as_user, eventually, mounted

NOBODY = 65534


def usages(group: GroupFiles) -> tuple[int, int]:
    return group.usage, group.number("usage", "tokens")


def test_a_charge_stays_until_it_is_uncharged(group: GroupFiles) -> None:
    done = run("charge", group.path, "memory=64K", "tokens=3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert usages(group) == (64 << 10, 3)
    assert group.stat()["common"] == 64 << 10
    done = run("uncharge", group.path, "memory=0x1000", "tokens=3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert usages(group) == (60 << 10, 0)


def test_a_refusal_has_status_75_names_the_refusing_group_and_charges_nothing(group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(10, "tokens")
    group.charge(4, "tokens")
    done = run_here("charge", child.path, "memory=4096", "tokens=7")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == (
        f"fsmount: {child.path}: 7 more of tokens would pass the limit of {group.path}: 4 of 10 are used; uncharge "
        "some there, or raise the limit\n"
    )
    assert usages(child) == (0, 0) and usages(group) == (0, 4)
    assert (group.number("failcnt", "tokens"), group.failcnt) == (1, 0)
    assert group.number("max_usage") == 0, "a part of the request was charged for a moment"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [("13G", "13G (13958643712 bytes)"), ("0x340M", "0x340M (872415232 bytes)"), ("13958643712", "13958643712")],
)
def test_a_refusal_shows_the_amount_as_typed_and_the_bytes_beside_it(group: GroupFiles, typed: str, shown: str) -> None:
    group.set_limit((1 << 30) + 1)
    group.charge("768M")
    done = run_here("charge", group.path, f"memory={typed}")
    assert done.returncode == 75
    assert done.stderr == (
        f"fsmount: {group.path}: {shown} more of memory would pass the limit of {group.path}: 768M (805306368 bytes) "
        "of about 1.0G (1073741825 bytes) are used; uncharge some there, or raise the limit\n"
    )


def test_a_refusal_shows_a_count_as_a_number(group: GroupFiles) -> None:
    group.set_limit(2048, "tokens")
    done = run_here("charge", group.path, "tokens=3K")
    assert "3K (3072) more of tokens would pass the limit" in done.stderr
    assert "0 of 2048 are used" in done.stderr


def test_an_uncharge_above_the_charge_shows_the_amount_as_typed(group: GroupFiles) -> None:
    group.charge("2G")
    error = refused(run_here("uncharge", group.path, "memory=3G"), group.path)
    assert error.startswith(
        "3G (3221225472 bytes) of memory cannot be uncharged: the group itself holds 2G (2147483648 bytes);"
    )


def test_an_uncharge_above_the_charge_of_one_resource_changes_no_resource(group: GroupFiles) -> None:
    group.charge(4096)
    group.charge(3, "tokens")
    error = refused(run_here("uncharge", group.path, "memory=4096", "tokens=4"), group.path)
    assert error.startswith("4 of tokens cannot be uncharged: the group itself holds 3;")
    assert usages(group) == (4096, 3)
    assert (group.stat()["common"], group.stat("tokens")["common"]) == (4096, 3)


def test_a_killed_charge_has_charged_all_resources_or_none(group: GroupFiles) -> None:
    """Kills the command ever nearer to the moment of its charge."""
    seconds, step = 0.1, 0.1
    seen: set[tuple[int, int]] = set()
    while len(seen) < 2 or step > 0.001:
        words = [sys.executable, "-m", "fsmount", "charge", str(group.path), "memory=4096", "tokens=3"]
        with subprocess.Popen(words) as command:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.wait(max(seconds, 0.001))
            command.kill()
        eventually(lambda: group.stat()["holders"] == 0)
        commons = (group.stat()["common"], group.stat("tokens")["common"])
        assert commons == usages(group) and commons in ((0, 0), (4096, 3))
        for resource in ("memory", "tokens"):
            group.write("force_empty", 1, resource)
        seen.add(commons)
        if len(seen) == 2:
            step *= 0.7
        seconds += -step if any(commons) else step


def test_the_charges_of_a_lease_cannot_be_uncharged(group: GroupFiles) -> None:
    with group.lease() as lease:
        lease.write("4096")
        assert "the group itself holds 0" in refused(run_here("uncharge", group.path, "memory=1"), group.path)
        assert lease.held == 4096


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([], "Missing argument"),
        (["tokens"], "'tokens' is not of the form NAME=N"),
        (["=1"], "'=1' is not of the form NAME=N"),
        (["tokens=-1"], "'-1' in 'tokens=-1' is not an amount"),
        (["tokens=max"], "'max' in 'tokens=max' is not an amount"),
        (["tokens=1\x1b[2J"], r"'1\x1b[2J' in"),
        (["tokens=8E"], "'8E' in 'tokens=8E' is above 2^63-1"),
        (["memory=1"], "memory is named twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(ascii, value)) or "nothing",
)
def test_a_wrong_amount_has_status_2_and_changes_nothing(group: GroupFiles, words: list[str], wrong: str) -> None:
    group.charge(1)
    done = run_here("charge", group.path, *["memory=1", *words][not words :])
    assert (done.returncode, done.stdout) == (2, "")
    assert wrong in done.stderr and "Traceback" not in done.stderr
    assert usages(group) == (1, 0)


@pytest.mark.root
def test_a_user_with_delegated_files_can_charge_in_a_tree_of_another_user() -> None:
    from fsmount.cli import main

    with mounted("-o", "allow_other") as tree:
        theirs = tree.root.mkdir("theirs")
        for file in (theirs.file("charge"), theirs.file("uncharge")):
            file.chmod(0o222)
        path = str(theirs.path)
        as_user(NOBODY, lambda: main(["charge", path, "memory=4096"], standalone_mode=False))
        assert theirs.usage == 4096
        as_user(NOBODY, lambda: main(["uncharge", path, "memory=4096"], standalone_mode=False))
        assert theirs.usage == 0

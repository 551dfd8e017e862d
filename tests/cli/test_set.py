"""fsmount set: limits, set in the given order."""

from __future__ import annotations

import pytest

from tests.cli.place import run_here
from tests.mounts import UNLIMITED, GroupFiles


def test_set_accepts_the_same_amounts_as_the_files(group: GroupFiles) -> None:
    done = run_here("set", group.path, "memory.limit=1G", "memory.soft_limit=0x10K", "tokens.limit=100")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (group.limit, group.soft_limit, group.number("limit", "tokens")) == (1 << 30, 0x10 << 10, 100)
    assert run_here("set", group.path, "memory.limit=max", "tokens.limit=-1").returncode == 0
    assert (group.limit, group.number("limit", "tokens")) == (UNLIMITED, UNLIMITED)


def test_a_limit_below_the_usage_has_status_75_and_earlier_limits_stay(group: GroupFiles) -> None:
    group.charge(4096)
    done = run_here("set", group.path, "tokens.limit=7", "memory.limit=4095", "tokens.soft_limit=5")
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == (
        f"fsmount: {group.path}: the limit of memory cannot be 4095: the usage is 4096; uncharge first, or set at "
        "least the usage\n"
    )
    assert (group.limit, group.number("limit", "tokens")) == (UNLIMITED, 7)
    assert group.number("soft_limit", "tokens") == UNLIMITED


def test_a_refusal_shows_the_limit_as_typed(group: GroupFiles) -> None:
    group.charge("2G")
    done = run_here("set", group.path, "memory.limit=1G")
    assert done.returncode == 75
    assert "cannot be 1G (1073741824 bytes): the usage is 2G (2147483648 bytes);" in done.stderr


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("vram=12G", "vram.limit=12G"),
        ("memory.limt=2G", "memory.limit=2G"),
        ("memory.limit_in_bytes=2G", "memory.limit=2G"),
        ("tokens.softlimit=3", "tokens.soft_limit=3"),
    ],
)
def test_an_error_about_a_wrong_key_suggests_the_right_one(group: GroupFiles, word: str, meant: str) -> None:
    done = run_here("set", group.path, word)
    assert done.returncode == 2
    assert f"R.limit and R.soft_limit can; did you mean {meant}?\n" in done.stderr


def test_an_error_about_a_missing_amount_has_an_example(group: GroupFiles) -> None:
    assert "such as memory.limit=2G" in run_here("set", group.path, "memory.limit", "2G").stderr


@pytest.mark.parametrize(
    "word", ["memory=5", "memory.usage=5", "memory.limit", "memory.limit=", "memory.limit=4kB", ".limit=max=1"]
)
def test_a_wrong_limit_has_status_2_and_sets_nothing(group: GroupFiles, word: str) -> None:
    done = run_here("set", group.path, "tokens.limit=7", word)
    assert done.returncode == 2 and done.stderr.startswith("Usage: fsmount set")
    assert group.number("limit", "tokens") == UNLIMITED

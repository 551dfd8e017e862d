"""The files of a group: their names, modes, owners, and their texts in an unused group."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

import pytest

from tests.mounts import AS_ROOT, GROUP_FILES, STAT_KEYS, UNLIMITED, GroupFiles, Mount, fails_with, resource_files

pytestmark = pytest.mark.any_user

FILES = {**resource_files("memory", "bytes"), **resource_files("tokens", "count"), **GROUP_FILES}
RESOURCES = ["memory", "tokens"]
ROOT_OPENS_ANYTHING = pytest.mark.skipif(AS_ROOT, reason="root may open any file")


def test_a_group_lists_the_files_of_every_resource_and_nothing_else(group: GroupFiles) -> None:
    assert set(os.listdir(group.path)) == set(FILES)


def test_the_root_group_has_the_same_files_and_metrics(mount: Mount) -> None:
    listed = [name for name in os.listdir(mount.path) if not (mount.path / name).is_dir()]
    assert set(listed) == {*FILES, "metrics"}


def test_children_are_listed_beside_the_files(group: GroupFiles) -> None:
    group.mkdir("web")
    group.mkdir("db")
    assert sorted(os.listdir(group.path)) == sorted([*FILES, "web", "db"])


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_made_with_its_mode(group: GroupFiles, name: str) -> None:
    status = os.stat(group / name)
    assert stat.S_ISREG(status.st_mode)
    assert oct(stat.S_IMODE(status.st_mode)) == oct(FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_size_of_its_kind_and_one_link(group: GroupFiles, name: str) -> None:
    status = os.stat(group / name)
    assert status.st_nlink == 1
    if name.endswith((".holders", ".why", ".threshold", ".probe")):  # files whose text may be long
        assert status.st_size >= 1 << 16 and status.st_size.bit_count() == 1
    else:
        assert status.st_size == (4096 if FILES[name] & 0o444 else 0)


def test_files_and_directory_belong_to_the_maker_of_the_group(group: GroupFiles) -> None:
    for path in [group.path, *(group / name for name in FILES)]:
        status = os.stat(path)
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid()), path


def test_every_file_and_directory_has_its_own_inode(group: GroupFiles) -> None:
    child = group.mkdir("child")
    paths = [g.path / name for g in (group, child) for name in (".", *FILES)]
    inodes = [os.stat(path).st_ino for path in paths]
    assert len(set(inodes)) == len(paths)


def test_an_inode_number_is_the_same_in_a_listing_and_in_stat(group: GroupFiles) -> None:
    group.mkdir("child")
    with os.scandir(group.path) as entries:
        for entry in entries:
            assert entry.inode() == os.stat(entry.path).st_ino, entry.name


def test_a_listing_distinguishes_files_from_directories(group: GroupFiles) -> None:
    group.mkdir("child")
    with os.scandir(group.path) as entries:
        kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    assert kinds == {**dict.fromkeys(FILES, False), "child": True}


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("usage", "0\n"),
        ("limit", f"{UNLIMITED}\n"),
        ("soft_limit", f"{UNLIMITED}\n"),
        ("max_usage", "0\n"),
        ("failcnt", "0\n"),
        ("holders", ""),
        ("lease", "0\n"),
    ],
)
def test_a_new_group_reads_as_unused_and_unlimited(group: GroupFiles, resource: str, name: str, text: str) -> None:
    assert group.read(name, resource) == text


@pytest.mark.parametrize("resource", RESOURCES)
def test_stat_has_one_key_and_value_a_line_in_the_order_of_the_contract(group: GroupFiles, resource: str) -> None:
    lines = group.read("stat", resource).splitlines()
    assert all(len(line.split(" ")) == 2 for line in lines)
    keys = [line.split(" ")[0] for line in lines]
    assert keys[: len(STAT_KEYS)] == STAT_KEYS
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("resource", RESOURCES)
def test_the_stat_of_a_new_group_shows_no_usage_and_no_limit(group: GroupFiles, resource: str) -> None:
    counters = group.counters(resource)
    unlimited = {"limit", "soft_limit", "hierarchical_limit", "margin", "hierarchical_margin"}
    assert {key for key, value in counters.items() if value == UNLIMITED} == unlimited
    assert {value for key, value in counters.items() if key not in unlimited} == {0}


@pytest.mark.parametrize("name", [name for name, mode in FILES.items() if not mode & 0o400])
def test_a_write_only_file_answers_einval_to_a_read(group: GroupFiles, name: str) -> None:
    os.chmod(group / name, 0o600)
    with fails_with(22):
        (group / name).read_bytes()


@pytest.mark.parametrize("name", [name for name, mode in FILES.items() if not mode & 0o200])
@pytest.mark.parametrize("text", ["0", "1", "\n", "max", "x"])
def test_a_read_only_file_answers_einval_to_a_write(group: GroupFiles, name: str, text: str) -> None:
    os.chmod(group / name, 0o644)
    before = (group / name).read_text()
    fd = os.open(group / name, os.O_RDWR)
    try:
        with fails_with(22):
            os.write(fd, text.encode())
        assert os.write(fd, b"") == 0
    finally:
        os.close(fd)
    assert (group / name).read_text() == before


@ROOT_OPENS_ANYTHING
@pytest.mark.parametrize("name", FILES)
def test_the_owner_cannot_open_a_file_against_its_mode(group: GroupFiles, name: str) -> None:
    allowed = {os.O_RDONLY: FILES[name] & 0o400, os.O_WRONLY: FILES[name] & 0o200}
    for flags, may in allowed.items():
        if may:
            os.close(os.open(group / name, flags))
        else:
            with fails_with(13):
                os.open(group / name, flags)


def test_st_mtime_of_a_directory_moves_when_a_group_is_made_or_removed_in_it(group: GroupFiles) -> None:
    times = [os.stat(group.path).st_mtime_ns]
    for change in (
        partial(os.mkdir, group / "child"),
        partial(os.rmdir, group / "child"),
    ):
        change()
        times.append(os.stat(group.path).st_mtime_ns)
    assert times == sorted(set(times))


@pytest.mark.parametrize("name", [".", "memory.limit_in_bytes", "tokens.stat"])
def test_utime_sets_the_times_that_stat_shows(group: GroupFiles, name: str) -> None:
    os.utime(group / name, ns=(1_000_000_001, 2_000_000_002))
    status = os.stat(group / name)
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_000_000_001, 2_000_000_002)


def test_a_new_group_has_the_current_time(group: GroupFiles, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.touch()
    child = group.mkdir("child")
    after = tmp_path / "after"
    after.touch()
    # A time stamp of a file is the time of the last clock tick.
    tick = 20_000_000
    for path in (child.path, child / "memory.stat"):
        made = os.stat(path).st_mtime_ns
        assert before.stat().st_mtime_ns - tick <= made <= after.stat().st_mtime_ns + tick


def test_resources_are_counted_separately(group: GroupFiles) -> None:
    group.set_limit(10, "tokens")
    group.charge(7, "tokens")
    group.charge(1000)
    assert (group.read("usage", "tokens"), group.read("usage")) == ("7\n", "1000\n")
    with fails_with(12):
        group.charge(4, "tokens")
    assert (group.read("failcnt", "tokens"), group.read("failcnt")) == ("1\n", "0\n")

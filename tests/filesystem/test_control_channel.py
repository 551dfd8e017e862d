"""The control channel of each directory, which leads processes to the region: hidden, private, safe from any input."""

from __future__ import annotations

import errno
import json
import os
import random
import stat
from pathlib import Path

import pytest

from tests.holder_process import HolderProcess
from tests.mounts import GroupFiles, Mount, fails_with

pytestmark = pytest.mark.any_user

NAME = ".fsmount"


def answer(directory: Path) -> dict[str, object]:
    answer = json.loads((directory / NAME).read_bytes())
    assert isinstance(answer, dict)
    return answer


def command(directory: Path, text: bytes) -> None:
    fd = os.open(directory / NAME, os.O_RDWR)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def test_no_directory_lists_the_control_channel(mount: Mount, group: GroupFiles) -> None:
    assert NAME not in os.listdir(mount.path)
    assert NAME not in os.listdir(group.path)


def test_only_the_owner_of_a_directory_opens_its_control_channel(mount: Mount, group: GroupFiles) -> None:
    for directory in (mount.path, group.path):
        status = os.stat(directory / NAME)
        assert (oct(stat.S_IMODE(status.st_mode)), status.st_uid) == ("0o600", os.geteuid())


def test_the_control_channel_names_the_region_and_the_group(mount: Mount, group: GroupFiles) -> None:
    here, above = answer(group.path), answer(mount.path)
    assert Path(str(here["region"])).stat().st_uid == os.geteuid()
    assert here["server"] == above["server"] == (mount.daemon and mount.daemon.pid)
    assert here["group"] != above["group"]
    same = ("region", "tree", "server", "version")
    assert [here[key] for key in same] == [above[key] for key in same]


def test_the_region_is_closed_to_other_users(mount: Mount) -> None:
    region = Path(str(answer(mount.path)["region"]))
    assert oct(stat.S_IMODE(region.stat().st_mode)) == "0o600"
    assert oct(stat.S_IMODE(region.parent.stat().st_mode)) == "0o700"


@pytest.mark.parametrize(
    "text",
    [
        *(b"\n", b"holder", b"holder x", b"holder -1", b"holder 1 2", b"changed", b"changed x", b"umount now", b"x"),
        *(b"umount keep please", b"HOLDER 1", b"\0", b"\xff" * 100, b"holder " + b"9" * 30, b"holder 1e3"),
    ],
)
def test_an_unknown_command_is_refused(mount: Mount, text: bytes) -> None:
    with fails_with(errno.EINVAL, errno.ENODEV, errno.ERANGE):
        command(mount.path, text)


def test_a_missing_holder_cannot_be_bound(mount: Mount) -> None:
    with fails_with(errno.ENODEV):
        command(mount.path, b"holder 12345678901234567\n")


def test_random_writes_leave_the_mount_and_its_counters_alone(mount: Mount, group: GroupFiles, seed: int) -> None:
    rng = random.Random(seed)
    group.charge(100)
    with HolderProcess(group.path, transport="memory") as process:
        process.charge(50)
        before = group.counters()
        for _ in range(500):
            word = rng.choice((b"holder ", b"changed ", b"holder", b"keep ", b"", b" "))
            text = word + rng.choice((rng.randbytes(rng.randrange(1, 20)), b"%d" % rng.randrange(2**64), b"%d\n" % 3))
            try:
                command(rng.choice((mount.path, group.path)), text)
            except OSError as error:
                refused = error.errno
            else:
                refused = 0
            assert refused in (0, errno.EINVAL, errno.ENODEV, errno.ERANGE, errno.EPERM), text
        assert group.counters() == before
        process.charge(1)
    mount.check()


def test_the_control_channel_of_a_removed_group_answers_enodev(group: GroupFiles) -> None:
    child = group.mkdir("child")
    fd = os.open(child / NAME, os.O_RDWR)
    try:
        os.rmdir(child.path)
        with fails_with(errno.ENODEV):
            os.read(fd, 4096)
        for text in (b"holder", b"holder x", b"nonsense"):
            with fails_with(errno.ENODEV):
                os.write(fd, text)
    finally:
        os.close(fd)


def test_the_control_channel_can_neither_be_removed_nor_renamed_nor_replaced(group: GroupFiles) -> None:
    with fails_with(errno.EPERM):
        os.unlink(group / NAME)
    with fails_with(errno.ENOTDIR):
        os.rename(group / NAME, group / "other")
    with fails_with(errno.EEXIST):
        os.mkdir(group / NAME)
    with fails_with(errno.EEXIST):
        os.open(group / NAME, os.O_CREAT | os.O_EXCL | os.O_WRONLY)

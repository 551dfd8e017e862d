"""A read-only mount, and a read-only bind mount: values can be read, and each change is an error that says why."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

import fsmount
from fsmount import Tree
from tests.cli.place import run
from tests.mounts import mounted

TRANSPORTS = ["auto", "memory", "files"]


@contextmanager
def bound(source: Path, directory: Path) -> Iterator[Path]:
    """A read-only bind mount."""
    directory.mkdir()
    subprocess.run(["mount", "--bind", source, directory], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.fixture(params=["mount", pytest.param("bind mount", marks=pytest.mark.root)])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The read-only directory of a group that holds 5 of 100."""
    read_only = request.param == "mount"
    with mounted("--resource", "memory", "--resource", "tokens:count", *(["-o", "ro"] if read_only else [])) as mount:
        assert mount.region is not None
        with Tree.open(mount.region) as tree:
            made = tree.root.mkdir("group")
            made.mkdir("below")
            made["memory"].limit = 100
            made["memory"].charge_common(5)
        if read_only:
            yield mount.path / "group"
        else:
            with bound(mount.path, tmp_path / "bound") as seen:
                yield seen / "group"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_all_values_can_be_read(group: Path, transport: fsmount.Transport) -> None:
    with fsmount.attach(group, transport=transport) as attached:
        memory = attached["memory"]
        assert (memory.usage, memory.limit, memory.soft_limit) == (5, 100, fsmount.UNLIMITED)
        assert (memory.max_usage, memory.failcnt, memory.margin, memory.held) == (5, 0, 95, 0)
        assert (memory.stat()["common"], memory.events()["limit"], memory.why()) == (5, 0, [])
        assert (attached.path, attached.name, attached.resources) == (str(group), "group", ("memory", "tokens"))
        assert [child.name for child in attached.children()] == ["below"]
        assert attached.parent is not None and attached.parent["memory"].usage == 5


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_change_is_an_error_that_says_why(group: Path, transport: fsmount.Transport) -> None:
    def hold() -> None:
        with attached["memory"].hold(1):
            pytest.fail("it is charged")

    with fsmount.attach(group, transport=transport) as attached:
        memory = attached["memory"]
        operations: list[Callable[[], object]] = [
            lambda: memory.charge(1), lambda: memory.try_charge(1), lambda: memory.uncharge(1), hold,
            lambda: memory.charge(1, wait=True, timeout=60), lambda: memory.charge_nofail(1), lambda: memory.give(1),
            lambda: memory.take(1), lambda: setattr(memory, "limit", 50), lambda: setattr(memory, "soft_limit", 50),
            lambda: attached.charge(memory=1, tokens=1), memory.reset_failcnt, memory.reset_max_usage,
            lambda: memory.charge_common(1), lambda: memory.uncharge_common(1), lambda: trio.run(memory.wait_charge, 1),
        ]  # fmt: skip
        for operation in operations:
            with pytest.raises(OSError, match="mounted read-only here, so nothing can be charged or set") as caught:
                operation()
            assert (caught.value.errno, caught.value.filename) == (errno.EROFS, str(group))
        assert (memory.usage, memory.limit) == (5, 100)


def test_the_commands_that_read_work(group: Path) -> None:
    assert run("get", group, "memory.usage").stdout == "5\n"
    done = run("tree", group, "-r", "memory")
    assert done.returncode == 0 and "below" in done.stdout


@pytest.mark.parametrize(
    "words",
    [["set", "{}", "memory.limit=5"], ["charge", "{}", "memory=1"], ["charge", "{}", "memory=1", "tokens=1"],
     ["charge", "--wait", "{}", "memory=1"], ["uncharge", "{}", "memory=1"], ["wait", "{}", "memory=1"],
     ["run", "-g", "{}", "-r", "memory=1", "--", "true"], ["run", "-g", "{}", "-r", "memory=1", "--wait", "true"]],
    ids=" ".join,
)  # fmt: skip
def test_the_commands_that_change_something_say_what_to_do(group: Path, words: list[str]) -> None:
    done = run(*(word.format(group) for word in words))
    assert (done.returncode, done.stdout) == (125 if words[0] == "run" else 1, "")
    assert done.stderr.startswith(f"fsmount: {group}: the tree is mounted read-only here") and "remount" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.root
def test_the_read_write_mount_of_the_tree_can_still_be_charged(tmp_path: Path) -> None:
    with mounted() as mount, bound(mount.path, tmp_path / "bound") as seen:
        group = mount.root.mkdir("group")
        with fsmount.attach(group.path) as attached, fsmount.attach(seen / "group") as shown:
            attached["memory"].charge(7)
            assert shown["memory"].usage == 7
            with pytest.raises(OSError, match="read-only"):
                shown["memory"].charge(1)
        assert group.usage == 0

"""Fixtures of all tests: seeds, shells, mounts that must end well, and the tests of root and of users."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.cli.place import Place
from tests.mounts import AS_ROOT, GroupFiles, Mount, mounted

# A run under nohup or in the background would pass ignored signals on to its shells and daemons.
for _number, _default in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)


def pytest_report_header() -> str:
    return f"fsmount: as {'root' if AS_ROOT else f'the user {os.geteuid()}'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") and not AS_ROOT:
            item.add_marker(pytest.mark.skip(reason="needs root: other users, or chown"))
        if item.get_closest_marker("user") and AS_ROOT:
            item.add_marker(pytest.mark.skip(reason="needs an ordinary user: root may do everything"))


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether this is a long run, with FSMOUNT_SOAK=1."""
    return os.environ.get("FSMOUNT_SOAK", "0") not in ("", "0")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed, printed with the command that repeats the run."""
    number = int(os.environ.get("FSMOUNT_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed {number}; the same again: FSMOUNT_SEED={number} pytest '{request.node.nodeid}'")
    return number


@pytest.fixture(params=["bash", "dash", "busybox sh"], ids=["bash", "dash", "busybox"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """The command that starts a shell; `-c` and a script follow."""
    command: list[str] = request.param.split()
    assert shutil.which(command[0]), f"{command[0]} is not installed: run scripts/setup"
    return command


@pytest.fixture(scope="module")
def mount() -> Iterator[Mount]:
    """A mount with one resource of each unit and default options."""
    with mounted("--resource", "memory", "--resource", "tokens:count") as tree:
        yield tree


@pytest.fixture
def new_group(request: pytest.FixtureRequest) -> Iterator[Callable[[Mount], GroupFiles]]:
    """Makes a group in a mount for this test alone; it must be removable after the test."""
    made: list[GroupFiles] = []

    def make(tree: Mount) -> GroupFiles:
        group = tree.root.mkdir(f"{request.node.originalname}-{len(made)}")
        made.append(group)
        return group

    yield make
    for group in reversed(made):
        group.remove()


@pytest.fixture
def group(mount: Mount, new_group: Callable[[Mount], GroupFiles]) -> Iterator[GroupFiles]:
    """A new group in the module's mount; the daemon must be sound after the test."""
    yield new_group(mount)
    mount.check()


@pytest.fixture
def place() -> Iterator[Place]:
    """A mount point for this test alone."""
    made = Place()
    try:
        yield made
    finally:
        made.destroy()


@pytest.fixture
def other_place() -> Iterator[Place]:
    made = Place("other")
    try:
        yield made
    finally:
        made.destroy()

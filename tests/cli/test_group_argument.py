"""Every command that takes a GROUP, with what is none or not ours: one line, the right status, and nothing charged."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from fsmount.cli import COMMANDS, main
from tests.cli.place import Place, run_here
from tests.mounts import UNLIMITED, GroupFiles, Mount, as_user, mounted


class Command(NamedTuple):
    """Its words, {} for the group; its status when that is none; whether it changes nothing."""

    words: tuple[str, ...]
    status: int = 1
    reads: bool = False


TAKING_A_GROUP = {
    "get": Command(("get", "{}", "memory.usage"), reads=True),
    "set": Command(("set", "{}", "memory.limit=1")),
    "charge": Command(("charge", "{}", "memory=1")),
    "charge --wait": Command(("charge", "--wait", "{}", "memory=1")),
    "wait": Command(("wait", "{}", "memory=1")),
    "run --wait": Command(("run", "-g", "{}", "-r", "memory=1", "--wait", "--", "false"), status=125),
    "uncharge": Command(("uncharge", "{}", "memory=1")),
    "run": Command(("run", "-g", "{}", "-r", "memory=1", "--", "false"), status=125),
    "tree": Command(("tree", "--json", "{}"), reads=True),
    "top": Command(("top", "--json", "-n", "1", "{}"), reads=True),
    "top --holders": Command(("top", "--json", "-n", "1", "--holders", "{}"), reads=True),
}

# A user of no name.
ANOTHER = 60_101


def takes_a_group(name: str) -> bool:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return any("GROUP" in (parameter.metavar or "") for parameter in command.params)


def test_no_command_is_left_out() -> None:
    assert {command.words[0] for command in TAKING_A_GROUP.values()} == {
        name for name in COMMANDS if takes_a_group(name)
    }


@pytest.fixture(params=TAKING_A_GROUP.values(), ids=list(TAKING_A_GROUP))
def command(request: pytest.FixtureRequest) -> Command:
    assert isinstance(request.param, Command)
    return request.param


def done(command: Command, path: object) -> subprocess.CompletedProcess[str]:
    return run_here(*(word.format(path) for word in command.words))


def done_by_another(command: Command, path: object) -> subprocess.CompletedProcess[str]:
    """The same by another user."""

    def act() -> list[object]:
        answer = done(command, path)
        return [answer.returncode, answer.stdout, answer.stderr]

    assert takes_a_group(command.words[0])  # imported here: he may be kept from reading the checkout
    return subprocess.CompletedProcess(command.words, *as_user(ANOTHER, act))


def refusal(command: Command, path: object, answer: subprocess.CompletedProcess[str]) -> str:
    """What the command says is wrong with the group: the rest of its one line."""
    start = f"fsmount: {path}: "
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (command.status, "", 1), answer
    assert answer.stderr.startswith(start) and answer.stderr.endswith("\n"), answer
    return answer.stderr[len(start) : -1]


def said(command: Command, path: object) -> str:
    return refusal(command, path, done(command, path))


def test_what_is_no_group_is_told_in_one_line(command: Command, mount: object, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert said(command, tmp_path / "none").startswith("there is no such directory; mkdir makes")
    assert said(command, file).startswith("not a directory; a group is")
    assert said(command, tmp_path).startswith("this directory is in no fsmount tree; name a directory of a mount")


def test_an_empty_path_is_not_the_current_directory(
    command: Command, group: GroupFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(group.path)
    assert said(command, "").startswith("there is no such directory")
    assert (group.usage, group.max_usage) == (0, 0)


def test_a_path_that_is_no_text_goes_to_no_terminal_as_it_is(command: Command) -> None:
    answer = done(command, "\x1b[2Jx\udcff")
    assert refusal(command, r"\x1b[2Jx\udcff", answer).startswith("there is no such directory")


def test_a_group_that_vanished_is_told(command: Command, group: GroupFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = group.mkdir("gone")
    monkeypatch.chdir(gone.path)
    gone.path.rmdir()
    assert said(command, ".").startswith("there is no such directory")
    assert (group.usage, group.max_usage) == (0, 0)


@pytest.mark.user
def test_a_group_that_may_not_be_read_is_told(command: Command, group: GroupFiles) -> None:
    closed = group.mkdir("closed")
    closed.path.chmod(0)
    assert said(command, closed.path) == (
        f"Permission denied ({closed.path}); its owner or root can permit it with chmod or chown"
    )
    closed.path.chmod(0o755)
    assert (group.usage, group.max_usage) == (0, 0)


@pytest.mark.root
def test_a_mount_of_another_user_is_told(command: Command, group: GroupFiles) -> None:
    told = refusal(command, group.path, done_by_another(command, group.path))
    assert told.startswith("Permission denied (")
    assert (group.usage, group.max_usage) == (0, 0)


@pytest.fixture(scope="module")
def shared() -> Iterator[Mount]:
    """A mount every user sees."""
    with mounted("-o", "allow_other") as mount:
        yield mount


@pytest.mark.root
def test_in_a_group_of_another_user_one_may_look_and_no_more(command: Command, shared: Mount) -> None:
    root = shared.root
    root.charge(1)
    answer = done_by_another(command, root.path)
    if command.reads:
        assert (answer.returncode, answer.stderr) == (0, ""), answer
    else:
        told = refusal(command, root.path, answer)
        assert told.startswith(f"Permission denied ({root.path}/"), told
    assert (root.usage, root.max_usage, root.limit) == (1, 1, UNLIMITED)
    root.uncharge(1)


def test_a_mount_without_its_daemon_is_told(place: Place) -> None:
    place.mount()
    place.signal(signal.SIGKILL)
    for command in TAKING_A_GROUP.values():
        assert said(command, place.path).startswith("the mount has lost its daemon: `fsmount mount` takes it over")

"""The argument GROUP of every command: a path that is no usable group is an error of one line and charges nothing."""

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
    """The words of a command, with {} for the group; its status on an error; whether it only reads."""

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

# A user without a name.
ANOTHER = 60_101


def takes_a_group(name: str) -> bool:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return any("GROUP" in (parameter.metavar or "") for parameter in command.params)


def test_the_list_contains_every_command_that_takes_a_group() -> None:
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
    """Runs the command as another user."""

    def act() -> list[object]:
        answer = done(command, path)
        return [answer.returncode, answer.stdout, answer.stderr]

    assert takes_a_group(
        command.words[0]
    )  # imports the command here: the other user may be unable to read the checkout
    return subprocess.CompletedProcess(command.words, *as_user(ANOTHER, act))


def refusal(command: Command, path: object, answer: subprocess.CompletedProcess[str]) -> str:
    """The error about the group that the command prints, without its beginning."""
    start = f"fsmount: {path}: "
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (command.status, "", 1), answer
    assert answer.stderr.startswith(start) and answer.stderr.endswith("\n"), answer
    return answer.stderr[len(start) : -1]


def error_of(command: Command, path: object) -> str:
    return refusal(command, path, done(command, path))


def test_a_path_that_is_no_group_is_an_error_of_one_line(command: Command, mount: object, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert error_of(command, tmp_path / "none").startswith("there is no such directory; mkdir makes")
    assert error_of(command, file).startswith("not a directory; a group is")
    assert error_of(command, tmp_path).startswith("this directory is in no fsmount tree; name a directory of a mount")


def test_an_empty_path_is_not_the_current_directory(
    command: Command, group: GroupFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(group.path)
    assert error_of(command, "").startswith("there is no such directory")
    assert (group.usage, group.max_usage) == (0, 0)


def test_an_error_escapes_control_characters_of_a_path(command: Command) -> None:
    answer = done(command, "\x1b[2Jx\udcff")
    assert refusal(command, r"\x1b[2Jx\udcff", answer).startswith("there is no such directory")


def test_a_removed_group_is_an_error(command: Command, group: GroupFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = group.mkdir("gone")
    monkeypatch.chdir(gone.path)
    gone.path.rmdir()
    assert error_of(command, ".").startswith("there is no such directory")
    assert (group.usage, group.max_usage) == (0, 0)


@pytest.mark.user
def test_an_unreadable_group_is_an_error_that_names_chmod(command: Command, group: GroupFiles) -> None:
    closed = group.mkdir("closed")
    closed.path.chmod(0)
    assert error_of(command, closed.path) == (
        f"Permission denied ({closed.path}); its owner or root can permit it with chmod or chown"
    )
    closed.path.chmod(0o755)
    assert (group.usage, group.max_usage) == (0, 0)


@pytest.mark.root
def test_a_mount_of_another_user_is_an_error(command: Command, group: GroupFiles) -> None:
    error = refusal(command, group.path, done_by_another(command, group.path))
    assert error.startswith("Permission denied (")
    assert (group.usage, group.max_usage) == (0, 0)


@pytest.fixture(scope="module")
def shared() -> Iterator[Mount]:
    """A mount that is open to all users."""
    with mounted("-o", "allow_other") as mount:
        yield mount


@pytest.mark.root
def test_commands_only_read_in_a_group_of_another_user(command: Command, shared: Mount) -> None:
    root = shared.root
    root.charge(1)
    answer = done_by_another(command, root.path)
    if command.reads:
        assert (answer.returncode, answer.stderr) == (0, ""), answer
    else:
        error = refusal(command, root.path, answer)
        assert error.startswith(f"Permission denied ({root.path}/"), error
    assert (root.usage, root.max_usage, root.limit) == (1, 1, UNLIMITED)
    root.uncharge(1)


def test_a_mount_without_its_daemon_is_an_error_that_names_the_remedy(place: Place) -> None:
    place.mount()
    place.signal(signal.SIGKILL)
    for command in TAKING_A_GROUP.values():
        assert error_of(command, place.path).startswith("the mount has lost its daemon: `fsmount mount` takes it over")

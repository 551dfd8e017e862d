"""Every command that takes a GROUP, with what is none: one line, the right status, and nothing charged."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.place import Place, refused, run_here
from tests.mounts import GroupFiles

COMMANDS = {
    "get": ["get", "{}"],
    "set": ["set", "{}", "memory.limit=1"],
    "tree": ["tree", "{}"],
    "charge": ["charge", "{}", "memory=1"],
    "uncharge": ["uncharge", "{}", "memory=1"],
}


@pytest.fixture(params=COMMANDS, ids=str)
def command(request: pytest.FixtureRequest) -> list[str]:
    return COMMANDS[request.param]


def said(command: list[str], path: object) -> str:
    """What the command says is wrong with the group."""
    return refused(run_here(*(word.format(path) for word in command)), path)


def test_what_is_no_group_is_told_in_one_line(command: list[str], mount: object, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert said(command, tmp_path / "none").startswith("there is no such directory; mkdir makes")
    assert said(command, file).startswith("not a directory; a group is")
    assert said(command, tmp_path).startswith("this directory is in no fsmount tree; name a directory of a mount")


def test_an_empty_path_is_not_the_current_directory(
    command: list[str], group: GroupFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(group.path)
    assert said(command, "").startswith("there is no such directory")
    assert group.usage == 0


def test_a_path_that_is_no_text_goes_to_no_terminal_as_it_is(command: list[str]) -> None:
    done = run_here(*(word.format("\x1b[2Jx\udcff") for word in command))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(r"fsmount: \x1b[2Jx\udcff: there is no such directory")


def test_a_group_that_vanished_is_told(command: list[str], group: GroupFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = group.mkdir("gone")
    monkeypatch.chdir(gone.path)
    gone.path.rmdir()
    assert said(command, ".").startswith("there is no such directory")


@pytest.mark.user
def test_a_group_that_may_not_be_read_is_told(command: list[str], group: GroupFiles) -> None:
    closed = group.mkdir("closed")
    closed.path.chmod(0)
    assert said(command, closed.path) == (
        f"Permission denied ({closed.path}); its owner or root can permit it with chmod or chown"
    )
    closed.path.chmod(0o755)


def test_a_mount_without_its_daemon_is_told(place: Place) -> None:
    place.mount()
    place.signal(signal.SIGKILL)
    for command in COMMANDS.values():
        assert said(command, place.path).startswith("the mount has lost its daemon: `fsmount mount` takes it over")

"""Every command that takes a GROUP, with what is none: one line, the right status, and nothing charged."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.place import Place, refused, run
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


def said(command: list[str], path: object, cwd: Path | None = None) -> str:
    """What the command says is wrong with the group."""
    return refused(run(*(word.format(path) for word in command), cwd=cwd), path)


def test_what_is_no_group_is_told_in_one_line(command: list[str], mount: object, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert said(command, tmp_path / "none").startswith("there is no such directory; mkdir makes")
    assert said(command, file).startswith("not a directory; a group is")
    assert said(command, tmp_path).startswith("this directory is in no fsmount tree; name a directory of a mount")


def test_an_empty_path_is_not_the_current_directory(command: list[str], group: GroupFiles) -> None:
    assert said(command, "", cwd=group.path).startswith("there is no such directory")
    assert group.usage == 0


def test_a_path_that_is_no_text_goes_to_no_terminal_as_it_is(command: list[str]) -> None:
    done = run(*(word.format("\x1b[2Jx\udcff") for word in command))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(r"fsmount: \x1b[2Jx\udcff: there is no such directory")


def test_a_group_that_vanished_is_told(command: list[str], group: GroupFiles) -> None:
    gone = group.mkdir("gone")
    program = shlex.join([sys.executable, "-m", "fsmount", *(word.format(".") for word in command)])
    script = f"cd {shlex.quote(str(gone.path))} && rmdir ../gone && {program}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert refused(done, ".").startswith("there is no such directory")


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

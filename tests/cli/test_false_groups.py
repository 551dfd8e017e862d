"""A directory that another user has made to look like a group: commands of root change no other file through it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.place import Place, refused, run, run_here, untouched
from tests.mounts import as_user, resource_files

pytestmark = pytest.mark.root

THEM = 60_101

COMMANDS: list[list[object]] = [
    ["set", "memory.limit=1G"],
    ["set", "memory.soft_limit=1G"],
    ["get"],
    ["charge", "memory=5"],
    ["uncharge", "memory=5"],
    ["run", "-g", ..., "-r", "memory=5", "--", "true"],
    ["tree"],
    ["exporter", "--listen", "127.0.0.1:0"],
    ["umount"],
    ["umount", "--keep"],
    ["doctor"],
    ["save", ..., "-"],
]


def arguments(command: list[object], group: Path) -> list[object]:
    if ... in command:
        return [group if word is ... else word for word in command]
    return [command[0], group, *command[1:]]


@pytest.fixture
def victim(place: Place) -> Iterator[Path]:
    with untouched(place.directory / "victim") as file:
        yield file


def false_group(place: Place, make: Callable[[str], object]) -> Path:
    """A directory of another user, in which `make` has made each file of a group."""
    directory = place.directory / "group"
    directory.mkdir()
    os.chown(directory, THEM, THEM)

    def make_files() -> None:
        for name in [*resource_files(), "lease", "metrics", ".fsmount", ".memory.groups"]:
            make(str(directory / name))

    as_user(THEM, make_files)
    return directory


def run_command(command: list[object], group: Path) -> subprocess.CompletedProcess[str]:
    """Runs it here, except `fsmount run`, which ends its process if it succeeds."""
    return (run if command[0] == "run" else run_here)(*arguments(command, group))


def run_all(group: Path) -> None:
    for command in COMMANDS:
        done = run_command(command, group)
        assert done.returncode == (125 if "run" in command else 1) and done.stderr.count("\n") == 1, done
        assert done.stderr.startswith("fsmount: ") and "Error" not in done.stderr, done


def test_no_command_follows_a_link(place: Place, victim: Path) -> None:
    run_all(false_group(place, lambda path: os.symlink(victim, path)))


def test_no_command_waits_for_a_pipe(place: Place) -> None:
    run_all(false_group(place, lambda path: os.mkfifo(path, 0o666)))


def test_no_command_writes_to_a_hard_link(place: Place, victim: Path) -> None:
    """Such links exist where fs.protected_hardlinks is 0."""
    group = false_group(place, lambda path: None)
    for name in [*resource_files(), "lease", "metrics", ".fsmount", ".memory.groups"]:
        os.link(victim, group / name)
    run_all(group)


def test_no_command_follows_a_link_among_plausible_files(place: Place, victim: Path) -> None:
    """The directory looks like a group until a command opens the file that is a link."""
    group = false_group(place, lambda path: Path(path).write_text("1\n") and None)
    for name in ("memory.limit_in_bytes", "memory.charge", "memory.lease", "lease"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(group / name)
        as_user(THEM, lambda name=name: os.symlink(victim, group / name))  # type: ignore[misc]
    for command in COMMANDS:
        assert "Traceback" not in run(*arguments(command, group)).stderr, command


def test_root_uses_no_group_through_a_link_of_another_user(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    theirs = place.directory / "theirs"
    theirs.mkdir()
    os.chown(theirs, THEM, THEM)
    as_user(THEM, lambda: os.symlink(group.path, theirs / "link"))
    own = place.directory / "own"
    own.symlink_to(group.path)
    wanted = f"the link link belongs to user {THEM}, who can lead it anywhere: name what it leads to"
    commands: list[list[object]] = [
        ["set", ..., "memory.limit=1"],
        ["charge", ..., "memory=5"],
        ["get", ...],
        ["tree", ...],
    ]
    for command in commands:
        named = [theirs / "link" if word is ... else word for word in command]
        assert refused(run_here(*named), theirs / "link") == wanted
        assert run_here(*(own if word is ... else word for word in command)).returncode in (0, 75)
    group.write("force_empty", "1")
    place.umount()


@pytest.mark.parametrize("text", ["", "nonsense\n", "usage\n", "usage many\n", "1 2 3\n", "\x80\n"])
def test_no_command_shows_a_traceback_for_files_with_nonsense(place: Place, text: str) -> None:
    group = false_group(place, lambda path: Path(path).write_text(text) and None)
    for command in COMMANDS:
        done = run_command(command, group)
        assert done.stderr.count("\n") <= 1 and "Error" not in done.stderr, done

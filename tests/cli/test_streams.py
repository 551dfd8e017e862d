"""Full or closed standard output and standard error: one line about it, and the right exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.cli import COMMANDS
from tests.cli.place import Place
from tests.mounts import GroupFiles

#: Commands that write to standard output; {} is a group, {m} the mount point.
WRITING = [
    ["--help"],
    ["--version"],
    ["get", "--help"],
    ["get", "{}"],
    ["get", "{}", "memory.usage"],
    ["get", "{}", "--json"],
    ["tree", "{}"],
    ["tree", "{}", "--json"],
    ["top", "{}", "-n", "1"],
    ["top", "{}", "-n", "1", "--json"],
    ["top", "{}", "--holders", "-n", "2", "-d", "0.1"],
    ["save", "{m}", "-"],
    ["doctor", "{m}", "--json"],
    ["completion", "bash"],
    ["completion", "zsh"],
    ["completion", "fish"],
]
FULL = "standard output: cannot be written: No space left on device"
CLOSED = "standard output: cannot be written: it is closed"


def in_shell(redirections: str, *words: object, module: str = "fsmount") -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", module, *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.fixture
def words(request: pytest.FixtureRequest, group: GroupFiles) -> list[str]:
    given: list[str] = request.param
    return [word.format(group.path, m=group.path.parent) for word in given]


def spelled(words: list[str]) -> str:
    return " ".join(words) or "nothing"


@pytest.mark.parametrize("words", WRITING, ids=spelled, indirect=True)
@pytest.mark.parametrize(("redirection", "error"), [(">/dev/full", FULL), (">&-", CLOSED)], ids=["full", "closed"])
def test_output_that_cannot_be_written_is_an_error_of_one_line(words: list[str], redirection: str, error: str) -> None:
    done = in_shell(redirection, *words)
    assert (done.returncode, done.stderr) == (1, f"fsmount: {error}\n")


@pytest.mark.parametrize("command", [*COMMANDS, "unmount"])
def test_the_help_of_each_command_fails_on_a_full_output(command: str) -> None:
    done = in_shell(">/dev/full", command, "--help")
    assert (done.returncode, done.stderr) == (1, f"fsmount: {FULL}\n")


@pytest.mark.parametrize("words", WRITING, ids=spelled, indirect=True)
def test_a_closed_pipe_prints_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fsmount", *words]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["get", "/nope"], 1),
        (["umuont"], 2),
        (["mount"], 2),
        (["get", "--nope"], 2),
        (["umount", "/nope"], 1),
        (["doctor", "/nope"], 1),
        (["charge", "/nope", "memory=1"], 1),
        (["exporter", "/nope"], 1),
        (["run", "-g", "/nope", "-r", "memory=1", "--", "true"], 125),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">/dev/full 2>&1", ">&- 2>&-"])
def test_an_error_that_cannot_be_written_leaves_the_exit_status(
    words: list[str], status: int, redirection: str
) -> None:
    done = in_shell(redirection, *words)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_commands_that_write_nothing_need_no_output(group: GroupFiles, redirection: str) -> None:
    for words in (
        ["set", group.path, "memory.limit=1G"],
        ["charge", group.path, "memory=1"],
        ["wait", group.path, "memory=1"],
        ["uncharge", group.path, "memory=1"],
        ["doctor", group.path.parent],
        ["save", group.path.parent, "/dev/null"],
        ["run", "-g", group.path, "-r", "memory=1", "--", "true"],
    ):
        done = in_shell(redirection, *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), words


def test_mount_and_umount_need_no_output(place: Place) -> None:
    for words in (["mount", place.path], ["umount", place.path]):
        done = in_shell(">/dev/full 2>/dev/full", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_refused_charge_keeps_its_status_without_output(group: GroupFiles) -> None:
    group.set_limit(0)
    for redirection in ("2>/dev/full", "2>&-", ">/dev/full 2>&1"):
        assert in_shell(redirection, "charge", group.path, "memory=1").returncode == 75


@pytest.mark.parametrize("words", [["--help"], ["--nope"]], ids=spelled)
def test_the_mount_helper_also_prints_one_line(words: list[str]) -> None:
    helper = Path(sys.executable).parent / "mount.fuse.fsmount"
    if not helper.exists():
        pytest.skip("the package is not installed here")
    command = ["sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh", str(helper), *words]
    assert subprocess.run(command, timeout=60, check=False).returncode == (1 if words == ["--help"] else 2)
    command[2] = 'exec "$@" >/dev/full'
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    if words == ["--help"]:
        assert (done.returncode, done.stderr) == (1, f"fsmount: {FULL}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_with_full_output_prints_no_traceback(shell: str) -> None:
    environment = {"COMP_WORDS": "fsmount ", "COMP_CWORD": "1", "_FSMOUNT_COMPLETE": f"{shell}_complete"}
    command = [
        "sh",
        "-c",
        'exec "$@" >/dev/full',
        "sh",
        sys.executable,
        "-c",
        "from fsmount.cli import main; main(prog_name='fsmount')",
    ]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=os.environ | environment)
    assert (done.returncode, done.stderr) == (1, f"fsmount: {FULL}\n")

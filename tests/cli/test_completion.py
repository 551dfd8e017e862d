"""fsmount completion: tab, pressed in a real bash on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.place import run
from tests.mounts import GroupFiles

CHECKOUT = Path(__file__).parents[2]


class Bash:
    """An interactive bash that has the completion."""

    def __init__(self, directory: Path) -> None:
        program = directory / "fsmount"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fsmount "$@"\n')
        program.chmod(0o755)
        environment = {
            "PATH": f"{directory}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "HOME": str(directory),
            "TERM": "dumb",
            "PS1": "> ",
        }
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 500, 0, 0))  # nothing is scrolled away
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        self.screen = b""
        self.type(
            'bind "set enable-bracketed-paste off"; eval "$(fsmount completion bash)"; echo rea""dy\n', "ready\r\n> "
        )

    def type(self, keys: str, shown: str) -> str:
        """What is on the screen after the keys, which ends with what is to be shown."""
        self.screen = b""
        os.write(self.terminal, os.fsencode(keys))
        deadline = time.monotonic() + 30
        while not self.screen.endswith(os.fsencode(shown)):
            ready, _, _ = select.select([self.terminal], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{shown!r} was not shown, but {os.fsdecode(self.screen)!r}"
            self.screen += os.read(self.terminal, 4096).replace(b"\a", b"")
        return os.fsdecode(self.screen)

    def clear(self) -> None:
        """Takes back what was typed."""
        self.type("\x15\x0b\n", "\n> ")

    def end(self) -> None:
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    shell = Bash(tmp_path_factory.mktemp("bash"))
    yield shell
    shell.end()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("fsmount unch", "arge "),
        ("fsmount tree --js", "on "),
        ("fsmount charge G/we", "b/"),
        ("fsmount charge G/web mem", "ory="),
        ("fsmount uncharge G memory=1 tok", "ens="),
        ("fsmount set G/web tokens.so", "ft_limit="),
        ("fsmount get G/web mem", "ory "),
        ("fsmount get G/web memory.fail", "cnt "),
        ("fsmount run -g G/we", "b/"),
        ("fsmount run -g G/web -r tok", "ens="),
        ("fsmount completion ba", "sh "),
    ],
)
def test_tab_completes(bash: Bash, group: GroupFiles, typed: str, completed: str) -> None:
    group.mkdir("web")
    typed = typed.replace("G", str(group.path))
    bash.type(typed + "\t", typed + completed)
    bash.clear()


def test_what_tab_completed_is_a_command_that_works(bash: Bash, group: GroupFiles) -> None:
    bash.type(f"fsmount charge {group.path} mem\t\t\t4K\n", "\n> ")  # a second tab finds nothing behind the =
    assert group.usage == 4096


def test_where_there_is_no_group_tab_completes_nothing(bash: Bash, group: GroupFiles) -> None:
    bash.type("fsmount charge /none mem\t4K", "fsmount charge /none mem4K")
    bash.clear()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    done = run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_FSMOUNT_COMPLETE={shell}_complete" in done.stdout


def test_another_shell_is_a_wrong_command_line() -> None:
    assert run("completion", "tcsh").returncode == 2

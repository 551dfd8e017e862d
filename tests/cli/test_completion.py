"""fsmount completion: the tab key in real shells on a real terminal."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.place import run_here
from tests.cli.terminal import Terminal
from tests.mounts import GroupFiles

CHECKOUT = Path(__file__).parents[2]
COMMANDS = {"bash": ["bash", "--noprofile", "-i"], "zsh": ["zsh", "-i"], "fish": ["fish", "-i"]}
#: The start file of each shell and its text: the commands of the help, and a prompt that is easy to read.
SET_UP = {
    "bash": (".bashrc", 'eval "$(fsmount completion bash)"; PS1="> "'),
    "zsh": (".zshrc", 'autoload -Uz compinit && compinit; eval "$(fsmount completion zsh)"; PS1="> "; bindkey -e'),
    "fish": (
        ".config/fish/conf.d/set-up.fish",
        "mkdir ~/.config/fish/completions; fsmount completion fish >~/.config/fish/completions/fsmount.fish; "
        "set -g fish_greeting; set -g fish_autosuggestion_enabled 0; function fish_prompt; echo -n '> '; end",
    ),
}


class Shell:
    """An interactive shell with the completion installed."""

    def __init__(self, name: str, home: Path) -> None:
        program = home / "bin/fsmount"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fsmount "$@"\n')
        program.chmod(0o755)
        file, text = SET_UP[name]
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(text + "\n")
        environment = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "HOME": str(home),
            "ZDOTDIR": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_DATA_HOME": str(home / ".local/share"),
        }
        self.terminal = Terminal(*COMMANDS[name], columns=250, rows=24, **environment)
        self.terminal.until(lambda: self.terminal.before_cursor == "> ")

    def type(self, keys: str, shown: str) -> None:
        """Presses the keys, and waits until the line is that."""
        self.terminal.press(keys)
        self.terminal.until(lambda: self.terminal.before_cursor == f"> {shown}")

    def clear(self) -> None:
        """Clears the line."""
        self.type("\x15", "")


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(request.param, tmp_path_factory.mktemp(request.param))
    yield shell
    shell.terminal.close()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("fsmount unch", "arge "),
        ("fsmount tree --js", "on "),
        ("fsmount charge G/an", "\\ other/"),
        ("fsmount charge G/web mem", "ory="),
        ("fsmount uncharge G memory=1 tok", "ens="),
        ("fsmount set G/web tokens.so", "ft_limit="),
        ("fsmount get G/web memory.fail", "cnt "),
        ("fsmount run -g G/we", "b/"),
        ("fsmount run -g G/web -r tok", "ens="),
        ("fsmount mount --config G/web/tokens.us", "age "),
    ],
)
def test_tab_completes(shell: Shell, group: GroupFiles, typed: str, completed: str) -> None:
    group.mkdir("web")
    group.mkdir("an other")
    typed = typed.replace("G", str(group.path))
    shell.type(typed + "\t", typed + completed)
    shell.clear()


def test_a_completed_command_runs(shell: Shell, group: GroupFiles) -> None:
    command = f"fsmount charge {group.path} mem"
    shell.type(command + "\t\t\t4K", command + "ory=4K")  # a second tab finds nothing behind the =
    shell.type("\n", "")
    assert group.usage == 4096


def test_tab_completes_no_resource_of_a_directory_that_is_no_group(shell: Shell, group: GroupFiles) -> None:
    shell.type("fsmount charge /none mem\t4K", "fsmount charge /none mem4K")
    shell.clear()


def test_an_unknown_shell_is_a_wrong_command_line() -> None:
    assert run_here("completion", "tcsh").returncode == 2

"""The command fsmount: one module or package for each subcommand, imported when it is used."""

from __future__ import annotations

import copy
import gc
import importlib
import os
import signal
from typing import Any

import click

from fsmount.cli.ui.streams import Program
from fsmount.protocol.suggestions import did_you_mean
from fsmount.version import __version__

#: In the order of the help.
COMMANDS = (
    "mount",
    "umount",
    "get",
    "set",
    "charge",
    "uncharge",
    "wait",
    "run",
    "tree",
    "top",
    "status",
    "save",
    "doctor",
    "exporter",
    "completion",
)

#: Other names of commands.
ALIASES = {"unmount": "umount"}


class _Commands(Program, click.Group):
    """Finds a subcommand by its name in the module of that name: `fsmount get` need not wait for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        aliases = {command: alias for alias, command in ALIASES.items()}
        return [name for command in COMMANDS for name in (command, aliases.get(command)) if name]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        real = ALIASES.get(name, name)
        if real not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"fsmount.cli.commands.{real}"), real)
        assert isinstance(command, click.Command)
        if name != real:
            command = copy.copy(command)
            command.name = name
            command.short_help = f"The same as {real}."
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name[:1].isalnum() and name not in self.list_commands(ctx) and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # ends us as it does others, so that a shell ends the script that we are a line of
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Resource counters as files: charged from parallel processes, exact, and never past a limit."""
    gc.freeze()  # what is imported stays: to have the collector look for garbage in it at the end takes 5 ms

"""The command fsmount.  Each subcommand is a module or package of `commands`, imported when it is used."""

from __future__ import annotations

import gc
import importlib
import os
from typing import Any

import click

from fsmount.cli.ui.streams import Program
from fsmount.version import __version__

#: The commands, in the order of the help.
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

#: The commands that the distribution fsmount-client does not have.
NOT_IN_CLIENT = {"mount", "umount", "save", "doctor", "exporter"}

#: Other names of commands.
ALIASES = {"unmount": "umount"}


class _Commands(Program, click.Group):
    """The subcommands.  Each is imported only when it is used, so that `fsmount get` starts without the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        aliases = {command: alias for alias, command in ALIASES.items()}
        return [name for command in COMMANDS for name in (command, aliases.get(command)) if name]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        real = ALIASES.get(name, name)
        if real not in COMMANDS:
            return None
        if real in NOT_IN_CLIENT:
            from fsmount.installation import missing_engine

            if why := missing_engine():
                return _missing_command(name, why)
        command = getattr(importlib.import_module(f"fsmount.cli.commands.{real}"), real)
        assert isinstance(command, click.Command)
        if name != real:
            from copy import copy

            command = copy(command)
            command.name = name
            command.short_help = f"The same as {real}."
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name[:1].isalnum() and name not in self.list_commands(ctx) and not ctx.resilient_parsing:
            from fsmount.protocol.suggestions import did_you_mean

            ctx.fail(f"No such command {name!r}{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # a shell ends its script only if the signal itself ends the command
            import signal

            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)


def _missing_command(name: str, why: str) -> click.Command:
    """A command that accepts any arguments, and fails with the reason why the real command is missing."""

    @click.command(
        name,
        help=f"{name}: {why}.",
        short_help="Not in this installation.",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def missing() -> None:
        from fsmount.cli.ui.report import FAILED, end

        end(name, why, FAILED)

    return missing


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Resource counters as files: charged from parallel processes, exact, and never past a limit."""
    gc.freeze()  # the modules stay: later collections skip them
    gc.enable()

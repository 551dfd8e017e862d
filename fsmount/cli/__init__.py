"""The command fsmount: one module or package for each subcommand, imported when it is used."""

from __future__ import annotations

import gc
import importlib
import os
import signal
from typing import Any

import click

from fsmount.cli.streams import replace_closed

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
    "save",
    "doctor",
    "exporter",
    "completion",
)


class _Commands(click.Group):
    """Finds a subcommand by its name in the module of that name: `fsmount get` need not wait for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"fsmount.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # ends us as it does others, so that a shell ends the script that we are a line of
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fsmount")
def main() -> None:
    """Resource counters as files: charged from parallel processes, exact, and never past a limit."""
    replace_closed()
    gc.freeze()  # what is imported stays: to have the collector look for garbage in it at the end takes 5 ms

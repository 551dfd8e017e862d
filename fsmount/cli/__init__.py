"""The command fsmount: one module for each subcommand, imported when it is used."""

from __future__ import annotations

import gc
import importlib

import click

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


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fsmount")
def main() -> None:
    """Resource counters as files: charged from parallel processes, exact, and never past a limit."""
    gc.freeze()  # what is imported stays: to have the collector look for garbage in it at the end takes 5 ms

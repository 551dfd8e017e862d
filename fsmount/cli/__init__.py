"""The command fsmount: one module for each subcommand."""

from __future__ import annotations

import click

from fsmount.cli.doctor import doctor
from fsmount.cli.mount import mount
from fsmount.cli.save import save
from fsmount.cli.umount import umount


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fsmount")
def main() -> None:
    """Resource counters as files: charged from parallel processes, exact, and never past a limit."""


main.add_command(mount)
main.add_command(umount)
main.add_command(save)
main.add_command(doctor)

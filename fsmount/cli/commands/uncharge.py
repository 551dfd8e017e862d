"""fsmount uncharge."""

from __future__ import annotations

import click

from fsmount.cli.ui import complete
from fsmount.cli.ui.amounts import Amount, amounts
from fsmount.cli.ui.group import named_group, requested


@click.command(
    epilog="""\b
Examples:
  fsmount uncharge /run/counters/web memory=64M
  fsmount uncharge /run/counters/web memory=2G tokens=100

The exit status is 0 if everything is uncharged, 1 for an error and 2 for a wrong command line."""
)
@click.argument("path", metavar="GROUP", shell_complete=complete.directories)
@click.argument("wanted", metavar="R=N...", nargs=-1, required=True, callback=amounts, shell_complete=complete.amounts)
def uncharge(path: str, wanted: tuple[Amount, ...]) -> None:
    """Uncharge N of each resource R that the group itself holds.

    The resources are uncharged together, or not at all if the group holds less than N of one of them. Only processes
    and leases can release their own charges.
    """
    with named_group(path, wanted) as group, group:
        group.uncharge_common(requested(group, wanted))

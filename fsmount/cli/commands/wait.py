"""fsmount wait."""

from __future__ import annotations

import click

from fsmount.cli.ui import complete
from fsmount.cli.ui.amounts import Amount, amounts
from fsmount.cli.ui.group import named_group, requested
from fsmount.cli.ui.waiting import Duration, timeout_of


@click.command(
    epilog="""\b
Examples:
  fsmount wait /run/counters/web memory=2G
  fsmount wait --timeout 30s /run/counters/web memory=2G tokens=100 && make

When the command ends, there was room, but another process may take it first. fsmount run --wait and fsmount charge
--wait also charge.

The exit status is 0 if there was room for everything, 75 after the timeout, 1 for any other error and 2 for a wrong
command line."""
)
@click.option("-t", "--timeout", type=Duration(), metavar="TIME", help="Wait at most for TIME, such as 30s or 5m.")
@click.argument("path", metavar="GROUP", shell_complete=complete.directories)
@click.argument("wanted", metavar="R=N...", nargs=-1, required=True, callback=amounts, shell_complete=complete.amounts)
def wait(path: str, wanted: tuple[Amount, ...], timeout: float | None) -> None:
    """Wait until the group has room for N more of each resource R at the same time; charge nothing.

    Requests are served in the order of their arrival.
    """
    with named_group(path, wanted) as group, group:
        group.charge(requested(group, wanted), wait=True, timeout=timeout_of(timeout))

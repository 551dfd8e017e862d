"""fsmount charge."""

from __future__ import annotations

import click

from fsmount.cli.ui import complete
from fsmount.cli.ui.amounts import Amount, amounts
from fsmount.cli.ui.group import named_group, requested
from fsmount.cli.ui.waiting import WaitingCommand, timeout_of, wait_option


@click.command(
    cls=WaitingCommand,
    epilog="""\b
Examples:
  fsmount charge /run/counters/web memory=64M
  fsmount charge /run/counters/web memory=2G tokens=100 || [ $? != 75 ] || echo no room
  fsmount charge --wait 30s /run/counters/web memory=2G

The exit status is 0 if everything is charged, 75 if a limit refuses, 1 for any other error and 2 for a wrong command
line.""",
)
@wait_option
@click.argument("path", metavar="GROUP", shell_complete=complete.directories)
@click.argument("wanted", metavar="R=N...", nargs=-1, required=True, callback=amounts, shell_complete=complete.amounts)
def charge(path: str, wanted: tuple[Amount, ...], seconds: float | None) -> None:
    """Charge N of each resource R to the group itself, until fsmount uncharge returns it.

    The resources are charged together or not at all.
    """
    with named_group(path, wanted) as group, group:
        if seconds is None:
            group.charge_common(requested(group, wanted))
        else:
            group.charge_common_in_turn(requested(group, wanted), timeout_of(seconds))

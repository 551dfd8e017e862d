"""The command fsmount top: what one can say to it, and who then shows the groups."""

from __future__ import annotations

import sys

import click

from fsmount.cli.commands.top.views import ORDERS
from fsmount.cli.ui import complete
from fsmount.cli.ui.group import counter, named_group, only_mount

_INTERVAL = 2.0


@click.command(
    epilog="""\b
Keys:
  arrows, PgUp, PgDn, Home, End    select a group
  Enter, Esc                       its holders, and back
  s, S                             sort by the next column, or the one before
  r                                the next resource
  l, L                             set the limit, or the soft limit, of the group
  Space                            look now
  ?, q                             help, and the end

\b
Examples:
  fsmount top
  fsmount top /run/counters/web -r tokens --sort share
  fsmount top /run/counters/web --holders
  fsmount top -b -n 3 -d 10 >>log
  fsmount top --json -n 1 | jq '.groups[] | select(.failcnt > 0) | .group'

Red: nine tenths of the limit are used. Yellow: three quarters are, or more than the soft limit.

The exit status is 0, 1 for an error, also if the group or the mount vanishes, and 2 for a wrong command line."""
)
@click.argument("path", metavar="[MOUNTPOINT|GROUP]", required=False, shell_complete=complete.directories)
@click.option("-r", "--resource", metavar="R", help="Of this resource; of the first unless told.")
@click.option("-s", "--sort", "order", type=click.Choice(ORDERS), default="usage", show_default=True, help="By what.")
@click.option("--holders", is_flag=True, help="Show the holders of GROUP.")
@click.option(
    "-d",
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    help=f"Between two looks, {_INTERVAL:g} unless told; longer where one takes more than a tenth of that.",
)
@click.option("-n", "--count", metavar="N", type=click.IntRange(min=1), help="End after N looks.")
@click.option(
    "-b", "--batch", is_flag=True, help="Print tables, one unless -n or -d is given, as where there is no terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print an object on a line for each look.")
def top(
    path: str | None,
    resource: str | None,
    order: str,
    holders: bool,
    interval: float | None,
    count: int | None,
    batch: bool,
    as_json: bool,
) -> None:
    """Show the groups live: what each uses of its limit, its last minute, and who holds it.

    MOUNTPOINT need not be said where it is your only one. All groups are read in one pass, and all is of one moment: in
    the region where you may use it, elsewhere by the daemon.
    """
    path = only_mount("top") if path is None else path
    with named_group(path) as group:
        from fsmount.cli.commands.top.reader import Wanted
        from fsmount.cli.ui.snapshot import Groups
        from fsmount.cli.ui.terminal import on_terminal

        wanted = Wanted(counter(group, resource or group.resources[0]).resource, group.path if holders else "")
        groups = Groups(group)
        if not (batch or as_json) and on_terminal() and sys.stdin.isatty():
            from fsmount.cli.commands.top.screen import show

            show(groups, path, wanted, order, interval or _INTERVAL, count)
        else:
            from fsmount.cli.commands.top.printing import print_looks

            if not as_json and interval is None:
                count = count or 1
            print_looks(groups, path, wanted, order, interval or _INTERVAL, count, as_json=as_json)

"""The command line of fsmount top."""

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

Red: at least nine tenths of the limit are used. Yellow: at least three quarters, or more than the soft limit.

The exit status is 0, 1 for an error, also if the group or the mount vanishes, and 2 for a wrong command line."""
)
@click.argument("path", metavar="[MOUNTPOINT|GROUP]", required=False, shell_complete=complete.directories)
@click.option("-r", "--resource", metavar="R", help="Show this resource; without -r the first.")
@click.option(
    "-s",
    "--sort",
    "order",
    type=click.Choice(ORDERS),
    default="usage",
    show_default=True,
    help="The order of the groups.",
)
@click.option("--holders", is_flag=True, help="Show the holders of GROUP.")
@click.option(
    "-d",
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    help=f"Time between two looks.  [default: {_INTERVAL:g}; more if a look takes more than a tenth of it]",
)
@click.option("-n", "--count", metavar="N", type=click.IntRange(min=1), help="End after N looks.")
@click.option(
    "-b", "--batch", is_flag=True, help="Print tables, as without a terminal: one table unless -n or -d is given."
)
@click.option("--json", "as_json", is_flag=True, help="Print one object, on one line, for each look.")
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
    """Show the groups live: usage and limit of each, its last minute, and its holders.

    MOUNTPOINT may be left out if you have only one mount. A look reads all groups at one moment: in the region if you
    may use it, otherwise through the daemon.
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

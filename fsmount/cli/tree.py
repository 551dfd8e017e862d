"""fsmount tree."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from fsmount.cli import complete
from fsmount.cli.group import counter, named_group, only_mount
from fsmount.cli.report import FAILED

if TYPE_CHECKING:
    from fsmount.cli.survey import Node


@click.command(
    epilog="""\b
Examples:
  fsmount tree
  fsmount tree /run/counters/web -r memory | less
  fsmount tree --json | jq '.[] | select(.counters.memory.failcnt > 0) | .group'

Red: nine tenths of the limit are used. Yellow: three quarters are, or more than the soft limit.

The exit status is 0, 1 for an error, with --json also if some group may not be read, and 2 for a wrong command line."""
)
@click.argument("path", metavar="[MOUNTPOINT|GROUP]", required=False, shell_complete=complete.directories)
@click.option(
    "-r",
    "--resource",
    "resources",
    metavar="R",
    multiple=True,
    help="Of this resource; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an array with an object for each group.")
def tree(path: str | None, resources: tuple[str, ...], as_json: bool) -> None:
    """Print a hierarchy of groups with what each uses of its limit, once.

    MOUNTPOINT need not be said where it is your only one. A resource's numbers are of one moment; with --json, which
    has more of them, each group is read when its turn comes.
    """
    path = only_mount("tree") if path is None else path
    with named_group(path) as top:
        from fsmount.cli.survey import Groups

        units = {resource: counter(top, resource).unit for resource in resources or top.resources}
        groups = Groups(top)
        if as_json:
            nodes = list(groups.nodes(list(units)))
            click.echo(json.dumps([_object(node) for node in nodes]))
            if any(node.closed for node in nodes):
                sys.exit(FAILED)
        else:
            from fsmount.cli.tree_table import draw

            draw(groups.survey(list(units)), path, units)


def _object(node: Node) -> dict[str, object]:
    return {"group": node.path} | ({"error": node.closed} if node.closed else {"counters": node.counters})

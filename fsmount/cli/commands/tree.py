"""fsmount tree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from fsmount.cli.ui import complete
from fsmount.cli.ui.group import counter, named_group, only_mount
from fsmount.cli.ui.streams import echo

if TYPE_CHECKING:
    from fsmount.protocol.listings import CounterSnapshot


@click.command(
    epilog="""\b
Examples:
  fsmount tree
  fsmount tree /run/counters/web -r memory | less
  fsmount tree --json | jq '.[] | select(.counters.memory.failcnt > 0) | .group'

Red: at least nine tenths of the limit are used. Yellow: at least three quarters, or more than the soft limit.

The exit status is 0, 1 for an error and 2 for a wrong command line."""
)
@click.argument("path", metavar="[MOUNTPOINT|GROUP]", required=False, shell_complete=complete.directories)
@click.option(
    "-r",
    "--resource",
    "resources",
    metavar="R",
    multiple=True,
    help="Show this resource only; may be repeated.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print an array of groups, each with its path and the numbers of R.stat."
)
def tree(path: str | None, resources: tuple[str, ...], as_json: bool) -> None:
    """Print a hierarchy of groups, each with its usage and limit.

    MOUNTPOINT may be left out if you have only one mount. All numbers of one resource are from the same moment.
    """
    path = only_mount("tree") if path is None else path
    with named_group(path) as top:
        from fsmount.cli.ui.snapshot import Groups

        units = {resource: counter(top, resource).unit for resource in resources or top.resources}
        snapshot = Groups(top).snapshot(list(units))
        if as_json:
            echo(json.dumps(list(_objects(snapshot, top.path))))
        else:
            from fsmount.cli.ui.tree_table import draw

            draw(snapshot, path, units)


def _objects(snapshot: Mapping[str, Sequence[CounterSnapshot]], top: str) -> Iterator[dict[str, object]]:
    from fsmount.cli.ui.snapshot import all_as_tree, full_path, paths, stat

    below = paths(next(iter(snapshot.values())))
    for group, _, rows in all_as_tree(snapshot):
        counters = {resource: stat(row) for resource, row in rows.items()}
        yield {"group": full_path(top, below[group.id]), "counters": counters}

"""fsmount tree."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

import click

from fsmount.cli import complete
from fsmount.cli.group import counter, named_group
from fsmount.cli.report import FAILED, one_line
from fsmount.errors import GroupRemoved
from fsmount.lease import LeaseGroup

# What hides one group and says nothing against the others.
_CLOSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


class Node(NamedTuple):
    """A group as it was when its turn came."""

    path: str
    #: Of each on the way from below the top down to it: whether it is the last of its siblings.  Empty for the top.
    last: tuple[bool, ...]
    #: Resource -> the keys of R.stat.
    counters: dict[str, dict[str, int]]
    #: Why neither it nor what is below could be read; empty if they could.
    closed: str = ""


@click.command(
    epilog="""\b
Examples:
  fsmount tree
  fsmount tree /run/counters/web -r memory | less
  fsmount tree --json | jq '.[] | select(.counters.memory.failcnt > 0) | .group'

Red: nine tenths of the limit are used. Yellow: three quarters are, or more than the soft limit.

The exit status is 0, 1 for an error, also if some group may not be read, and 2 for a wrong command line."""
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

    MOUNTPOINT need not be said where it is your only one. A group is read when its turn comes: the numbers of different
    groups are not of one moment.
    """
    if path is None:
        from fsmount.daemon.trees import only_mount

        with one_line("tree"):
            path = only_mount()
    with named_group(path) as top:
        units = {resource: counter(top, resource).unit for resource in resources or top.resources}
        nodes = list(_walk(top, list(units)))
        if as_json:
            click.echo(json.dumps([_object(node) for node in nodes]))
        else:
            from fsmount.cli.tree_table import draw

            draw(nodes, path, units)
    sys.exit(FAILED if any(node.closed for node in nodes) else 0)


def _walk(top: LeaseGroup, resources: list[str]) -> Iterator[Node]:
    """The groups from the top on, each before those below it, siblings by name."""
    ahead: list[tuple[LeaseGroup, tuple[bool, ...]]] = [(top, ())]
    while ahead:
        group, last = ahead.pop()
        try:
            counters = {resource: group[resource].stat() for resource in resources}
            children = sorted(group.children(), key=lambda child: child.path, reverse=True)
        except GroupRemoved:
            if group is top:
                raise
        except OSError as error:
            if group is top or error.errno not in _CLOSED:
                raise
            yield Node(group.path, last, {}, error.strerror or os.strerror(error.errno))
        else:
            yield Node(group.path, last, counters)
            ahead += ((child, (*last, child is children[0])) for child in children)


def _object(node: Node) -> dict[str, object]:
    return {"group": node.path} | ({"error": node.closed} if node.closed else {"counters": node.counters})

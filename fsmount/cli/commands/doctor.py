"""fsmount doctor."""

from __future__ import annotations

import json
import sys

import click

from fsmount.admin.user_error import UserError
from fsmount.cli.ui.paths import UnseenPath
from fsmount.cli.ui.report import one_line
from fsmount.cli.ui.streams import echo
from fsmount.errors import RegionCorrupt


@click.command(
    epilog="""\b
Examples:
  fsmount doctor /run/counters && echo consistent
  fsmount doctor --json /run/counters | jq length
  fsmount doctor --repair /dev/shm/fsmount-0/3f2c9d1e5a7b8c90.region

The exit status is 0 if the region is consistent, also after --repair, 1 if a difference remains or for an error, and 2
for a wrong command line."""
)
@click.argument("place", metavar="MOUNTPOINT|REGION", type=UnseenPath())
@click.option("--repair", is_flag=True, help="Repair the differences.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of the differences.")
def doctor(place: str, repair: bool, as_json: bool) -> None:
    """Recompute every number and link in a region, and print the differences.

    A mounted tree stays usable meanwhile.
    """
    from fsmount.admin.named_tree import open_tree

    with one_line(place), open_tree(place) as tree:
        found = tree.check()
        for text in [json.dumps(found)] if as_json else found:
            echo(text)
        if found and repair:
            try:
                found = tree.repair()
            except RegionCorrupt as error:
                raise UserError(f"damaged beyond repair: {error.found}; remove {tree.path} to start again") from None
            if found:
                raise UserError(f"{len(found)} differences cannot be repaired, and remain: {'; '.join(found)}")
    sys.exit(1 if found else 0)

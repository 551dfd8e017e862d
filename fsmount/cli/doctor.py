"""fsmount doctor."""

from __future__ import annotations

import sys

import click

from fsmount.cli.report import one_line
from fsmount.daemon.refused import Refused
from fsmount.errors import RegionCorrupt


@click.command()
@click.argument("place", metavar="MOUNTPOINT|REGION", type=click.Path(path_type=str, readable=False))
@click.option("--repair", is_flag=True, help="Mend what differs.")
def doctor(place: str, repair: bool) -> None:
    """Compare every number and link in a region with what it follows from, and print what differs.

    A mount can go on being used meanwhile. The exit status is 0 if all is in order, or is so again with --repair.
    """
    from fsmount.daemon.trees import opened

    with one_line(place), opened(place) as tree:
        found = tree.check()
        for finding in found:
            click.echo(finding)
        if found and repair:
            try:
                found = tree.repair()
            except RegionCorrupt as error:
                raise Refused(f"damaged beyond repair: {error.found}; remove {tree.path} to begin anew") from None
            if found:
                raise Refused(f"{len(found)} of it cannot be recomputed, and is left: {'; '.join(found)}")
    sys.exit(1 if found else 0)

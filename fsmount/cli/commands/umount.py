"""fsmount umount."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fsmount.cli.ui.paths import UnseenPath
from fsmount.cli.ui.report import one_line
from fsmount.cli.ui.streams import complain

if TYPE_CHECKING:
    from fsmount.shm import Tree

_ADVICE = (
    "umount --keep leaves all of it to the next mount, and fsmount save, run before, writes down groups and limits"
)


@click.command(
    epilog="""\b
Examples:
  fsmount umount /run/counters
  fsmount umount --keep /run/counters
  fsmount umount --stale /run/counters

fsmount unmount is the same command.

The exit status is 0, 1 if the tree stays mounted and 2 for a wrong command line."""
)
@click.argument("mountpoint", type=UnseenPath())
@click.option("--keep", is_flag=True, help="Keep the counters with all charges for the next mount.")
@click.option("--stale", is_flag=True, help="Only remove the mount of a dead daemon; the counters stay.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print what is lost.")
def umount(mountpoint: str, keep: bool, stale: bool, quiet: bool) -> None:
    """Unmount MOUNTPOINT; refuse while a process or lease holds charges, unless --keep is given.

    Groups, their limits and their own charges end with the mount; a line on standard error names them. At a bind mount
    only the bind mount is removed, with or without --keep: the tree stays mounted in its first place.
    """
    from fsmount.admin.tree_removal import losses
    from fsmount.admin.unmount import clear, unmount

    lost = ""

    def about_to_lose(tree: Tree) -> None:
        nonlocal lost
        lost = losses(tree)

    with one_line(mountpoint):
        if stale:
            clear(mountpoint)
        else:
            unmount(mountpoint, keep=keep, about_to_lose=about_to_lose)
    if lost and not quiet:
        complain(f"fsmount: {mountpoint}: lost with it: {lost}; {_ADVICE}")

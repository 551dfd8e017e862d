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

The exit status is 0, 1 if it is not unmounted and 2 for a wrong command line."""
)
@click.argument("mountpoint", type=UnseenPath())
@click.option("--keep", is_flag=True, help="Leave the counters, and who holds what, for the next mount.")
@click.option("--stale", is_flag=True, help="Only clear away what a dead daemon left mounted; the counters stay.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what is lost.")
def umount(mountpoint: str, keep: bool, stale: bool, quiet: bool) -> None:
    """Unmount MOUNTPOINT.  UserError while somebody holds charges there, unless they are to be kept.

    Groups, limits and what groups hold themselves end with the mount; a line on standard error names them. Of a bind
    mount that alone is unmounted, with --keep or without: the tree goes on where it is mounted.
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

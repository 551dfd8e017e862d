"""fsmount umount."""

from __future__ import annotations

import click

from fsmount.cli.report import one_line


@click.command(
    epilog="""\b
Examples:
  fsmount umount /run/counters
  fsmount umount --keep /run/counters
  fsmount umount --stale /run/counters

fsmount unmount is the same command.

The exit status is 0, 1 if it is not unmounted and 2 for a wrong command line."""
)
@click.argument("mountpoint", type=click.Path(path_type=str, readable=False))
@click.option("--keep", is_flag=True, help="Leave the counters, and who holds what, for the next mount.")
@click.option("--stale", is_flag=True, help="Only clear away what a dead daemon left mounted; the counters stay.")
def umount(mountpoint: str, keep: bool, stale: bool) -> None:
    """Unmount MOUNTPOINT.  Refused while somebody holds charges there, unless they are to be kept."""
    from fsmount.daemon.unmount import clear, unmount

    with one_line(mountpoint):
        if stale:
            clear(mountpoint)
        else:
            unmount(mountpoint, keep=keep)

"""fsmount save."""

from __future__ import annotations

import errno

import click

from fsmount.admin.user_error import UserError
from fsmount.cli.ui.paths import UnseenPath
from fsmount.cli.ui.report import one_line
from fsmount.cli.ui.streams import echo


@click.command(
    epilog="""\b
Examples:
  fsmount save counters.toml
  fsmount save /run/counters - | grep limit
  fsmount save /run/counters counters.toml && fsmount mount /run/others --config counters.toml

The exit status is 0, 1 for an error and 2 for a wrong command line."""
)
@click.argument("arguments", metavar="[MOUNTPOINT|REGION] TREE.toml", nargs=-1, type=UnseenPath())
@click.pass_context
def save(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Write the groups of a tree, their limits, modes and owners to TREE.toml, for fsmount mount --config.

    TREE.toml is replaced completely or not at all; - is standard output. MOUNTPOINT may be left out if you have only
    one mount. Charges are not written: they belong to their holders.
    """
    from fsmount.admin.named_tree import may_be_mount_point, only_mount, open_tree
    from fsmount.config import describe
    from fsmount.config.writing import write

    if not 1 <= len(arguments) <= 2:
        raise click.UsageError("Name one file, and before it a mount point or a region if you like.", ctx)
    *places, file = arguments
    if places and may_be_mount_point(file) and not may_be_mount_point(places[0]):
        places, file = [file], places[0]
    with one_line(places[0] if places else file):
        if not file:
            raise UserError("an empty name (an unset shell variable?): name a file, or - for standard output")
        place = places[0] if places else only_mount()
        with open_tree(place) as tree:
            text = write(describe(tree))
        if file == "-":
            echo(text.encode(), nl=False)  # TOML is UTF-8, whatever the locale
        else:
            with one_line(file):
                _store(file, text)


def _store(file: str, text: str) -> None:
    from fsmount.config import store

    try:
        store(file, text)
    except IsADirectoryError as error:
        raise UserError(f"{error.strerror}: name a file in it") from None
    except NotADirectoryError as error:
        raise UserError(f"{error.strerror}: a part of its path is a file; name another path") from None
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        raise UserError(
            f"{error.strerror}: no file can be made there, as in a tree of counters; name another path"
        ) from None

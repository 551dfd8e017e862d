"""mount.fuse.fsmount: the program that mount(8) runs for the type fuse.fsmount, see its section "EXTERNAL HELPERS"."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from fsmount.admin.user_error import UserError
from fsmount.cli.commands.mount import mount
from fsmount.cli.ui.paths import UnseenPath
from fsmount.cli.ui.report import one_line
from fsmount.cli.ui.streams import Program

# Options that mount(8) has applied itself before it passes some of them on: permission, time, and failures.
# relatime is the default of the kernel, and libfuse does not know it.
_OF_MOUNT = re.compile(r"(no)?(auto|users?|owner|group|fail)|_netdev|defaults|relatime|comment=.*|x-.*", re.IGNORECASE)


@click.command(
    "mount.fuse.fsmount",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  mount -t fuse.fsmount counters /run/counters -o resource=memory,resource=tokens:count,allow_other

The exit status is 0, 1 if the tree cannot be mounted and 2 for a wrong command line.""",
)
@click.argument("source")
@click.argument("mountpoint", type=UnseenPath())
@click.option("-o", "options", metavar="OPTS", multiple=True, help="Options of mount(8), FUSE and fsmount mount.")
@click.option("-t", "kind", metavar="TYPE", expose_value=False, help="Ignored.")
@click.option("-f", "fake", is_flag=True, help="Do not mount.")
@click.option("-n", "-s", "-v", "ignored", is_flag=True, expose_value=False, help="Ignored.")
def mount_helper(source: str, mountpoint: str, options: tuple[str, ...], fake: bool) -> None:
    """Mount a tree of counters at MOUNTPOINT for mount(8); the list of mounts shows it with the name SOURCE.

    Each option --NAME=VALUE of fsmount mount is written -o NAME=VALUE.
    """
    with one_line(mountpoint):
        name = re.sub(r"([,\\])", r"\\\1", source)  # mount -a finds by this name that the tree is mounted already
        arguments = [f"-ofsname={name}", *_arguments(options), "--", mountpoint]
        if fake:
            return
        try:
            mount.main(arguments, standalone_mode=False)
        except click.ClickException as error:
            raise UserError(error.format_message()) from None


def _arguments(options: tuple[str, ...]) -> Iterator[str]:
    """The arguments of fsmount mount.  UserError for the option remount."""
    from fsmount.daemon.fuse_options import split_options

    own = {option.opts[-1]: option.is_flag for option in mount.params if isinstance(option, click.Option)}
    del own["-o"], own["--foreground"]
    for option in (option for text in options for option in split_options(text)):
        name, given, value = option.partition("=")
        if name == "remount":
            raise UserError("only the kernel can change the options of a mount: use mount -i -o remount,...")
        if f"--{name}" in own:
            value = re.sub(r"\\(.)", r"\1", value)
            yield f"--{name}" if own[f"--{name}"] and not given else f"--{name}={value}"
        elif not _OF_MOUNT.fullmatch(option):
            yield f"-o{option}"

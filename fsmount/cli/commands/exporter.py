"""fsmount exporter."""

from __future__ import annotations

import click

from fsmount.cli.ui.paths import UnseenPath
from fsmount.cli.ui.report import one_line


def _address(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, int]:
    from fsmount.exporter import parse_address

    try:
        return parse_address(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not an address such as 127.0.0.1:9744 or [::1]:9744", ctx, param
        ) from None


@click.command(
    epilog="""\b
Examples:
  fsmount exporter /run/counters
  fsmount exporter /run/counters --listen [::1]:9744 & curl -s http://[::1]:9744/metrics

The exit status is 0 after SIGINT or SIGTERM, 1 for an error and 2 for a wrong command line."""
)
@click.argument("mountpoint", required=False, type=UnseenPath())
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:9744",
    show_default=True,
    callback=_address,
    help="The address to listen at; port 0 is any free port.",
)
def exporter(mountpoint: str | None, listen: tuple[str, int]) -> None:
    """Serve the file metrics of a mount over HTTP at /metrics, for Prometheus and similar programs.

    MOUNTPOINT may be left out if you have only one mount. The command runs until SIGINT or SIGTERM. While nothing is
    mounted it answers 503.
    """
    from fsmount.admin.named_path import open_path
    from fsmount.admin.named_tree import only_mount
    from fsmount.exporter import address_text, export

    with one_line(mountpoint or address_text(listen)):
        with open_path(only_mount() if mountpoint is None else mountpoint) as place:
            mountpoint = place.path
        export(mountpoint, listen)

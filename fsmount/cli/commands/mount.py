"""fsmount mount."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from fsmount.admin.user_error import UserError
from fsmount.cli.ui.paths import UnseenPath
from fsmount.cli.ui.report import one_line
from fsmount.cli.ui.streams import complain
from fsmount.quantities import parse
from fsmount.shm import CAPACITY_MAX, parse_resource

if TYPE_CHECKING:
    from fsmount.config import TreeDescription

_DAY = 86400.0


def _batch(ctx: click.Context, param: click.Parameter, value: str | None) -> str | int | None:
    if value is None or value == "auto":
        return value
    try:
        return parse(os.fsencode(value))
    except OSError:
        raise click.BadParameter(
            f"{value!r} is neither auto nor an amount such as 0, 4096 or 64K", ctx, param
        ) from None


def _watchdog(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if value != 0 and not 1 <= value <= _DAY:  # also for nan
        raise click.BadParameter(f"{value:g} is neither 0 nor from 1 second to {_DAY:g} (a day)", ctx, param)
    return value


def _resources(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        names = [parse_resource(text)[0] for text in value]
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    for name in names:
        if names.count(name) > 1:
            raise click.BadParameter(f"{name} is named twice", ctx, param)
    return value


def _config(path: str) -> TreeDescription:
    from fsmount.config import ConfigError, load

    if not path:
        raise UserError("--config has an empty name (an unset shell variable?): name a file")
    try:
        with one_line(path):
            try:
                return load(path)
            except FileNotFoundError as error:
                raise UserError(f"{error.strerror}: name a file that fsmount save wrote") from None
            except (IsADirectoryError, NotADirectoryError) as error:
                raise UserError(f"{error.strerror}: name a file") from None
    except ConfigError as error:
        raise UserError(str(error)) from None


@click.command(
    epilog="""\b
Examples:
  fsmount mount /run/counters
  fsmount mount /run/counters --resource memory --resource tokens:count -o allow_other
  fsmount mount -f /run/counters --config /etc/counters.toml

The exit status is 0, 1 if the tree cannot be mounted and 2 for a wrong command line. In the foreground it is 0 after
umount, SIGTERM, SIGINT or SIGHUP."""
)
@click.argument("mountpoint", type=UnseenPath())
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, and log to standard error.")
@click.option("--debug", is_flag=True, help="Log details.")
@click.option(
    "--resource",
    "resources",
    metavar="NAME[:bytes|:count]",
    multiple=True,
    callback=_resources,
    help="A resource to count, and its unit; may be repeated.  [default: memory]",
)
@click.option(
    "--batch",
    metavar="auto|N",
    callback=_batch,
    help="The amount that a holder reserves ahead of its charges; 0: nothing.  [default: auto]",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=str),
    metavar="TREE.toml",
    help="Make the groups of a new tree from this file, which fsmount save writes.",
)
@click.option("--region", type=UnseenPath(), metavar="PATH", help="The file that keeps the counters.")
@click.option(
    "--groups", metavar="N", type=click.IntRange(1, CAPACITY_MAX[0]), help="Capacity: groups.  [default: 65536]"
)
@click.option(
    "--holders",
    metavar="N",
    type=click.IntRange(1, CAPACITY_MAX[1]),
    help="Capacity: attached processes.  [default: 4096]",
)
@click.option(
    "--cells",
    metavar="N",
    type=click.IntRange(1, CAPACITY_MAX[2]),
    help="Capacity: (holder, counter) pairs.  [default: 1048576]",
)
@click.option(
    "--watchdog",
    metavar="SECONDS",
    type=float,
    default=30.0,
    callback=_watchdog,
    help="End the daemon when it has not responded for this time; 0: never.  [default: 30]",
)
@click.option("-o", "options", metavar="OPTS", multiple=True, help="FUSE options, such as ro or allow_other.")
def mount(
    mountpoint: str,
    foreground: bool,
    debug: bool,
    resources: tuple[str, ...],
    batch: str | int | None,
    config_path: str | None,
    region: str | None,
    groups: int | None,
    holders: int | None,
    cells: int | None,
    watchdog: float,
    options: tuple[str, ...],
) -> None:
    """Mount a tree of counters at MOUNTPOINT.

    A daemon serves the tree in the background; the command returns when the files are there. Counters that an earlier
    mount left at MOUNTPOINT, after its daemon was killed or after umount --keep, are taken over with all charges.
    """
    from fsmount.admin.preflight import open_mount_point
    from fsmount.daemon.mount import mount
    from fsmount.daemon.mount_request import MountRequest

    with one_line(mountpoint):
        if region == "":
            raise UserError("--region has an empty name (an unset shell variable?): name a path")
        with open_mount_point(mountpoint) as place:
            path = place.path
        request = MountRequest(
            mountpoint=path,
            resources=resources,
            batch=batch,
            region=None if region is None else os.path.abspath(region),
            groups=groups,
            holders=holders,
            cells=cells,
            config=None if config_path is None else _config(config_path),
            config_path=config_path or "",
            options=options,
            debug=debug,
            watchdog=watchdog,
        )
        for warning in mount(request, foreground=foreground):
            complain(f"fsmount: {mountpoint}: {warning}")

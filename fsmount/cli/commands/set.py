"""fsmount set."""

from __future__ import annotations

import click

from fsmount.cli.ui import complete
from fsmount.cli.ui.amounts import Amount, limits
from fsmount.cli.ui.group import counter, named_group, set_limit
from fsmount.control_files.control_file import BYTES_ENDING
from fsmount.control_files.table import SETTABLE
from fsmount.protocol.suggestions import nearest


def _settable(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Amount, ...]:
    wanted = limits(ctx, param, value)
    for name, _, text in wanted:
        resource, dot, key = name.partition(".")
        if key not in SETTABLE:
            near = nearest(key.removesuffix(BYTES_ENDING), SETTABLE) if dot else "limit"
            advice = f"; did you mean {resource}.{near}={text}?" if near else ""
            raise click.BadParameter(f"{name} cannot be set, but R.{' and R.'.join(SETTABLE)} can{advice}", ctx, param)
    return wanted


@click.command(
    epilog="""\b
Examples:
  fsmount set /run/counters/web memory.limit=1G
  fsmount set /run/counters/web memory.limit=1G memory.soft_limit=768M tokens.limit=max

The exit status is 0 if everything is set, 75 if the usage is above a new limit, 1 for any other error and 2 for a wrong
command line."""
)
@click.argument("path", metavar="GROUP", shell_complete=complete.directories)
@click.argument(
    "wanted",
    metavar="R.limit=N|R.soft_limit=N...",
    nargs=-1,
    required=True,
    callback=_settable,
    shell_complete=complete.limits,
)
def set(path: str, wanted: tuple[Amount, ...]) -> None:
    """Set limits and soft limits of a group; max removes a limit.

    They are set in the given order. After the first failure the earlier ones stay set.
    """
    with named_group(path) as group:
        counters = [counter(group, name.partition(".")[0]) for name, _, _ in wanted]
        for counted, (name, amount, typed) in zip(counters, wanted, strict=True):
            set_limit(counted, name.partition(".")[2], amount, typed)

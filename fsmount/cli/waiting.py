"""--wait and --wait=30s: how long a command waits for room."""

from __future__ import annotations

import math
import re
from typing import Any

import click

_FOR_EVER = "for ever"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """Seconds, or a number with ms, s, m or h behind it; math.inf where none is named."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float) or value == _FOR_EVER:
            return math.inf if value == _FOR_EVER else value
        match = _DURATION.fullmatch(value)
        if not match:
            self.fail(f"{value!r} is no time such as 30s, 500ms, 5m or 1h", param, ctx)
        return float(match[1]) * _SECONDS[match[2] or "s"]


class WaitingCommand(click.Command):
    """A command with the option --wait, whose time can only follow an equals sign: what comes next is another word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        taking = {name for param in self.params for name in param.opts if _takes_a_value(param)}
        read = iter(range(len(args)))
        for index in read:
            if args[index] == "--wait":
                args[index] = f"--wait={_FOR_EVER}"
            elif args[index] in taking:
                next(read, None)
            elif args[index] == "--" or not (ctx.allow_interspersed_args or args[index].startswith("-")):
                break
        return super().parse_args(ctx, args)


def _takes_a_value(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not param.is_flag


wait_option = click.option(
    "--wait",
    "seconds",
    metavar="[=TIME]",
    type=Duration(),
    help="Wait for room, in the order in which all asked, for so long (30s, 5m) or for ever.",
)


def timeout_of(seconds: float | None) -> float | None:
    """For charge(): None if there is no end."""
    return None if seconds is None or math.isinf(seconds) else seconds

"""The option for the time that a command waits for room: --wait, --wait=30s and --wait 30s."""

from __future__ import annotations

import math
import re
from collections import deque
from typing import Any

import click

_FOR_EVER = "for ever"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """Seconds, or a number with the unit ms, s, m, h or d; math.inf without a time."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float) or value == _FOR_EVER:
            return math.inf if value == _FOR_EVER else value
        match = _DURATION.fullmatch(value)
        if not match:
            self.fail(f"{value!r} is not a time such as 30s, 500ms, 5m or 1h", param, ctx)
        return float(match[1]) * _SECONDS[match[2] or "s"]


class WaitingCommand(click.Command):
    """A command with the option --wait [TIME]: the next word is TIME only if it reads as a time."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A short option becomes its long name here: click would compare it with all long ones, which takes 1 ms.
        taking = {name: param.opts[-1] for param in self.params if _takes_a_value(param) for name in param.opts}
        del taking["--wait"]
        words, left = [], deque(args)
        while left:
            word = left.popleft()
            if word == "--wait":
                word = f"--wait={left.popleft() if left and is_time(left[0]) else _FOR_EVER}"
            if word in taking and left:
                words += [taking[word], left.popleft()]
                continue
            words.append(word)
            if word == "--" or not (ctx.allow_interspersed_args or word.startswith("-")):
                break
        return super().parse_args(ctx, [*words, *left])


def is_time(word: str) -> bool:
    """Whether a word reads as a time: 30, 1.5, 500ms, 30s, 5m, 1h, 1d."""
    return _DURATION.fullmatch(word) is not None


def _takes_a_value(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not param.is_flag


wait_option = click.option(
    "--wait",
    "seconds",
    metavar="[TIME]",
    type=Duration(),
    help="Wait for room, behind earlier requests: for TIME (30s, 5m), or for ever. The next word is TIME if it reads "
    "as a time: write a command named 30s as ./30s, or after --.",
)


def timeout_of(seconds: float | None) -> float | None:
    """The timeout of charge(): None if the command waits for ever."""
    return None if seconds is None or math.isinf(seconds) else seconds

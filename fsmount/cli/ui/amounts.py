"""Amounts on a command line: memory=2G, or memory.limit=1G for a limit."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

import click

from fsmount.quantities import parse


class Amount(NamedTuple):
    """NAME=N: `name` is a resource R, or R.KEY for a limit; `typed` is N as it was typed."""

    name: str
    amount: int
    typed: str


def amounts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Amount, ...]:
    """The callback of a parameter R=N..., with each R once and each N as R.charge accepts it."""
    return _amounts(ctx, param, value, limit=False)


def limits(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Amount, ...]:
    """The callback of a parameter R.KEY=N..., with each N as a limit file accepts it: also `max` and `-1`."""
    return _amounts(ctx, param, value, limit=True)


def amount(text: str, *, limit: bool = False) -> int:
    """The typed amount, read by the rules of the files.  ValueError: its message completes "TEXT is ..."."""
    try:
        return parse(os.fsencode(text), limit=limit)
    except OSError as error:
        wrong = "above 2^63-1" if error.errno == errno.ERANGE else "not an amount such as 4096, 64K or 2G"
        raise ValueError(wrong) from None


def _amounts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...], *, limit: bool) -> tuple[Amount, ...]:
    found: dict[str, Amount] = {}
    for word in value:
        name, equals, text = word.partition("=")
        if not name or not equals:
            example = "memory.limit=2G" if limit else "memory=2G"
            raise click.BadParameter(f"{word!r} is not of the form NAME=N, such as {example}", ctx, param)
        if name in found:
            raise click.BadParameter(f"{name} is named twice", ctx, param)
        try:
            found[name] = Amount(name, amount(text, limit=limit), text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} in {word!r} is {error}", ctx, param) from None
    return tuple(found.values())

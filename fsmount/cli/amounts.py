"""Amounts on a command line: memory=2G, or memory.limit=1G where a file is set."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

import click

from fsmount.quantities import parse


class Amount(NamedTuple):
    """`name` is the resource's, with the key behind a dot where there is one."""

    name: str
    amount: int


def amounts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Amount, ...]:
    """The callback of parameters NAME=N, N as it would be charged through a file; none is named twice."""
    return _amounts(ctx, param, value, limit=False)


def limits(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Amount, ...]:
    """The same, N as it would be written to a limit: with `max` and `-1`."""
    return _amounts(ctx, param, value, limit=True)


def amount(text: str, *, limit: bool = False) -> int:
    """The amount that was typed, as parse() would read it from a file.  ValueError: what it is instead."""
    try:
        return parse(os.fsencode(text), limit=limit)
    except OSError as error:
        wrong = "above 2^63-1" if error.errno == errno.ERANGE else "no amount such as 4096, 64K or 2G"
        raise ValueError(wrong) from None


def _amounts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...], *, limit: bool) -> tuple[Amount, ...]:
    found: dict[str, int] = {}
    for word in value:
        name, equals, text = word.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{word!r} is not of the form NAME=N, such as memory=2G", ctx, param)
        if name in found:
            raise click.BadParameter(f"{name} is named twice", ctx, param)
        try:
            found[name] = amount(text, limit=limit)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} in {word!r} is {error}", ctx, param) from None
    return tuple(Amount(name, amount) for name, amount in found.items())

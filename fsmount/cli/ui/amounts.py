"""Amounts on a command line: memory=2G, or memory.limit=1G where a file is set."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

import click

from fsmount.cli.ui.cells import size
from fsmount.quantities import UNLIMITED, format_quantity, parse


class Amount(NamedTuple):
    """`name` is the resource's, with the key behind a dot where there is one; `typed` is the amount as it was typed."""

    name: str
    amount: int
    typed: str


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


#: From here on a number of bytes is hard to read without a suffix.
_LONG = 10_000


def told(amount: int, unit: str, typed: str = "") -> str:
    """An amount for a message, as it was typed or as short as it can be, and the exact number beside it."""
    number = str(amount)
    if amount == UNLIMITED:
        return "max"
    if unit != "bytes":
        return number if typed in ("", number) else f"{typed} ({number})"
    short = typed or (format_quantity(amount) if amount >= _LONG else number)
    if not typed and len(short) > len("1023M"):
        short = f"about {size(amount)}"
    return number if short == number else f"{short} ({number} bytes)"


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

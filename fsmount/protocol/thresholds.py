"""Marks as people write them into R.threshold: a line for each.

    above 80%       the usage comes above 80 % of the limit of now
    above 512M      above 512 MiB
    below 10%       below 10 % of the limit

A quantity is one of quantities.py; a part of the limit is a whole number from 0 to 100.
"""

import errno
import re
from typing import NamedTuple

from fsmount.quantities import parse, strip

_PERCENT = re.compile(rb"(100|[1-9]?[0-9])%")


class Mark(NamedTuple):
    """Of interest is when the usage comes above an amount, or below it; with `percent` it is in 1/100 of the limit."""

    amount: int
    below: bool
    percent: bool

    def __str__(self) -> str:
        return f"{'below' if self.below else 'above'} {self.amount}{'%' if self.percent else ''}"


def parse_marks(text: bytes) -> list[Mark]:
    """The marks that were written, one a line; nothing but white space is none of them.

    OSError: EINVAL for a line that is no mark, ERANGE and E2BIG as for a quantity.
    """
    return [_mark(line) for line in strip(text).splitlines() if line.strip()]


def _mark(line: bytes) -> Mark:
    word, _, amount = line.replace(b"\t", b" ").strip().partition(b" ")
    if word not in (b"above", b"below"):
        raise OSError(errno.EINVAL, "a line is `above` or `below`, and an amount or a part of the limit")
    percent = _PERCENT.fullmatch(amount.strip())
    return Mark(int(percent[1]) if percent else parse(amount), word == b"below", bool(percent))

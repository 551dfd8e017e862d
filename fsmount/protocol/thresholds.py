"""The marks of R.threshold, one a line.

    above 80%       the usage rises above 80 % of the current limit
    above 512M      above 512 MiB
    below 10%       the usage falls below 10 % of the current limit

A mark is a quantity (quantities.py), or a whole percentage from 0 to 100.
"""

import errno
import re
from typing import NamedTuple

from fsmount.quantities import parse, strip

_PERCENT = re.compile(rb"(100|[1-9]?[0-9])%")


class Mark(NamedTuple):
    """A usage to notice.  With `percent` the amount is in 1/100 of the limit."""

    amount: int
    below: bool
    percent: bool

    def __str__(self) -> str:
        return f"{'below' if self.below else 'above'} {self.amount}{'%' if self.percent else ''}"


def parse_marks(text: bytes) -> list[Mark]:
    """The marks in a text; white space alone has none.

    OSError: EINVAL for a line that is no mark, ERANGE and E2BIG as for a quantity.
    """
    return [_mark(line) for line in strip(text).splitlines() if line.strip()]


def _mark(line: bytes) -> Mark:
    word, _, amount = line.replace(b"\t", b" ").strip().partition(b" ")
    if word not in (b"above", b"below"):
        raise OSError(errno.EINVAL, "a line is `above` or `below`, and an amount or a part of the limit")
    percent = _PERCENT.fullmatch(amount.strip())
    return Mark(int(percent[1]) if percent else parse(amount), word == b"below", bool(percent))

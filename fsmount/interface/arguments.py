"""The amounts and timeouts that a charge accepts.

The engine makes the same checks in C, because they are part of every charge (`amount_of` and `timeout_of` in
engine/_binding.pyx); a test compares both.
"""

from __future__ import annotations

import math
import operator
from typing import SupportsIndex

from fsmount.quantities import UNLIMITED


def checked_amount(number: SupportsIndex) -> int:
    """An amount as an int from 0 to UNLIMITED.  TypeError, also for a bool; ValueError below 0; OverflowError above."""
    if type(number) is not int:
        try:
            if number is True or number is False:  # an int by inheritance only
                raise TypeError
            number = operator.index(number)
        except TypeError:
            raise TypeError(f"an amount is an int, not {type(number).__name__}") from None
    if number < 0:
        raise ValueError(f"an amount cannot be negative: {number}")
    if number > UNLIMITED:
        raise OverflowError(f"an amount is at most {UNLIMITED} (UNLIMITED): {number}")
    return number


def checked_timeout(wait: object, timeout: object) -> float | None:
    """The seconds that a charge may wait; None: without end, or not at all.  TypeError, ValueError."""
    if wait is not True and wait is not False:
        raise TypeError(f"wait is True or False, not {wait!r}")
    if timeout is None:
        return None
    seconds = _seconds(timeout)
    if not seconds >= 0:
        raise ValueError(f"timeout is a number of seconds from 0 on, not {timeout!r}")
    if not wait:
        raise ValueError("timeout is for a charge that waits: wait=True")
    return seconds


def _seconds(timeout: object) -> float:
    try:
        if timeout is True or timeout is False:
            raise TypeError
        return math.ldexp(timeout, 0)  # type: ignore[arg-type]  # float() would read text as well
    except TypeError:
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}") from None
    except OverflowError:  # an int that no float can be
        return math.inf if timeout > 0 else -1.0  # type: ignore[operator]

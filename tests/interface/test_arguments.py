"""The checks of amounts and timeouts in Python agree with those of the engine in C."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest

from fsmount import UNLIMITED, engine
from fsmount.interface.arguments import checked_amount, checked_timeout


class Size(IntEnum):
    LARGE = 1 << 40


def outcome(check: Callable[..., object], *arguments: object) -> tuple[object, ...]:
    try:
        answer = check(*arguments)
    except (TypeError, ValueError, OverflowError) as error:
        return type(error), str(error)
    return type(answer), answer


@pytest.mark.parametrize(
    "number",
    [0, 1, 1 << 30, UNLIMITED, UNLIMITED + 1, 1 << 64, -1, -(1 << 70), True, False, None, 1.0, "1", b"1", Size.LARGE,
     Decimal(1), [1]],
)  # fmt: skip
def test_an_amount_is_accepted_or_refused_as_in_the_engine(number: Any) -> None:
    assert outcome(checked_amount, number) == outcome(engine.amount, number)


@pytest.mark.parametrize("wait", [True, False, None, 1, "yes"])
@pytest.mark.parametrize(
    "timeout",
    [None, 0, 1, 2.5, -1, -0.5, True, False, "1", b"1", 10**400, -(10**400), float("nan"), float("inf"),
     Fraction(1, 3), Decimal("1.5"), [1]],
)  # fmt: skip
def test_a_timeout_is_accepted_or_refused_as_in_the_engine(wait: Any, timeout: Any) -> None:
    assert outcome(checked_timeout, wait, timeout) == outcome(engine.timeout, wait, timeout)


def test_unlimited_is_the_largest_number_of_the_engine() -> None:
    assert engine.UNLIMITED == UNLIMITED == 2**63 - 1

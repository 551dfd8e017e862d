"""Interrupts wherever one can come: a signal's handler may raise at each call of Python, and at each return of one.

What is tested is done over and over, and is interrupted one call later each time, until it gets through.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest


def begins(frame: FrameType) -> bool:
    """Whether it is just called; one that is resumed, as of a coroutine, is not interrupted before it goes on."""
    instruction, argument = frame.f_code.co_code[frame.f_lasti : frame.f_lasti + 2]
    return instruction == dis.opmap["RESUME"] and argument < 2


@contextmanager
def interrupt_at(number: int) -> Iterator[None]:
    """KeyboardInterrupt at the call of this number that our code makes inside, or at its return if it is one of C."""

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal number
        ours = frame.f_globals["__name__"].startswith("fsmount")
        if ours and (event == "c_return" or (event == "call" and begins(frame))):
            number -= 1
            if number == 0:
                raise KeyboardInterrupt

    gc.disable()  # or it comes while something else is collected, where it is lost
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)
        gc.enable()


def interruptions(action: Callable[[], object]) -> Iterator[None]:
    """After each interruption of the action, until it is done."""
    for number in range(1, 1000):
        try:
            with interrupt_at(number):
                action()
        except KeyboardInterrupt:
            yield
        else:
            assert number > 2
            return
    pytest.fail("it does not get through")

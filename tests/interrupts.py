"""Interrupts at every possible place: a signal handler may raise at each call and each return of a Python function.

The tested action runs again and again, and is interrupted one call later each time, until it completes.
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
    """Whether the frame was just called; a resumed coroutine is not interrupted at its start."""
    instruction, argument = frame.f_code.co_code[frame.f_lasti : frame.f_lasti + 2]
    return instruction == dis.opmap["RESUME"] and argument < 2


@contextmanager
def interrupt_at(number: int) -> Iterator[None]:
    """Raises KeyboardInterrupt at the call of this number in our code, or at its return if it calls a C function."""

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal number
        ours = frame.f_globals["__name__"].startswith("fsmount")
        if ours and (event == "c_return" or (event == "call" and begins(frame))):
            number -= 1
            if number == 0:
                raise KeyboardInterrupt

    gc.disable()  # an interrupt during garbage collection is lost
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)
        gc.enable()


def interruptions(action: Callable[[], object]) -> Iterator[None]:
    """Yields after each interruption of the action, until the action completes."""
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

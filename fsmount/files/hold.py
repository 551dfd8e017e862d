"""A charge for the length of a `with`, through files.

A signal handler may raise wherever Python code calls, returns or begins.  Nothing may stay charged then.  So one
generator charges and uncharges, and it is suspended inside a `try` while the block runs.  An exception that a handler
raises after the block is then raised inside that `try`.

No Python code may run between the block and the generator, because a handler could raise there.  `__exit__` of
io.IOBase is written in C and only calls close().  Here close() is a C function too, which resumes the generator.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Protocol

#: Not empty once a command is written.  The write and the entry are one step: no handler runs between them.
Written = list[int]


class Charged(Protocol):
    """A group that is charged through files."""

    def _change(self, amounts: Mapping[str, int], written: Written, /) -> None: ...
    def _charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None, written: Written, /) -> bool: ...


class Hold(io.IOBase):
    """A context manager that charges amounts for the block, then uncharges them.  It can be entered more than once."""

    if not TYPE_CHECKING:
        closed = True  # nothing is left to do when the object is collected

    def __init__(self, group: Charged, amounts: Mapping[str, int], wait: bool, timeout: float | None) -> None:
        self._group = group
        self._amounts = amounts
        self._wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
        self._back = {resource: -amount for resource, amount in amounts.items()}
        self._wait = wait
        self._timeout = timeout
        #: A generator for each running block.  They are alike, so the end of a block may resume any of them.
        self._blocks: list[Generator[None]] = []
        self.close = partial(next, map(next, iter(self._blocks.pop, None)))  # type: ignore[method-assign]

    def __enter__(self) -> None:  # type: ignore[override]
        block = self._block()
        try:
            next(block)
            self._blocks.append(block)
        except BaseException:
            if block in self._blocks:
                self._blocks.remove(block)
            next(block, None)
            raise

    def __dir__(self) -> list[str]:
        return dir(AbstractContextManager)  # and nothing of a file

    def _block(self) -> Generator[None]:
        process = os.getpid()
        charged: Written = []
        try:
            self._charge(charged)
            yield
        except GeneratorExit:  # the block never ended; the attachment holds the charge until its own end
            charged = []
            raise
        finally:
            if charged:
                returned: Written = []
                try:
                    self._uncharge(process, returned)
                except BaseException:
                    if not returned:  # a signal handler has raised before the write
                        self._uncharge(process, returned)
                    raise
        yield  # next() returns once more, instead of raising StopIteration

    def _charge(self, charged: Written) -> None:
        if not (self._wait and self._wanted and self._group._charge_in_turn(self._wanted, self._timeout, charged)):
            self._group._change(self._amounts, charged)

    def _uncharge(self, process: int, returned: Written) -> None:
        if os.getpid() == process:  # a child that was forked inside holds nothing
            self._group._change(self._back, returned)

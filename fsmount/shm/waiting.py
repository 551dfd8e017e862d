"""Charges that wait for room in the queue.

The engine grants requests: the process that frees room charges it for the requests in the queue.  This module sleeps
until the grant, and uncharges the grant of a cancelled request.

A thread sleeps on its own request.  A task of an event loop cannot.  So for each holder one thread sleeps on the number
of the holder's answers, and wakes the tasks whose requests are answered.  It exists only while tasks wait.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from fsmount.engine import EngineError, Region, Request
from fsmount.interface.event_loops import alarm

#: The longest sleep of the listening thread, in seconds.
_LONG = 3600.0


# An interrupt may come whenever Python calls or returns from a call.  So a request is made before it begins, and the
# `try` that cancels it contains all later steps.


def charge_in_turn(asked: Request, timeout: float | None) -> bool:
    """Charges a request at its turn; False: the turn did not come within `timeout` seconds.  EngineError.

    A call that raises has charged nothing.
    """
    try:
        if asked.begin():
            return True
        asked.wait(math.inf if timeout is None else timeout)
        return asked.end()
    except BaseException:
        asked.cancel()
        raise


async def charge_in_turn_async(asked: Request) -> None:
    """As charge_in_turn(), in a task of trio or asyncio, which may be cancelled."""
    wake, sleep, checkpoint = alarm()
    await checkpoint()
    try:
        if asked.begin():
            return
        answers = _answers_to(asked)
        try:
            answers.expect(asked, wake)
            await sleep()
        finally:
            answers.forget(asked)
        asked.end()
    except BaseException:
        asked.cancel()
        raise


class _Answers:
    """A thread that waits for the answers to one holder's requests, and wakes the tasks of this process."""

    def __init__(self, region: Region, holder: int) -> None:
        self._region = region
        self._holder = holder
        self._lock = threading.Lock()
        self._expected: dict[int, tuple[Request, Callable[[], None]]] = {}
        self._listening = False

    def expect(self, asked: Request, wake: Callable[[], None]) -> None:
        """Has the thread call wake() once the request is answered."""
        with self._lock:
            self._expected[asked.id] = asked, wake
            if self._listening:
                self._region.wake_answers(self._holder)  # the answer may have come already
            else:
                self._listening = True
                threading.Thread(target=self._listen, name="fsmount-answers", daemon=True).start()

    def forget(self, asked: Request) -> None:
        with self._lock:
            self._expected.pop(asked.id, None)
            if self._listening and not self._expected:
                with suppress(EngineError):
                    self._region.wake_answers(self._holder)

    def _listen(self) -> None:
        try:
            while True:
                heard = self._region.await_answers(self._holder, 0, 0.0)
                if not self._tell():
                    with _lock:
                        _heard.pop((id(self._region), self._holder), None)
                    return
                self._region.await_answers(self._holder, heard, _LONG)
        except EngineError:  # the region was closed: each task gets the error itself
            self._tell(all_of_them=True)

    def _tell(self, all_of_them: bool = False) -> bool:
        """Wakes the tasks with an answer, and returns whether others are left."""
        with self._lock:
            for number, (asked, wake) in list(self._expected.items()):
                if all_of_them or _is_answered(asked):
                    del self._expected[number]
                    wake()
            self._listening = bool(self._expected)
            return self._listening


def _is_answered(asked: Request) -> bool:
    try:
        return asked.wait(0.0)
    except EngineError:  # an error is an answer too
        return True


_lock = threading.Lock()
_heard: dict[tuple[int, int], _Answers] = {}


def _answers_to(asked: Request) -> _Answers:
    with _lock:
        key = id(asked.region), asked.holder
        return _heard.setdefault(key, _Answers(asked.region, asked.holder))


def _forget_all() -> None:
    """Forgets the listening threads, which a forked child does not have."""
    global _lock
    _lock = threading.Lock()
    _heard.clear()


os.register_at_fork(after_in_child=_forget_all)

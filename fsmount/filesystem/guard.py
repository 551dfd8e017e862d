"""The guard around every handler: no exception escapes, and the event loop's thread never waits long.

pyfuse3 runs all handlers in one thread, and an exception that leaves a handler ends the mount.  So a handler here is a
plain function that answers from memory, and one of two decorators makes a coroutine for pyfuse3 of it:

- An OSError becomes its errno, and a damaged region EIO, as on other file systems.  Errors that users can cause are
  logged at debug level; the others are logged once.
- Any other exception is logged with its traceback and becomes EIO.
- An operation that must wait runs again in a worker thread, while other requests are served.  The event loop's thread
  waits PATIENCE for the region's lock.  A worker thread waits for seconds, since the owner of the lock may be stopped.
  After one thread has waited in vain, the others hardly wait for a while.  The kernel serializes changes of names in
  a directory, so their waits would add up.  Reads of names, attributes and limits need no lock.

An operation may run twice because a handler changes at most one thing, and does so last.  The engine changes nothing
when it fails.
"""

import errno
import functools
import logging
import math
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import trio
from pyfuse3 import FUSEError

from fsmount.errors import LockTimeout
from fsmount.shm import set_patience

log = logging.getLogger(__name__)

#: The time that the event loop's thread waits for the region's lock, in seconds.
PATIENCE = 0.002

#: The time that the event loop's thread waits for the interpreter while a worker thread computes, in seconds.
SWITCH_INTERVAL = 0.0002

P = ParamSpec("P")
T = TypeVar("T")

#: The time that a worker thread waits for the lock: usually, and after another thread has waited in vain.
_PATIENCE_OF_WORKER = 3.0
_PATIENCE_AFTER_FAILURE = 0.05

#: The largest number of operations that wait for the kernel; the next one gets EAGAIN.  The kernel may delay them until
#: the daemon has served another request, so some of pyfuse3's tasks must stay free.
_WAITERS = 16

#: Errors that no user can cause.
_ALARMING = frozenset({errno.EUCLEAN, errno.EIO, errno.EBADF, errno.ENOTCONN, errno.EFAULT})

#: The alarming errors that were logged: each is logged once, though every request may meet the same damage.
_alarms: set[str] = set()
_ALARMS_MAX = 100


class MustWait(Exception):
    """An operation in the event loop's thread would have to wait: the guard runs it again in a worker thread."""


#: When an operation last waited for the lock in vain.
_failed_at = -math.inf

_waiters = trio.CapacityLimiter(_WAITERS)


def by_inode(operation: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Guards an operation on an inode.

    A removed group answers ESTALE.  The kernel then looks up the whole path again, and the user gets ENOENT or the new
    group of that name.
    """
    return _guarded(operation, gone=errno.ESTALE)


def by_handle(operation: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Guards an operation on an open file; a removed group answers ENODEV."""
    return _guarded(operation, gone=errno.ENODEV)


def _guarded(operation: Callable[P, T], gone: int) -> Callable[P, Coroutine[Any, Any, T]]:
    @functools.wraps(operation)
    async def handler(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return operation(*arguments, **named)
        except FUSEError:
            raise
        except Exception as error:
            return await recover(error, gone, functools.partial(operation, *arguments, **named))

    return handler


async def recover(error: Exception, gone: int, operation: Callable[[], T]) -> T:
    """Runs an operation again in a worker thread if `error` says that it must wait.  FUSEError: the kernel's answer."""
    limiter = None
    if isinstance(error, MustWait):
        limiter = _waiters
        if limiter.available_tokens == 0:
            raise FUSEError(errno.EAGAIN) from None
    elif not isinstance(error, LockTimeout):
        raise answer(error, gone) from None
    try:
        return await trio.to_thread.run_sync(wait_in_thread, operation, limiter=limiter)
    except Exception as again:
        raise answer(again, gone) from None


def wait_in_thread(operation: Callable[[], T]) -> T:
    """Runs an operation that may wait, in this worker thread."""
    global _failed_at
    hopeless = time.monotonic() - _failed_at < _PATIENCE_OF_WORKER
    set_patience(_PATIENCE_AFTER_FAILURE if hopeless else _PATIENCE_OF_WORKER)
    try:
        return operation()
    except LockTimeout:
        _failed_at = time.monotonic()
        raise
    finally:
        set_patience(_PATIENCE_OF_WORKER)  # other code uses the thread too


def answer(error: Exception, gone: int) -> FUSEError:
    """The answer to the kernel; `gone` stands for a group that was removed."""
    if isinstance(error, FUSEError):
        return error
    if isinstance(error, LockTimeout):
        log.warning(
            "a request timed out: the region's lock is held by process %d, which does not run; end it", error.pid
        )
        return FUSEError(errno.ETIMEDOUT)
    if isinstance(error, OSError) and error.errno is not None and 0 < error.errno < 512:
        log.log(_level(error), "answered with an error: %s", error)
        return FUSEError({errno.ENODEV: gone, errno.EUCLEAN: errno.EIO}.get(error.errno, error.errno))
    log.error("a request failed", exc_info=error)
    return FUSEError(errno.EIO)


def _level(error: OSError) -> int:
    text = str(error)
    if error.errno not in _ALARMING or text in _alarms or len(_alarms) >= _ALARMS_MAX:
        return logging.DEBUG
    _alarms.add(text)
    return logging.ERROR


def leave_loop() -> None:
    """Raises MustWait in the event loop's thread, so that the operation runs again in a worker thread."""
    if trio.lowlevel.in_trio_run():
        raise MustWait


def in_loop(function: Callable[..., T], *arguments: object) -> T:
    """Calls the function in the event loop's thread, from any thread."""
    if trio.lowlevel.in_trio_run():
        return function(*arguments)
    return trio.from_thread.run_sync(function, *arguments)


def finish(function: Callable[[], object]) -> None:
    """Runs the function.  If the region's lock is taken, it runs in the background until it succeeds."""
    try:
        function()
    except LockTimeout:
        in_loop(trio.lowlevel.spawn_system_task, persist, function)


async def await_in_thread(wait: Callable[[], T]) -> T:
    """Runs a function that only waits in a worker thread.  Cancelling the caller abandons the thread.

    The thread blocks SIGABRT, so that a core dump or traceback of an aborted daemon shows its event loop.
    """

    def run() -> T:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
        return wait()

    return await trio.to_thread.run_sync(run, abandon_on_cancel=True)


async def persist(function: Callable[[], object]) -> None:
    """Runs the function in worker threads until it gets the region's lock; logs other errors.  Never raises."""
    while True:
        try:
            await trio.to_thread.run_sync(function)
        except LockTimeout as error:
            log.warning("the region's lock is held by process %d, which does not run; trying again", error.pid)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _ALARMING:
                log.log(_level(error), "unfinished: %s", error)
                return
            gone = isinstance(error, OSError) and error.errno == errno.ENODEV
            log.log(logging.DEBUG if gone else logging.ERROR, "unfinished: %s", error, exc_info=not gone)
            return
        else:
            return

"""Nothing escapes from a handler, and no handler waits.

pyfuse3 runs all handlers in one thread, and an exception that leaves one ends the mount.  So a handler here is a plain
function that answers from memory, and one of the two decorators below makes it what pyfuse3 wants:

- an OSError becomes its errno, and a damaged region EIO, as everywhere where files are.  Users cause errors, so they
  are logged for debugging only, and what they cannot cause is logged once;
- anything else is logged with its traceback and becomes EIO;
- what would have to wait is begun again in a worker thread, and other requests are served meanwhile.  The event
  loop's thread waits PATIENCE for the region's lock, a worker thread for seconds (its owner may be stopped).  Once one
  has waited in vain, the others hardly wait at all for a while: the kernel makes and removes the names in a directory
  one after the other, so their seconds would add up.  Names, attributes and limits are read without the lock.

Beginning again is harmless as long as a handler does at most one thing that changes something, and does it last: the
engine changes nothing when it fails.
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

#: How long the event loop's thread waits for the region's lock, in seconds.
PATIENCE = 0.002

#: How long it waits for the interpreter while a worker thread makes a text of many groups, in seconds.
TURN = 0.0002

P = ParamSpec("P")
T = TypeVar("T")

#: How long a worker thread waits for it, and how long after another has waited in vain.
_PATIENCE_OF_WORKER = 3.0
_PATIENCE_AFTER_FAILURE = 0.05

#: How many operations may wait for the kernel at once.  It may hold them up until we have served another request, so
#: some of pyfuse3's tasks must stay free; one more is answered EAGAIN.
_WAITERS = 16

#: These are not a user's doing.
_ALARMING = frozenset({errno.EUCLEAN, errno.EIO, errno.EBADF, errno.ENOTCONN, errno.EFAULT})

#: What was logged of them.  Everybody runs into a damaged region, again and again.
_alarms: set[str] = set()
_ALARMS = 100


class MustWait(Exception):
    """Raised in the event loop's thread by an operation that may wait for the kernel; it is begun again elsewhere."""


#: When an operation has last waited for the lock in vain.
_failed_at = -math.inf

_waiters = trio.CapacityLimiter(_WAITERS)


def by_inode(operation: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Guards an operation on an inode.

    For a group that is gone it answers ESTALE: the kernel then looks the whole path up again, so that a user
    sees ENOENT, or the new group of that name.
    """
    return _guarded(operation, gone=errno.ESTALE)


def by_handle(operation: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Guards an operation on an open file; for a group that is gone it answers ENODEV."""
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
    """What becomes of an operation that has raised: it is begun again where it may wait, or a FUSEError is raised."""
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
        set_patience(_PATIENCE_OF_WORKER)  # the thread will be used for other things too


def answer(error: Exception, gone: int) -> FUSEError:
    """The answer to the kernel; `gone` stands for a group that was removed."""
    if isinstance(error, FUSEError):
        return error
    if isinstance(error, LockTimeout):
        log.warning("a request failed: the region's lock is held by process %d, which does not run", error.pid)
        return FUSEError(errno.ETIMEDOUT)
    if isinstance(error, OSError) and error.errno is not None and 0 < error.errno < 512:
        log.log(_level(error), "answered: %s", error)
        return FUSEError({errno.ENODEV: gone, errno.EUCLEAN: errno.EIO}.get(error.errno, error.errno))
    log.error("a request failed", exc_info=error)
    return FUSEError(errno.EIO)


def _level(error: OSError) -> int:
    text = str(error)
    if error.errno not in _ALARMING or text in _alarms or len(_alarms) >= _ALARMS:
        return logging.DEBUG
    _alarms.add(text)
    return logging.ERROR


def leave_loop() -> None:
    """What follows is not for the event loop's thread: MustWait there, and nothing in a worker thread."""
    if trio.lowlevel.in_trio_run():
        raise MustWait


def in_loop(function: Callable[..., T], *arguments: object) -> T:
    """Calls function in the event loop's thread, from there or from a worker thread."""
    if trio.lowlevel.in_trio_run():
        return function(*arguments)
    return trio.from_thread.run_sync(function, *arguments)


def finish(function: Callable[[], object]) -> None:
    """Runs what must happen although nobody waits for it: in the background if the lock is not to be had at once."""
    try:
        function()
    except LockTimeout:
        in_loop(trio.lowlevel.spawn_system_task, persist, function)


async def await_in_thread(wait: Callable[[], T]) -> T:
    """Runs what only waits in a worker thread, which is left to itself when the caller is cancelled.

    SIGABRT is not for that thread: who aborts the daemon wants to know where its event loop is.
    """

    def run() -> T:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
        return wait()

    return await trio.to_thread.run_sync(run, abandon_on_cancel=True)


async def persist(function: Callable[[], object]) -> None:
    """Runs function in worker threads until the region's lock was to be had; other errors are logged.  Never raises."""
    while True:
        try:
            await trio.to_thread.run_sync(function)
        except LockTimeout as error:
            log.warning("the region's lock is held by process %d, which does not run; trying on", error.pid)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _ALARMING:
                log.log(_level(error), "unfinished: %s", error)
                return
            gone = isinstance(error, OSError) and error.errno == errno.ENODEV
            log.log(logging.DEBUG if gone else logging.ERROR, "unfinished: %s", error, exc_info=not gone)
            return
        else:
            return

"""Into the background, and back with the news.

The process that the user started waits at a pipe until its descendant says that it serves, or
why it cannot.  All work is done after the forks: threads and event loops do not survive one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

from fsmount.admin.user_error import UserError

_SERVING = b"+"
_REFUSED = b"-"


def in_background(serve: Callable[[Callable[[str], None]], None]) -> str:
    """Runs serve(ready) in a daemon process; returns the text that ready() gets there.

    UserError as serve() refuses."""
    news, pen = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(news)
        _become_daemon(serve, pen)
    os.close(pen)
    with open(news, "rb") as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    if message.startswith(_REFUSED):
        raise UserError(message[1:].decode(errors="surrogateescape"))
    if not message.startswith(_SERVING):
        raise UserError("the daemon ended before the files were there; the system's log tells why")
    return message[1:].decode(errors="surrogateescape")


def _become_daemon(serve: Callable[[Callable[[str], None]], None], pen: int) -> None:
    """The rest of the descendants' lives; does not return."""
    status = 1
    logs = False
    try:
        os.setsid()
        if os.fork() > 0:  # the leader of a session could get a terminal again: its child cannot
            os._exit(0)
        os.chdir("/")
        _let_go(pen)
        logs = True

        def ready(text: str) -> None:
            nonlocal pen
            os.write(pen, _SERVING + text.encode(errors="surrogateescape"))
            os.close(pen)
            pen = -1

        serve(ready)
        status = 0
    except UserError as refused:
        os.write(pen, _REFUSED + str(refused).encode(errors="surrogateescape"))
    except BaseException as error:
        if logs:
            sys.excepthook(type(error), error, error.__traceback__)
        if pen >= 0:
            os.write(pen, _REFUSED + _told(error).encode(errors="surrogateescape"))
    finally:
        os._exit(status)


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if not isinstance(error, OSError) or error.strerror is None:
        return f"{error!r}; the system's log tells more"
    where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
    return f"the daemon cannot be started: {error.strerror}{where}"


def _let_go(pen: int) -> None:
    """Of the terminal and of every other file that was inherited: somebody may wait for its last close."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        if (descriptor := int(name)) > 2 and descriptor != pen:
            with contextlib.suppress(OSError):
                os.close(descriptor)

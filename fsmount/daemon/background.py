"""Starts the daemon in the background.

The process that the user started waits at a pipe until the daemon reports that it serves the mount, or why it cannot.
The daemon does all its work after the forks: threads and event loops do not survive a fork.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

from fsmount.admin.user_error import UserError

_SERVING = b"+"
_FAILED = b"-"


def in_background(serve: Callable[[Callable[[str], None]], None]) -> str:
    """Runs serve(ready) in a daemon process; returns the text that ready() gets there.  UserError from serve()."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_daemon(serve, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    if message.startswith(_FAILED):
        raise UserError(message[1:].decode(errors="surrogateescape"))
    if not message.startswith(_SERVING):
        raise UserError("the daemon ended before the files were there: look for the reason in the system's log")
    return message[1:].decode(errors="surrogateescape")


def _become_daemon(serve: Callable[[Callable[[str], None]], None], writer: int) -> None:
    """Runs the descendants; does not return."""
    status = 1
    logs = False
    try:
        os.setsid()
        if os.fork() > 0:  # a session leader can acquire a terminal, its child cannot
            os._exit(0)
        os.chdir("/")
        _release_files(writer)
        logs = True

        def ready(text: str) -> None:
            nonlocal writer
            os.write(writer, _SERVING + text.encode(errors="surrogateescape"))
            os.close(writer)
            writer = -1

        serve(ready)
        status = 0
    except UserError as error:
        os.write(writer, _FAILED + str(error).encode(errors="surrogateescape"))
    except BaseException as error:
        if logs:
            sys.excepthook(type(error), error, error.__traceback__)
        if writer >= 0:
            os.write(writer, _FAILED + _describe(error).encode(errors="surrogateescape"))
    finally:
        os._exit(status)


def _describe(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if not isinstance(error, OSError) or error.strerror is None:
        return f"the daemon cannot be started: {error!r}; look for details in the system's log"
    where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
    return f"the daemon cannot be started: {error.strerror}{where}"


def _release_files(writer: int) -> None:
    """Closes the terminal and all other inherited files: another process may wait for their last close."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        if (descriptor := int(name)) > 2 and descriptor != writer:
            with contextlib.suppress(OSError):
                os.close(descriptor)

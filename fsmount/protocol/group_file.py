"""Opening a file of a group's directory, which may be no such directory but another user's trap.

A file of a group is a regular file with one name.  In a directory that another user has made to look like a group, a
link could lead root to any file, a second name could be that of a file of root's, and a pipe would hold root up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


def open_group_file(path: str, flags: int) -> int:
    """A descriptor, for the caller to close.  OSError; EINVAL: this is no file of an fsmount tree."""
    with _told_of(path):
        descriptor = os.open(path, flags | _FLAGS)
    try:
        _check(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def opened_group_file(path: str, flags: int) -> Iterator[int]:
    """The same for the block alone.  A signal handler that raises, at whatever moment, leaves no descriptor behind."""
    opened: list[int] = []
    try:
        with _told_of(path):
            opened.extend(map(os.open, (path,), (flags | _FLAGS,)))  # one step: it is open and known, or neither
        _check(opened[0], path)
        yield opened[0]
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextlib.contextmanager
def _told_of(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe or a socket
            raise _no_group_file(path) from None
        raise


def _check(descriptor: int, path: str) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise _no_group_file(path)


def _no_group_file(path: str) -> OSError:
    return OSError(errno.EINVAL, "this is no file of an fsmount tree, whatever its name", path)

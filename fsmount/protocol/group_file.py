"""Opens files of a group, in a directory that may be a trap of another user.

A file of a group is a regular file with one name.  Another user can make a directory that looks like a group.  A link
in it could lead root to any file, a second name could be that of a file of root, and a pipe would block root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


def open_group_file(path: str, flags: int) -> int:
    """A descriptor that the caller closes.  OSError(EINVAL): this is no file of an fsmount tree."""
    with _group_file_errors(path):
        descriptor = os.open(path, flags | _FLAGS)
    try:
        _check(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def opened_group_file(path: str, flags: int) -> Iterator[int]:
    """A descriptor for the block alone.  A signal handler that raises leaves no descriptor behind, at any moment."""
    opened: list[int] = []
    try:
        with _group_file_errors(path):
            opened.extend(map(os.open, (path,), (flags | _FLAGS,)))  # one step: opened and listed, or neither
        _check(opened[0], path)
        yield opened[0]
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextlib.contextmanager
def _group_file_errors(path: str) -> Iterator[None]:
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
    return OSError(errno.EINVAL, "this is no file of an fsmount tree, despite its name", path)

"""Opening a file of a group's directory, which may be no such directory but another user's trap.

A file of a group is a regular file with one name.  In a directory that another user has made to look like a group, a
link could lead root to any file, a second name could be that of a file of root's, and a pipe would hold root up.
"""

from __future__ import annotations

import errno
import os
import stat


def open_group_file(path: str, flags: int) -> int:
    """A descriptor, for the caller to close.  OSError; EINVAL: this is no file of an fsmount tree."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe or a socket
            raise _no_group_file(path) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise _no_group_file(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _no_group_file(path: str) -> OSError:
    return OSError(errno.EINVAL, "this is no file of an fsmount tree, whatever its name", path)

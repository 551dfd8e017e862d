"""What an error of a mount means for the group whose file or directory was asked."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from ..errors import LOST_DAEMON, GroupRemoved, TreeGone, says_daemon_is_lost

#: Where a path begins that leads through a descriptor of this process.
DESCRIPTORS = "/proc/self/fd/"


@contextlib.contextmanager
def told_of(path: str) -> Iterator[None]:
    """What an error of the mount means for the group at this path."""
    try:
        yield
    except OSError as error:
        if says_daemon_is_lost(error):
            raise TreeGone(path, LOST_DAEMON) from None
        if error.errno in (errno.ENODEV, errno.ENOENT, errno.ESTALE):
            raise GroupRemoved(path) from None
        raise OSError(error.errno, error.strerror, _public(error.filename or path, path)) from None


def _public(name: str, path: str) -> str:
    """The path of a file or directory as others know it: ours may lead through a descriptor of the group at path."""
    return os.path.join(path, *name.split("/")[5:]) if name.startswith(DESCRIPTORS) else name

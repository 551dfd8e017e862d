"""The public errors for errors of a mount; they name the group of the file or directory."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from fsmount.errors import LOST_DAEMON, UNMOUNTED, GroupRemoved, TreeGone, says_daemon_is_lost
from fsmount.protocol.file_names import CHANNEL_FILE

_NO_ROOM = "the mount has no room for another holder or waiting request: see fsmount status"
_NO_FILES = "no more files of the mount can be opened: close some, or see fsmount status (the user's share is used up?)"

#: The error of a mount, or a bind mount, that is read-only.
READ_ONLY = (
    "the tree is mounted read-only here, so nothing can be charged or set; use it where it is mounted read-write, "
    "or remount it: mount -o remount,rw"
)

#: The beginning of a path through a descriptor of this process.
DESCRIPTORS = "/proc/self/fd/"


@contextlib.contextmanager
def public_errors(path: str) -> Iterator[None]:
    """Turns an error of the mount in the block into the public error about the group at this path."""
    try:
        yield
    except OSError as error:
        if says_daemon_is_lost(error):
            raise TreeGone(path, LOST_DAEMON) from None
        if says_gone(error):
            raise GroupRemoved(path) if _is_below_a_group(path) else TreeGone(path, UNMOUNTED) from None
        if error.errno == errno.ENOSPC:  # of the region, or of a user's share of it
            from fsmount.protocol.status import share_used_up  # only here, because it takes 2 ms

            raise OSError(error.errno, share_used_up(path) or _NO_ROOM, path) from None
        if error.errno == errno.ENFILE:
            raise OSError(error.errno, _NO_FILES, path) from None
        if error.errno == errno.EROFS:
            raise OSError(errno.EROFS, READ_ONLY, path) from None
        raise OSError(error.errno, error.strerror, _public(error.filename or path, path)) from None


def says_gone(error: OSError) -> bool:
    """Whether the error means that the group of a file or directory was removed, or never existed."""
    return error.errno in (errno.ENODEV, errno.ENOENT, errno.ESTALE)


def _is_below_a_group(path: str) -> bool:
    """Whether the deepest existing directory above a missing group is in a tree.  TreeGone: its daemon is lost."""
    while (above := os.path.dirname(path)) != path:
        path = above
        try:
            os.lstat(path)
        except OSError as error:
            if says_daemon_is_lost(error):
                raise TreeGone(path, LOST_DAEMON) from None
        else:
            break
    return os.path.lexists(os.path.join(path, CHANNEL_FILE))


def _public(name: str, path: str) -> str:
    """The public path of a file or directory whose own path may lead through a descriptor of the group at `path`."""
    return os.path.join(path, *name.split("/")[5:]) if name.startswith(DESCRIPTORS) else name

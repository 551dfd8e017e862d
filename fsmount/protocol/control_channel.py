"""The channel from a process to the daemon of a mount: the hidden file `.fsmount` of each directory.

A read shows the tree of the directory, and the path of its region.  A write names a holder, or a group whose children
were changed in the region.  A named holder ends with the open file.  The process ties the open file to its memory, so
any death of the process ends the holder.  After a change of children, the daemon invalidates the kernel's caches.

The daemon itself must not use the channel: a daemon that opens a file of its own mount waits for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import NamedTuple

from fsmount.protocol.file_names import CHANNEL_FILE
from fsmount.protocol.group_file import open_group_file

VERSION = 1


class Description(NamedTuple):
    """The group of a directory, as its channel shows it."""

    region: str
    tree_id: int
    group: int
    server: int


def open_control(directory: str) -> tuple[int, Description]:
    """Opens the channel of a directory; the caller closes the descriptor.  EPROTO: the text has another form."""
    import json

    path = os.path.join(directory, CHANNEL_FILE)
    descriptor = open_group_file(path, os.O_RDWR)
    try:
        text = os.read(descriptor, 65536)
        try:
            told = json.loads(text)
            version = told["version"]
            found = Description(
                os.fspath(told["region"]), int(told["tree"], 16), int(told["group"]), int(told["server"])
            )
        except (ValueError, KeyError, TypeError):
            raise OSError(errno.EPROTO, "this is not the control channel of an fsmount directory", path) from None
        if version != VERSION:
            raise OSError(errno.EPROTO, f"the daemon speaks version {version}, this is version {VERSION}", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found


def introduce(descriptor: int, holder: int) -> bool:
    """Ties a holder to this open channel: it ends with the channel.  False: the daemon does not know the holder.

    PermissionError: the daemon sees this process under another pid, and would consider the holder dead.
    """
    try:
        os.write(descriptor, b"holder %d\n" % holder)
    except PermissionError:
        raise PermissionError(
            errno.EPERM, "the daemon knows this process by another pid (another pid namespace?)"
        ) from None
    except OSError:
        return False
    return True


def introduce_in(directory: str, tree_id: int, holder: int) -> int:
    """Ties a holder to the channel of a directory; returns its descriptor, or -1 if no daemon serves the tree there."""
    try:
        descriptor, found = open_control(directory)
    except OSError:
        return -1
    introduced = False
    try:
        introduced = found.tree_id == tree_id and found.server != os.getpid() and introduce(descriptor, holder)
    finally:
        if not introduced:
            os.close(descriptor)
    return descriptor if introduced else -1


def tell_changed(directory: str, group: int) -> None:
    """Has the daemon invalidate the kernel's cache of a group's children.  Does nothing without a daemon."""
    with contextlib.suppress(OSError):
        descriptor = open_group_file(os.path.join(directory, CHANNEL_FILE), os.O_WRONLY)
        try:
            os.write(descriptor, b"changed %d\n" % group)
        finally:
            os.close(descriptor)

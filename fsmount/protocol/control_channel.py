"""What a process says to the daemon of a mount: through the hidden file `.fsmount` of any directory of it.

Reading it tells which tree this is and where its region lives.  Writing names a holder, which
then lives no longer than the open file (whoever opens it ties it to his memory, so that any
death releases it), or a group whose children were changed in the region, behind the back of the
kernel's caches.

A process never talks so to itself: a daemon that opens its own mount waits for ever.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import NamedTuple

from fsmount.protocol.file_names import CHANNEL_FILE
from fsmount.protocol.group_file import open_group_file

VERSION = 1


class Description(NamedTuple):
    """What a directory's control file tells."""

    region: str
    tree_id: int
    group: int
    server: int


def open_control(directory: str) -> tuple[int, Description]:
    """Opens a directory's control file; the descriptor is the caller's.  EPROTO: it is not understood."""
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
            raise OSError(errno.EPROTO, "this is not the control file of an fsmount directory", path) from None
        if version != VERSION:
            raise OSError(errno.EPROTO, f"the daemon speaks version {version}, this is version {VERSION}", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found


def introduce(descriptor: int, holder: int) -> bool:
    """Has the daemon end a holder when this open control file is closed.  False: it does not know the holder.

    PermissionError: the daemon sees another process id than ours, so it would take the holder for dead.
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
    """The same through a directory's control file: its descriptor, or -1 if no daemon of this tree is there."""
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
    """Has the daemon forget what the kernel caches of a group's children.  Nothing is wrong if there is no daemon."""
    with contextlib.suppress(OSError):
        descriptor = open_group_file(os.path.join(directory, CHANNEL_FILE), os.O_WRONLY)
        try:
            os.write(descriptor, b"changed %d\n" % group)
        finally:
            os.close(descriptor)

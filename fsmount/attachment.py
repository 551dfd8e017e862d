"""attach(): from a directory of a mount to a group that can be charged.

A process has two ways to charge.  In the region ("memory"): the directory's control channel names the region, and the
process becomes a holder there.  Through the mount ("files"): the process opens a lease file and writes to it.  That
works where the region cannot be reached or must not be used: for another user's tree, in a container, and in the
distribution fsmount-client, which has no engine.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from fsmount.files import attach_files
from fsmount.installation import missing_engine
from fsmount.interface import Group, OnExit, Transport
from fsmount.interface.options import checked_transport, ends_with_keep
from fsmount.protocol.names import path_text

if TYPE_CHECKING:
    from fsmount import shm

#: Why this installation cannot use a region; empty if it can.
_missing = missing_engine()
if not _missing:  # imported with this module, so that a later attach(), perhaps in a forked child, imports nothing
    from fsmount.shm import mounted


def attach(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    on_exit: OnExit = "release",
    transport: Transport = "auto",
) -> Group:
    """Makes this process a holder in the group at a path, a directory of a mounted tree.

    on_exit: whether the charges that the process still holds at the end of the attachment, or at its own end, are
    released ("release") or go to the group itself ("keep").  transport: charge in the shared region ("memory"),
    through a lease file ("files"), or in the first of these ways that works ("auto").  The result is a context manager
    that ends the attachment.  On a read-only mount the group can be read, and a charge or a change of a setting is an
    OSError with EROFS.

    FileNotFoundError, NotADirectoryError; EINVAL: the directory is in no fsmount tree; TreeGone: its daemon is gone;
    ENOSPC: there is no room for another holder.  TypeError: path is neither text, bytes nor os.PathLike.
    """
    where = path_text(path)
    ends_with_keep(on_exit)
    checked_transport(transport)
    if not where:  # which realpath() would take for the current directory
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where)
    directory = os.path.realpath(where)
    if _missing:
        if transport == "memory":
            raise OSError(errno.ENOSYS, f'transport "memory": {_missing} (transport "files" works without)', directory)
    elif transport != "files":
        try:
            return mounted.attach_memory(directory, on_exit)
        except mounted.OutOfReachError as why:
            if transport == "memory":
                raise OSError(
                    why.error.errno,
                    f'the tree\'s region cannot be used from here: {why} (transport "files" works without)',
                    directory,
                ) from why.error
        except OSError as error:
            if error.errno != errno.EROFS:  # nothing can be charged there, but it can be read through its files
                raise
    return attach_files(directory, on_exit)


def look(path: str) -> shm.Group | None:
    """The group at a path, a directory of a mounted tree, to be read in the region; this process is no holder there.

    None: this process cannot use the region.  Errors as those of attach().
    """
    if _missing:
        return None
    try:
        return mounted.look(path)
    except mounted.OutOfReachError:
        return None
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return None

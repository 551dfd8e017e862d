"""attach(): from a directory of a mount to a group that can be charged.

There are two ways to charge.  In the region ("memory"): the directory's control file tells where
it is, and this process becomes a holder in it.  Through the mount ("files"): a lease file is
opened and written to; that works where the region cannot be reached or must not be, as another
user's or from inside a container.
"""

from __future__ import annotations

import errno
import os
import threading
from weakref import WeakValueDictionary

from fsmount.errors import LOST_DAEMON, TreeGone, says_daemon_is_lost
from fsmount.files import LeaseGroup, attach_files
from fsmount.interface.on_exit import ends_with_keep
from fsmount.protocol.control_channel import Description, open_control
from fsmount.protocol.names import path_text
from fsmount.protocol.suggestions import no_group
from fsmount.shm import Group, Tree

_lock = threading.Lock()
# One mapping of a region for this process, whatever directories lead to it.
_trees: WeakValueDictionary[int, Tree] = WeakValueDictionary()


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)


class _OutOfReach(Exception):
    """The directory is a group, but its region cannot be used from here; says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.error = error


def attach(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes], *, on_exit: str = "release", transport: str = "auto"
) -> Group | LeaseGroup:
    """Makes this process a holder in the group at path, a directory of a mounted tree.

    on_exit: what the process still holds when it ends, however it ends, is given back ("release") or
    becomes the group's own ("keep").  transport: charge in the shared region ("memory"), through a lease
    file ("files"), or the first of them that works ("auto").  The result is a context manager that detaches.
    On a read-only mount the group can be asked, and what would charge or set something is an OSError with EROFS.

    FileNotFoundError, NotADirectoryError; EINVAL: no directory of an fsmount tree; TreeGone: its daemon is gone;
    ENOSPC: no room for another holder.  TypeError: path is neither text, bytes nor os.PathLike.
    """
    where = path_text(path)
    ends_with_keep(on_exit)
    if transport not in ("auto", "memory", "files"):
        raise ValueError(f'transport is "auto", "memory" or "files", not {transport!r}')
    if not where:  # which realpath() would take for the current directory
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where)
    directory = os.path.realpath(where)
    if transport != "files":
        try:
            return _attach_memory(directory, on_exit)
        except _OutOfReach as why:
            if transport == "memory":
                raise OSError(
                    why.error.errno,
                    f'the tree\'s region cannot be used from here: {why} (transport "files" goes without)',
                    directory,
                ) from why.error
        except OSError as error:
            if error.errno != errno.EROFS:  # nothing can be charged through it, but it can be read through its files
                raise
    return attach_files(directory, on_exit)


def look(path: str | os.PathLike[str]) -> Group | None:
    """The group at path, a directory of a mounted tree, in its region: to be asked, this process is no holder there.

    None: its region cannot be used from here.  Errors as those of attach().
    """
    try:
        descriptor, description = _ask(os.path.realpath(path))
        os.close(descriptor)
        return _tree(description).group(description.group)
    except _OutOfReach:
        return None
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return None


def _attach_memory(directory: str, on_exit: str) -> Group:
    descriptor, description = _ask(directory)
    try:
        group = _tree(description).group(description.group)
        group.tree.control_directory = directory
        try:
            return group.attach(on_exit=on_exit, control=descriptor)
        except PermissionError as error:
            raise _OutOfReach(error) from error
    finally:
        os.close(descriptor)


def _ask(directory: str) -> tuple[int, Description]:
    try:
        return open_control(directory)
    except PermissionError as error:
        raise _OutOfReach(error) from error
    except FileNotFoundError:
        if not os.path.exists(directory):
            raise no_group(directory) from None
        raise OSError(errno.EINVAL, "this directory is in no fsmount tree", directory) from None
    except NotADirectoryError:
        raise NotADirectoryError(errno.ENOTDIR, "a group is a directory", directory) from None
    except OSError as error:
        if says_daemon_is_lost(error):
            raise TreeGone(directory, LOST_DAEMON) from None
        if error.errno in (errno.ENODEV, errno.ESTALE):
            raise FileNotFoundError(errno.ENOENT, "the group was removed", directory) from None
        raise


def _tree(description: Description) -> Tree:
    with _lock:
        tree = _trees.get(description.tree_id)
        if tree is not None and not tree.region.closed:
            return tree
        try:
            tree = Tree.open(description.region)
        except OSError as error:
            raise _OutOfReach(error) from error
        if tree.id != description.tree_id:
            tree.close()
            raise _OutOfReach(OSError(errno.ENOENT, f"{description.region} is another tree's here"))
        _trees[description.tree_id] = tree
        return tree

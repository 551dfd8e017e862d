"""From a directory of a mount to its group in the region."""

from __future__ import annotations

import errno
import json  # noqa: F401  # open_control() needs it, and attach() must import nothing
import os
import threading
from weakref import WeakValueDictionary

from fsmount.errors import LOST_DAEMON, TreeGone, says_daemon_is_lost
from fsmount.interface import OnExit
from fsmount.protocol.control_channel import Description, open_control
from fsmount.protocol.suggestions import no_group
from fsmount.shm.groups import Group
from fsmount.shm.tree import Tree

_lock = threading.Lock()
# A region is mapped once in this process, however many directories lead to it.
_trees: WeakValueDictionary[int, Tree] = WeakValueDictionary()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class OutOfReachError(Exception):
    """The directory is a group, but this process cannot use its region."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.error = error


def attach_memory(directory: str, on_exit: OnExit) -> Group:
    """An attachment to the group at this real path.  OutOfReachError, and the errors of attach()."""
    descriptor, description = _ask(directory)
    try:
        tree = _tree(description)
        tree.control_directory = directory
        try:
            return tree.group(description.group).attach_through(descriptor, on_exit)
        except PermissionError as error:
            raise OutOfReachError(error) from error
    finally:
        os.close(descriptor)


def look(path: str) -> Group:
    """The group at this path, for reading: this process does not become a holder.  Errors as in attach_memory()."""
    descriptor, description = _ask(os.path.realpath(path))
    os.close(descriptor)
    return _tree(description).group(description.group)


def _ask(directory: str) -> tuple[int, Description]:
    try:
        return open_control(directory)
    except PermissionError as error:
        raise OutOfReachError(error) from error
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
            raise OutOfReachError(error) from error
        if tree.id != description.tree_id:
            tree.close()
            raise OutOfReachError(OSError(errno.ENOENT, f"{description.region} is another tree's here"))
        _trees[description.tree_id] = tree
        return tree

"""The kernel's cache of names and attributes, and how it stays true.

Names and attributes are handed out to be kept for ever.  What is changed through the mount, the kernel notices by
itself: a write invalidates the file's attributes, mkdir, rmdir and rename the directory's.  Two things remain.

A process that has the region may make, rename and remove groups without the kernel.  It says so in the control file,
and the names the kernel was told and which are no longer true are taken back.  Names that are not there are never
handed out to be kept, so a new group needs nothing.  Until it is said, or if it never is, an inode of a group that is
gone answers ESTALE, and the kernel looks again.

After a mkdir, rmdir or rename the kernel forgets the directory's attributes, but a getattr that was answered
just before and is handled by its caller just after would bring the old ones back.  invalidate_inode() also makes
the kernel distrust answers that are under way; so the handlers call it, before they answer.
"""

import logging

import pyfuse3
from pyfuse3 import EntryAttributes

from fsmount.shm import Attributes

log = logging.getLogger(__name__)

#: The kernel takes it in seconds; 100 years.
FOREVER = 100 * 365 * 86400.0


def entry(inode: int, mode: int, nlink: int, attributes: Attributes, timeout: float = FOREVER) -> EntryAttributes:
    """What stat() shows.  `mode` has the type and the permissions; those in `attributes` do not count."""
    result = EntryAttributes()
    result.st_ino = inode
    result.st_mode = mode
    result.st_nlink = nlink
    _, result.st_uid, result.st_gid, result.st_atime_ns, result.st_mtime_ns, result.st_ctime_ns = attributes
    result.entry_timeout = FOREVER
    result.attr_timeout = timeout
    return result


def invalidate_attributes(inode: int) -> None:
    """The kernel forgets the inode's attributes and distrusts answers that are under way.  Does not wait."""
    try:
        pyfuse3.invalidate_inode(inode, attr_only=True)
    except FileNotFoundError:
        pass  # it has none
    except OSError as error:
        log.warning("the kernel may show old attributes of inode %#x: %s", inode, error)


def invalidate_name(directory: int, name: bytes) -> None:
    """The kernel forgets a name in a directory.

    It waits for a request that the kernel has under way there, so not in the event loop's thread.
    """
    try:
        pyfuse3.invalidate_entry(directory, name)
    except FileNotFoundError:
        pass  # it has none


class KnownNames:
    """The names of groups that the kernel was told and may still have.

    Changes in the event loop's thread and in worker threads; each step is one operation on a dict.
    """

    def __init__(self) -> None:
        self._names: dict[int, dict[bytes, int]] = {}

    def add(self, parent: int, name: bytes, child: int) -> None:
        """The kernel is told that the child of this name is the group with id `child`."""
        self._names.setdefault(parent, {})[name] = child

    def of(self, parent: int) -> list[tuple[bytes, int]]:
        """What the kernel was told of a group's children."""
        return list(self._names.get(parent, {}).items())

    def drop(self, parent: int, name: bytes, child: int) -> None:
        """The name is no longer this child's."""
        names = self._names.get(parent, {})
        if names.get(name) == child:
            names.pop(name, None)

    def forget(self, group: int) -> None:
        """The group is gone, and so is everything in it."""
        pending = [group]
        while pending:
            pending += self._names.pop(pending.pop(), {}).values()

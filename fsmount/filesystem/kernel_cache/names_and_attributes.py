"""Names and attributes that the kernel caches, and how they stay true.

The kernel may keep names and attributes forever.  It notices changes through the mount by itself: a write invalidates
the attributes of the file, and mkdir, rmdir and rename those of the directory.  Two cases remain.

A process that has the region can make, rename and remove groups without the kernel.  It reports that through the
control file, and the daemon takes back the names that are no longer true.  The kernel never keeps a missing name, so a
new group needs nothing.  Until the report comes, an inode of a removed group answers ESTALE, and the kernel looks
again.

After mkdir, rmdir or rename the kernel forgets the attributes of the directory.  A getattr that was answered just
before, and that its caller handles just after, would bring the old ones back.  invalidate_inode() also makes the kernel
distrust answers under way, so the handlers call it before they answer.
"""

import logging

import pyfuse3
from pyfuse3 import EntryAttributes

from fsmount.shm import Attributes

log = logging.getLogger(__name__)

#: The kernel's timeout in seconds: 100 years.
FOREVER = 100 * 365 * 86400.0


def entry(inode: int, mode: int, nlink: int, attributes: Attributes, timeout: float = FOREVER) -> EntryAttributes:
    """The attributes that stat() shows.  `mode` has the type and the permissions, in place of those in `attributes`."""
    result = EntryAttributes()
    result.st_ino = inode
    result.st_mode = mode
    result.st_nlink = nlink
    _, result.st_uid, result.st_gid, result.st_atime_ns, result.st_mtime_ns, result.st_ctime_ns = attributes
    result.entry_timeout = FOREVER
    result.attr_timeout = timeout
    return result


def invalidate_attributes(inode: int) -> None:
    """Makes the kernel forget an inode's attributes and distrust answers under way.  Does not wait."""
    try:
        pyfuse3.invalidate_inode(inode, attr_only=True)
    except FileNotFoundError:
        pass  # the kernel does not have this inode
    except OSError as error:
        log.warning("cannot invalidate inode %#x, of which the kernel may show old attributes: %s", inode, error)


def invalidate_name(directory: int, name: bytes) -> None:
    """Makes the kernel forget a name in a directory.

    It waits for the kernel's requests under way there, so the event loop's thread must not call it.
    """
    try:
        pyfuse3.invalidate_entry(directory, name)
    except FileNotFoundError:
        pass  # the kernel does not have this name


class KnownNames:
    """The names of groups that the kernel was given and may still have.

    The event loop's thread and worker threads change it; each step is one operation on a dict.
    """

    def __init__(self) -> None:
        self._names: dict[int, dict[bytes, int]] = {}

    def add(self, parent: int, name: bytes, child: int) -> None:
        """The kernel learns that the child of this name is the group with id `child`."""
        self._names.setdefault(parent, {})[name] = child

    def of(self, parent: int) -> list[tuple[bytes, int]]:
        """The names and ids that the kernel has of a group's children."""
        return list(self._names.get(parent, {}).items())

    def drop(self, parent: int, name: bytes, child: int) -> None:
        """The name no longer belongs to this child."""
        names = self._names.get(parent, {})
        if names.get(name) == child:
            names.pop(name, None)

    def forget(self, group: int) -> None:
        """The group is gone, with everything in it."""
        pending = [group]
        while pending:
            pending += self._names.pop(pending.pop(), {}).values()

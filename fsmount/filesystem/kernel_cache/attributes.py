"""Attributes that the kernel caches, and how they stay true.

The kernel may keep attributes forever.  It notices changes through the mount by itself: a write invalidates the
attributes of the file, and mkdir, rmdir and rename those of the directory.

After mkdir, rmdir or rename the kernel forgets the attributes of the directory.  But it may still be handling an older
answer to getattr, which would bring the old attributes back.  invalidate_inode() makes the kernel distrust such
answers, so the handlers call it before they answer.
"""

import logging

import pyfuse3
from pyfuse3 import EntryAttributes

from fsmount.shm import Attributes

log = logging.getLogger(__name__)

#: The kernel's timeout in seconds: 100 years.
FOREVER = 100 * 365 * 86400.0


def entry(inode: int, mode: int, nlink: int, attributes: Attributes, timeout: float = FOREVER) -> EntryAttributes:
    """The attributes that stat() shows.  `mode`: the type and the permissions, instead of the mode in `attributes`."""
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
        log.warning("cannot invalidate inode %#x, the kernel may show old attributes: %s", inode, error)

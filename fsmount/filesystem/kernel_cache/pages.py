"""Changes to the kernel's page cache.  Both wait for the kernel, so worker threads call them."""

import logging

import pyfuse3

log = logging.getLogger(__name__)

#: A size that exceeds any text.
_FAR = 1 << 40
EXTENDED = _FAR + 1


def extend_file(inode: int) -> None:
    """Makes the kernel take a file for larger than any text: it stores a byte in a page that no process reads."""
    try:
        pyfuse3.notify_store(inode, _FAR, b"\0")
    except FileNotFoundError:
        pass  # the kernel does not have this inode
    except OSError as error:
        log.warning("cannot extend inode %#x in the kernel, which may show too little of it: %s", inode, error)


def drop_pages(inode: int) -> None:
    """Makes the kernel drop all pages of a file, once they are read."""
    try:
        pyfuse3.invalidate_inode(inode)
    except FileNotFoundError:
        pass  # the kernel does not have this inode
    except OSError as error:
        log.warning("cannot drop the pages of inode %#x, of which the kernel may show old text: %s", inode, error)

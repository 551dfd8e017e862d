"""Changes to the kernel's page cache.  Both wait for the kernel, so worker threads call them."""

import logging

import pyfuse3

log = logging.getLogger(__name__)

#: A size that exceeds any text.
_FAR = 1 << 40
EXTENDED = _FAR + 1


def extend_file(inode: int) -> None:
    """Makes the kernel's size of a file larger than any text, by a byte in a page that no process reads."""
    try:
        pyfuse3.notify_store(inode, _FAR, b"\0")
    except FileNotFoundError:
        pass  # the kernel does not have this inode
    except OSError as error:
        log.warning("cannot extend inode %#x, the kernel may show too little of its text: %s", inode, error)


def drop_pages(inode: int) -> None:
    """Makes the kernel drop all pages of a file; waits for reads of them."""
    try:
        pyfuse3.invalidate_inode(inode)
    except FileNotFoundError:
        pass  # the kernel does not have this inode
    except OSError as error:
        log.warning("cannot drop the pages of inode %#x, the kernel may show old text: %s", inode, error)

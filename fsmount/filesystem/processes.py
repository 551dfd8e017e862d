"""The process of a calling thread: the kernel names threads, and charges belong to processes."""

import errno
import os


def process_of(thread: int) -> int:
    """The process of a thread; the thread's own number if it is gone or out of sight.

    OSError(ENFILE): the daemon has no descriptor left to look it up.  EMFILE would blame the caller's descriptors.
    """
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            for line in status:
                if line.startswith(b"Tgid:"):
                    return int(line[len(b"Tgid:") :])
    except ValueError:
        pass
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE)) from None
    return thread

"""Which process called: the kernel names the calling thread, and charges belong to its process."""

import errno
import os


def process_of(thread: int) -> int:
    """The process of a thread; the thread's own number if it is gone or out of sight.

    OSError(ENFILE): the daemon has no descriptor left to look.  The caller's own are not the matter, as EMFILE says.
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

"""The lock of a region: flock(LOCK_EX) on its file, held by one daemon at a time.

The kernel releases the lock however the daemon dies.  The owner of the lock may remove the file.  So a process that
gets the lock compares the locked file with the file at the path.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat

from fsmount.admin.user_error import UserError


def lock_region(path: str) -> int:
    """A descriptor that locks the region's file.

    FileNotFoundError; BlockingIOError: another process has the lock.  UserError: other users own it or may write to it.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"the region {path} cannot be opened ({error.strerror}): name another with --region") from None
    try:
        status = os.fstat(lock)
        _check_owner(path, status)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.lstat(path), status):
            raise FileNotFoundError(errno.ENOENT, "removed meanwhile", path)
        if status.st_nlink > 1 and not _has_one_name(path, lock):
            raise UserError(f"the region {path} has other hard links, which other users may open: remove those first")
    except BaseException:
        os.close(lock)
        raise
    return lock


def _check_owner(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a region: name another with --region")
    if status.st_uid != os.geteuid():
        raise UserError(f"the region {path} belongs to user {status.st_uid}: name another with --region")
    if status.st_mode & 0o022:
        raise UserError(f"other users may write to the region {path}: chmod 0600 it if you still trust its content")


def _has_one_name(path: str, lock: int) -> bool:
    """Whether `path` is the only name of the locked file.

    Removes the temporary name that a dead creator left; a live creator would hold the lock.
    """
    for other in glob.glob(f"{glob.escape(path)}.new-*"):
        if os.path.samestat(os.lstat(other), os.fstat(lock)):
            os.unlink(other)
    return os.fstat(lock).st_nlink == 1

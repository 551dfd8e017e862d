"""A file that the user names, in a directory where other users may put something in its place.

The kernel refuses to follow another user's link in a directory that everybody writes to, and to open another user's
pipe or file there for writing: fs.protected_symlinks, fs.protected_fifos and fs.protected_regular of sysctl(8).  These
rules protect a program that leaves the whole path to the kernel.  Replacing a file takes its directory and the name in
it, so the same rules are kept here, whatever the sysctls say.  Root writes through no link of another user at all,
since its owner could lead root to any file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from fsmount.paths.walk import Found, Trap, walked


@contextlib.contextmanager
def named_file(path: str, *, writing: bool) -> Iterator[Found]:
    """Finds a file for the block.  OSError; Trap: another user may have put it, or a link to it, there."""
    rules = _Rules(writing)
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(walked(path, rules.distrusts))
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, f"{error.strerror}: make its directory first") from None
        rules.check(found)
        yield found


def real_directory(path: str) -> str:
    """The real path of a directory that root is about to use.  OSError: it names the path.  Trap: a user's link."""
    try:
        with walked(path, _Rules(writing=True).distrusts) as found:
            status = found.status
            if status is None or not stat.S_ISDIR(status.st_mode):
                code = errno.ENOENT if status is None else errno.ENOTDIR
                raise OSError(code, os.strerror(code))
            return os.readlink(f"/proc/self/fd/{found.file}")
    except Trap:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # names the whole path, not a component


class _Rules:
    """The rules about files and links of other users, for a file that is written or only read."""

    def __init__(self, writing: bool) -> None:
        self._writing = writing
        self._us = os.geteuid()
        # In a user namespace root may do no more than an ordinary user, and all owners outside look alike.
        self._as_root = self._us == 0 == os.stat("/").st_uid

    def distrusts(self, owner: int, directory: int) -> bool:
        return owner != self._us and ((self._writing and self._as_root) or self._is_shared(directory, owner))

    def check(self, found: Found) -> None:
        """OSError: it is no file.  Trap: it is another user's pipe, or another user's file in a shared directory."""
        status = found.status
        if status is None:
            return
        if found.name in (".", ".."):
            code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENOTDIR
            raise OSError(code, os.strerror(code))
        if stat.S_ISLNK(status.st_mode):  # its file system hides where it leads
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not found.by_descriptor and status.st_uid != self._us:
            self._check_owner(status, found.directory)

    def _check_owner(self, status: os.stat_result, directory: int) -> None:
        owner = status.st_uid
        if stat.S_ISFIFO(status.st_mode) and (self._as_root or self._is_shared(directory, owner)):
            raise Trap(errno.EACCES, f"a pipe of user {owner}, who need not use it: name a file of your own")
        if stat.S_ISREG(status.st_mode) and self._writing and self._is_shared(directory, owner):
            raise Trap(
                errno.EACCES, f"a file of user {owner}, in a directory that others write to: name a file of your own"
            )

    @staticmethod
    def _is_shared(directory: int, owner: int) -> bool:
        """Whether others may write to the directory and `owner` is one of them, not the directory's owner."""
        status = os.fstat(directory)
        others = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_ISVTX and status.st_mode & stat.S_IWGRP)
        return bool(others) and owner != status.st_uid

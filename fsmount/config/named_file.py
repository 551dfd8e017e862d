"""A file that the user names, in a directory where other users may put something in its place.

The kernel refuses to follow another user's link in a directory that everybody writes to, and to open another user's
pipe or file there for writing: fs.protected_symlinks, fs.protected_fifos and fs.protected_regular of sysctl(8).  These
rules protect a program that leaves the whole path to the kernel.  Replacing a file takes its directory and the name in
it, so the path is walked here, and the same rules are kept here, whatever the sysctls say:

- one descriptor for each step, and each link is read through the descriptor whose owner was checked;
- root writes through no link of another user at all, since its owner could lead root to any file;
- the links in /proc are the kernel's own: /dev/stdout, or /dev/fd/63 where a shell has made a pipe.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

_LINKS = 40  # as many as the kernel follows
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PROC = "/proc"


class Trap(PermissionError):
    """The path leads through a name that another user controls, and may lead anywhere."""


@dataclass(frozen=True)
class NamedFile:
    """Descriptors that hold what was found; they are good for as long as the block of named_file()."""

    directory: int  # the one that the name is in
    name: str  # its last component, when all links are followed
    file: int  # opened with O_PATH; -1: there is none
    by_descriptor: bool  # a link of /proc leads to it: an open file of a process, which need not have a name

    @property
    def status(self) -> os.stat_result | None:
        """Of what was found."""
        return None if self.file < 0 else os.fstat(self.file)

    def open(self, flags: int) -> int:
        """Opens the very file that was found; the descriptor is the caller's."""
        return os.open(f"{_PROC}/self/fd/{self.file}", flags | os.O_NOCTTY | os.O_CLOEXEC)

    def is_there(self) -> bool:
        """Whether the name still leads to what was found, or to nothing if nothing was found."""
        try:
            status = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return self.file < 0
        return self.file >= 0 and os.path.samestat(status, os.fstat(self.file))


@contextlib.contextmanager
def named_file(path: str, *, writing: bool) -> Iterator[NamedFile]:
    """Finds the file for the block.  OSError; Trap where another user may have laid it."""
    walk = _Walk(writing)
    try:
        yield walk.find(path)
    finally:
        walk.close()


def real_directory(path: str) -> str:
    """Where a path leads that root is about to use.  OSError, which names the path; Trap at another user's link."""
    walk = _Walk(writing=True, directory=True)
    try:
        found = walk.find(path)
        if found.file < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return os.readlink(f"{_PROC}/self/fd/{found.file}")
    except Trap:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # and not one name on the way
    finally:
        walk.close()


class _Walk:
    """From the root or the current directory to the file, one component after the other."""

    def __init__(self, writing: bool, directory: bool = False) -> None:
        self._writing = writing
        self._wants_directory = directory
        self._us = os.geteuid()
        # In a user namespace root may do no more than an ordinary user, and all owners outside look alike.
        self._as_root = self._us == 0 == os.stat("/").st_uid
        self._directory = -1
        self._file = -1
        self._left: list[str] = []

    def close(self) -> None:
        for descriptor in (self._directory, self._file):
            if descriptor >= 0:
                os.close(descriptor)
        self._directory = self._file = -1

    def find(self, path: str) -> NamedFile:
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._follow(path)
        links = 0
        while True:
            name = self._left.pop()
            if not self._left and name in ("", ".", "..") and not self._wants_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            try:
                self._file = os.open(name or ".", _STEP, dir_fd=self._directory)
            except FileNotFoundError:
                if self._left:
                    raise FileNotFoundError(
                        errno.ENOENT, f"{os.strerror(errno.ENOENT)}: make its directory first"
                    ) from None
                return NamedFile(self._directory, name, -1, False)
            if stat.S_ISLNK(os.fstat(self._file).st_mode):
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                self._check_link(name)
                if not self._is_in_proc():
                    self._follow(os.readlink("", dir_fd=self._file))
                    continue
                self._take(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._directory))
                if not self._left:
                    return NamedFile(self._directory, name, self._file, True)
            elif not self._left:
                self._check_file()
                return NamedFile(self._directory, name, self._file, False)
            self._enter()

    def _follow(self, path: str) -> None:
        """Goes on with a path, from where the walk is."""
        if path.startswith("/") or self._directory < 0:
            start = os.open("/" if path.startswith("/") else ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.close()
            self._directory = start
        else:
            self._take(-1)
        self._left += reversed(path.split("/"))

    def _enter(self) -> None:
        if not stat.S_ISDIR(os.fstat(self._file).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        os.close(self._directory)
        self._directory, self._file = self._file, -1

    def _take(self, descriptor: int) -> None:
        os.close(self._file)
        self._file = descriptor

    def _is_in_proc(self) -> bool:
        return os.fstat(self._directory).st_dev == os.stat(_PROC).st_dev

    def _check_link(self, name: str) -> None:
        owner = os.fstat(self._file).st_uid
        if owner != self._us and ((self._writing and self._as_root) or self._is_shared(owner)):
            raise Trap(
                errno.EACCES,
                f"the link {name} belongs to user {owner}, who can lead it anywhere: name what it leads to",
            )

    def _check_file(self) -> None:
        status = os.fstat(self._file)
        owner = status.st_uid
        if owner == self._us:
            return
        if stat.S_ISFIFO(status.st_mode) and (self._as_root or self._is_shared(owner)):
            raise Trap(errno.EACCES, f"a pipe of user {owner}, who need not use it: name a file of your own")
        if stat.S_ISREG(status.st_mode) and self._writing and self._is_shared(owner):
            raise Trap(
                errno.EACCES, f"a file of user {owner}, in a directory that others write to: name a file of your own"
            )

    def _is_shared(self, owner: int) -> bool:
        """Whether others put things into the directory, and one of them, not the directory's owner, owns this."""
        status = os.fstat(self._directory)
        others = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_ISVTX and status.st_mode & stat.S_IWGRP)
        return bool(others) and owner != status.st_uid

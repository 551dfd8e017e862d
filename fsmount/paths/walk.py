"""The walk along a path from the root or the current directory, with a descriptor for each step.

The kernel refuses to follow another user's link in a directory that everybody writes to: fs.protected_symlinks of
sysctl(8).  That protects only programs that leave the whole path to the kernel, and only in such directories.  Here the
caller decides which links are followed:

- each link is read through the descriptor whose owner was checked;
- the links in /proc are the kernel's own: /dev/stdout, or /dev/fd/63 where a shell has made a pipe;
- only links and their directories are asked for their status: the path may lead to a mount without a daemon.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

#: Whether a link must not be followed; the arguments are its owner and a descriptor of its directory.
Distrusts = Callable[[int, int], bool]

_LINKS_MAX = 40  # as many as the kernel follows
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PROC = "/proc"


class Trap(PermissionError):
    """The path leads through a name that another user controls, and may lead anywhere."""


class Found(NamedTuple):
    """Descriptors of the file and its directory; they are open for as long as the block of walked()."""

    directory: int  # the directory that contains the name
    name: str  # the last component of the path, when all links are followed; ".": `directory` itself
    file: int  # the file, opened with O_PATH; -1: it does not exist
    by_descriptor: bool = False  # a link of /proc leads to an open file of a process, which may have no name

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
def walked(path: str, distrusts: Distrusts) -> Iterator[Found]:
    """Finds what is at a path for the block.  OSError; Trap at a link that is distrusted.

    A last component that does not exist is no error: `file` is -1 then.
    """
    walk = _Walk(distrusts)
    try:
        yield walk.find(path)
    finally:
        walk.close()


class _Walk:
    """The walk along one path, component by component."""

    def __init__(self, distrusts: Distrusts) -> None:
        self._distrusts = distrusts
        self._directory = -1
        self._file = -1
        self._left: list[str] = []

    def close(self) -> None:
        for descriptor in (self._directory, self._file):
            if descriptor >= 0:
                os.close(descriptor)
        self._directory = self._file = -1

    def find(self, path: str) -> Found:
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._follow(path)
        links = 0
        while self._left:
            name = self._left.pop()
            if name in ("", "."):
                continue
            try:
                self._file = os.open(name, _STEP, dir_fd=self._directory)
            except FileNotFoundError:
                if self._left:
                    raise
                return Found(self._directory, name, -1)
            target = self._target()
            if target is not None:
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                self._check_link(name)
                if not self._is_in_proc():
                    self._follow(target)
                    continue
                self._take(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._directory))
            if not self._left:
                return Found(self._directory, name, self._file, by_descriptor=target is not None)
            self._enter()
        return Found(self._directory, ".", self._directory)

    def _follow(self, path: str) -> None:
        """Continues with a path from the present directory."""
        if path.startswith("/") or self._directory < 0:
            start = os.open("/" if path.startswith("/") else ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.close()
            self._directory = start
        else:
            self._take(-1)
        self._left += reversed(path.split("/"))

    def _enter(self) -> None:
        os.close(self._directory)
        self._directory, self._file = self._file, -1

    def _take(self, descriptor: int) -> None:
        os.close(self._file)
        self._file = descriptor

    def _target(self) -> str | None:
        """The target of a symbolic link; None: it is no link, and its file system was not asked."""
        try:
            return os.readlink("", dir_fd=self._file)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return None
            raise

    def _is_in_proc(self) -> bool:
        return os.fstat(self._directory).st_dev == os.stat(_PROC).st_dev

    def _check_link(self, name: str) -> None:
        owner = os.fstat(self._file).st_uid
        if self._distrusts(owner, self._directory):
            raise Trap(
                errno.EACCES,
                f"the link {name} belongs to user {owner}, who can lead it anywhere: name what it leads to",
            )

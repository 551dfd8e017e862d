"""The directory of a group, which may be renamed while it is in use."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from fsmount.files.forks import no_fork
from fsmount.files.mount_errors import DESCRIPTORS, public_errors


class _Descriptor:
    """A descriptor of a directory.  The last reference closes it, so a thread that uses it keeps it open."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.path = f"{DESCRIPTORS}{number}"

    def __del__(self) -> None:
        os.close(self.number)


#: The device and the inode of a directory.  No other group of the mount ever has the same inode.
Identity = tuple[int, int]


class GroupDirectory:
    """A group's directory: found by its path or, once pinned, by a descriptor.

    Another group may get the path of a group that was renamed or removed.  So the inode tells whether a directory is
    still that of the group, and finds a renamed group again.
    """

    def __init__(
        self,
        path: str,
        identity: Identity,
        *,
        above: GroupDirectory | None = None,
        below: GroupDirectory | None = None,
    ) -> None:
        self._path = path
        self.identity = identity
        #: The directory of another group, above or below this one, from which it was found.
        self._above = above
        self._below = below
        self._descriptor: _Descriptor | None = None
        #: Whether the attachment to the group was closed.
        self.closed = False

    @property
    def last_path(self) -> str:
        """The path, also after a rename, or the last known path if the group is gone.  Raises nothing."""
        with contextlib.suppress(OSError):
            self._follow()
        return self._path

    def is_at(self, path: str) -> bool:
        """Whether a path leads to the directory."""
        with contextlib.suppress(OSError):
            return self._is_of(os.stat(path))
        return False

    def pin(self) -> None:
        """Opens the directory, and from then on finds it by the descriptor, even after a rename."""
        with no_fork(), public_errors(self._path):
            if self._descriptor is None:
                self._follow()
                found = _Descriptor(os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
                self._refuse_another(os.fstat(found.number))
                self._descriptor = found

    def unpin(self) -> None:
        """Gives up the descriptor, and from then on finds the directory by its path and inode."""
        self._path = self.last_path
        self._descriptor = None

    @contextlib.contextmanager
    def where(self) -> Iterator[str]:
        """A path that leads to the directory during the block, even if another thread unpins it."""
        descriptor = self._descriptor
        try:
            yield self._found() if descriptor is None else descriptor.path
        finally:
            del descriptor  # otherwise the traceback of an error would keep it open

    def refuse_closed(self) -> None:
        """ValueError: the attachment was closed."""
        if self.closed:
            raise ValueError(f"{self.last_path} was closed here: attach to it again to charge it")

    # ---- after a rename

    def _found(self) -> str:
        """The path.  OSError: no path to the directory is known."""
        if not self.is_at(self._path):
            self._follow()
            self._refuse_another(os.stat(self._path))
        return self._path

    def _follow(self) -> None:
        """Finds the path again if it leads elsewhere, and keeps the old one if there is no other."""
        if (descriptor := self._descriptor) is not None:
            path = os.readlink(descriptor.path)
            if path != self._path and self.is_at(path):
                self._path = path
        elif not self.is_at(self._path):
            self._path = next(filter(self.is_at, self._candidates()), self._path)

    def _candidates(self) -> Iterator[str]:
        path = self._path
        if self._below is not None:
            yield os.path.dirname(self._below.last_path)
        if self._above is not None:
            path = os.path.join(self._above.last_path, os.path.basename(path))
            yield path
        with contextlib.suppress(OSError), os.scandir(os.path.dirname(path)) as entries:
            yield from [entry.path for entry in entries if entry.inode() == self.identity[1]]

    def _is_of(self, status: os.stat_result) -> bool:
        # Not the device: the next daemon of a tree gets another one.
        return status.st_ino == self.identity[1]

    def _refuse_another(self, status: os.stat_result) -> None:
        if not self._is_of(status):
            raise OSError(errno.ESTALE, "another group has this path now", self._path)


def identity_of(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino

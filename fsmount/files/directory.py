"""The directory of a group, which may be renamed while it is in use."""

from __future__ import annotations

import contextlib
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


class GroupDirectory:
    """A group's directory: found by its path or, once pinned, by a descriptor."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: _Descriptor | None = None
        #: Whether the attachment to the group was closed.
        self.closed = False

    @property
    def path(self) -> str:
        """The path of the directory; if it is pinned, the path after a rename."""
        if (descriptor := self._descriptor) is not None:
            path = os.readlink(descriptor.path)
            if path != self._path and _leads_to(path, descriptor):
                self._path = path
        return self._path

    @property
    def last_path(self) -> str:
        """The path, or the last known path if it cannot be read.  Raises nothing."""
        with contextlib.suppress(OSError):
            return self.path
        return self._path

    def pin(self) -> None:
        """Opens the directory, and from then on finds it by the descriptor, even after a rename."""
        with no_fork(), public_errors(self._path):
            if self._descriptor is None:
                self._descriptor = _Descriptor(os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def unpin(self) -> None:
        """Gives up the descriptor, and from then on finds the directory by its path."""
        self._path = self.path
        self._descriptor = None

    @contextlib.contextmanager
    def where(self) -> Iterator[str]:
        """A path that leads to the directory during the block, even if another thread unpins it."""
        descriptor = self._descriptor
        try:
            yield self._path if descriptor is None else descriptor.path
        finally:
            del descriptor  # otherwise the traceback of an error would keep it open

    def refuse_closed(self) -> None:
        """ValueError: the attachment was closed."""
        if self.closed:
            raise ValueError(f"{self.path} was closed here: attach to it again to charge it")


def _leads_to(path: str, descriptor: _Descriptor) -> bool:
    """Whether a path from the kernel still leads to the directory: the group and its mount may be gone."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor.number))
    return False

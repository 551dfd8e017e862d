"""The daemon's own mount: put on one directory, and taken away whatever is at its path by then.

Root mounts through the descriptor that was checked, so nobody can put anything else in its place meanwhile.  libfuse
cannot unmount that by its name, and does not compare what it unmounts; so root does both itself.  For other users
fusermount3 mounts and unmounts, with checks of its own.
"""

from __future__ import annotations

import contextlib
import os
from io import FileIO

from fsmount.admin.mount_table import Mount, mount_at, parse, served_devices
from fsmount.admin.named_path import OpenPath
from fsmount.admin.remove_mount import detach
from fsmount.filesystem import Operations, pyfuse3


class OwnMount:
    """All methods are for the event loop's thread."""

    def __init__(self) -> None:
        self._mount: Mount | None = None
        self._is_mounted = False
        # The end needs these, however many descriptors there are by then.
        self._table: FileIO | None = None
        self._spare: FileIO | None = None

    def begin(self, operations: Operations, place: OpenPath, options: set[str]) -> None:
        """Mounts on the place.  RuntimeError: FUSE cannot."""
        self._table = FileIO("/proc/self/mountinfo")
        self._spare = FileIO(os.devnull)
        # auto_unmount is done by fusermount3, which outlives this process and its descriptors
        by_descriptor = os.geteuid() == 0 and "auto_unmount" not in options
        target = f"/proc/self/fd/{place.descriptor}" if by_descriptor else place.path
        pyfuse3.init(operations, target, options)
        self._is_mounted = True
        self._mount = self._find(os.readlink(f"/proc/self/fd/{place.descriptor}"))

    def end(self) -> None:
        """Unmounts, if it still is mounted, and ends what FUSE has here."""
        if not self._is_mounted:
            return
        self._is_mounted = False
        mounts = self._mounts()
        for file in (self._table, self._spare):
            if file is not None:
                file.close()
        mount = next((mount for mount in mounts if self._is_own(mount)), None)
        if mount is not None and os.geteuid() == 0:
            with contextlib.suppress(OSError):  # somebody else was faster
                detach(mount)
            mount = None
        pyfuse3.close(unmount=mount is not None and mount_at(mount.path, mounts) == mount)

    def _mounts(self) -> list[Mount]:
        """As they are now, without a new descriptor."""
        assert self._table is not None
        self._table.seek(0)
        return parse(self._table.readall())

    def _find(self, path: str) -> Mount | None:
        """The mount that was made at this path; where the kernel tells what is ours, not one put over it since."""
        mounts = [mount for mount in self._mounts() if mount.is_fsmount and mount.uid == os.geteuid()]
        devices = None
        with contextlib.suppress(OSError):  # there is no descriptor to look with
            devices = served_devices()
        if devices:
            return next((mount for mount in mounts if mount.device in devices), None)
        found = mount_at(path, self._mounts())
        return found if found in mounts else None

    def _is_own(self, mount: Mount) -> bool:
        """Whatever its path is by now."""
        own = self._mount
        return own is not None and (mount.id, mount.device) == (own.id, own.device)

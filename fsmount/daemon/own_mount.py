"""The daemon's own mount: made on an open directory, and unmounted even if its path leads elsewhere by then.

Root mounts through the descriptor of the checked directory, so no other user can replace the directory meanwhile.
libfuse cannot unmount such a mount by path, and does not compare the mount that it unmounts; so root unmounts through a
descriptor too.  For other users fusermount3 mounts and unmounts, with its own checks.
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
    """The daemon's mount, from its beginning to its end.  For the event loop's thread."""

    def __init__(self) -> None:
        self._mount: Mount | None = None
        self._is_mounted = False
        # end() needs a mount table and a descriptor, even when all other descriptors are in use.
        self._table: FileIO | None = None
        self._spare: FileIO | None = None

    def begin(self, operations: Operations, mount_point: OpenPath, options: set[str]) -> None:
        """Mounts on the open directory.  RuntimeError: FUSE cannot."""
        self._table = FileIO("/proc/self/mountinfo")
        self._spare = FileIO(os.devnull)
        # auto_unmount takes fusermount3, which outlives this process and its descriptors
        by_descriptor = os.geteuid() == 0 and "auto_unmount" not in options
        target = f"/proc/self/fd/{mount_point.descriptor}" if by_descriptor else mount_point.path
        pyfuse3.init(operations, target, options)
        self._is_mounted = True
        self._mount = self._find(os.readlink(f"/proc/self/fd/{mount_point.descriptor}"))

    def end(self) -> None:
        """Unmounts, if it is still mounted, and closes FUSE."""
        if not self._is_mounted:
            return
        self._is_mounted = False
        mounts = self._mounts()
        for file in (self._table, self._spare):
            if file is not None:
                file.close()
        mount = next((mount for mount in mounts if self._is_own(mount)), None)
        if mount is not None and os.geteuid() == 0:
            with contextlib.suppress(OSError):  # another process was faster
                detach(mount)
            mount = None
        pyfuse3.close(unmount=mount is not None and mount_at(mount.path, mounts) == mount)

    def _mounts(self) -> list[Mount]:
        """The current mounts, read without a new descriptor."""
        assert self._table is not None
        self._table.seek(0)
        return parse(self._table.readall())

    def _find(self, path: str) -> Mount | None:
        """The mount that was made at this path.

        A kernel that shows the devices of this process excludes a mount that another process put over it since.
        """
        mounts = [mount for mount in self._mounts() if mount.is_fsmount and mount.uid == os.geteuid()]
        devices = None
        with contextlib.suppress(OSError):  # no descriptor is left
            devices = served_devices()
        if devices:
            return next((mount for mount in mounts if mount.device in devices), None)
        found = mount_at(path, self._mounts())
        return found if found in mounts else None

    def _is_own(self, mount: Mount) -> bool:
        """Whether it is the daemon's own mount, at any path."""
        own = self._mount
        return own is not None and (mount.id, mount.device) == (own.id, own.device)

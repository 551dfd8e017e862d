"""The control file `.fsmount`: how processes that share the region speak with the daemon.

Every directory has one, and no directory lists it.  Reading it tells which region and which group this is.  A write
is one of

    holder ID       the holder of the process that opened the file; it ends when the file is released
    changed ID      somebody has made, renamed or removed children of this group in the region
    umount [keep]   the mount is to end, with `keep` although holders live
"""

import errno
import json
import os
from collections.abc import Callable
from typing import ClassVar

from pyfuse3 import FUSEError, RequestContext

from fsmount.control_files.control_file import OpenFile
from fsmount.filesystem import inodes
from fsmount.filesystem.guard import in_loop, leave_loop
from fsmount.filesystem.host import Host
from fsmount.filesystem.kernel_cache.file_sizes import MEDIUM
from fsmount.filesystem.processes import process_of
from fsmount.protocol.control_channel import VERSION
from fsmount.quantities import strip
from fsmount.shm import PROCESS, Group


class ControlHandle(OpenFile):
    """An open control file, of the user and the process that opened it."""

    __slots__ = ("_changed", "_holder", "_host", "_pid", "_uid")

    timed: ClassVar[bool] = False

    def __init__(
        self,
        group: Group,
        inode: int,
        flags: int,
        ctx: RequestContext,
        host: Host,
        changed: Callable[[int], None],
    ) -> None:
        super().__init__(group, inode, flags)
        self._pid = process_of(ctx.pid)
        self._uid = ctx.uid
        self._host = host
        self._changed = changed
        self._holder: int | None = None

    @classmethod
    def size(cls, group: Group) -> int:
        return MEDIUM

    def text(self) -> bytes:
        if not self.group.exists:
            raise FUSEError(errno.ENODEV)
        tree = self.group.tree
        about = {
            "region": tree.path,
            "tree": f"{tree.id:x}",
            "group": self.group.id,
            "server": os.getpid(),
            "version": VERSION,
        }
        return json.dumps(about).encode() + b"\n"

    def command(self, text: bytes) -> None:
        match strip(text).split():
            case [b"holder", number]:
                self._bind(_id(number))
            case [b"changed", number]:
                group = _id(number)
                if group >= inodes.IDS:
                    raise FUSEError(errno.ENODEV)
                leave_loop()
                self._changed(group)
            case [b"umount"]:
                self._unmount(keep=False)
            case [b"umount", b"keep"]:
                self._unmount(keep=True)
            case _:
                raise OSError(errno.EINVAL, "this is no command of a control file")

    def release(self) -> None:
        if self._holder is not None:
            in_loop(self._host.holder_released, self._holder)

    def _bind(self, number: int) -> None:
        if self._holder is not None:
            raise FUSEError(errno.EBUSY)
        holder = self.group.tree.holder(number)
        if holder is None:
            raise FUSEError(errno.ENODEV)
        if holder.kind != PROCESS or holder.pid != self._pid:
            raise FUSEError(errno.EPERM)
        in_loop(self._host.holder_bound, number, self._pid)
        self._holder = number

    def _unmount(self, keep: bool) -> None:
        if self._uid not in (0, os.getuid()):
            raise FUSEError(errno.EPERM)
        in_loop(self._host.unmount_asked, keep)


def _id(number: bytes) -> int:
    """The 64-bit number of a holder or group."""
    if not number.isdigit() or len(number) > 20 or int(number) >= 1 << 64:
        raise OSError(errno.EINVAL, "this is no number of a holder or group")
    return int(number)

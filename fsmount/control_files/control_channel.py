"""The hidden file .fsmount: processes that share the region talk to the daemon (protocol/control_channel.py).

Every directory has it.  A read shows the region and the group.  A write is one of

    holder ID       the holder of the process that opened the file ends with the open file
    changed ID      children of this group were made, renamed or removed in the region
    umount [keep]   the mount ends; with `keep`, live holders do not prevent it
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from fsmount.control_files.control_file import MEDIUM, ControlFile
from fsmount.protocol.control_channel import VERSION
from fsmount.protocol.file_names import CHANNEL_FILE
from fsmount.quantities import strip

if TYPE_CHECKING:
    from fsmount.control_files.mount import Opening
    from fsmount.interface.region import RegionGroup

#: The end of the ids of groups: 28 bits of generation and 32 of index.
_GROUP_IDS = 1 << 60


class ChannelFile(ControlFile):
    """An open channel of one process."""

    number = 16
    name = CHANNEL_FILE[1:]
    scope = "group"
    mode = 0o600
    hidden = True
    timed = False
    manual = """\
In every group, but not listed: the channel by which processes that attached in memory, and fsmount umount, talk to the
daemon. Programs do not use it."""

    __slots__ = ("_holder", "_pid")

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._pid = opening.mount.process_of(opening.thread)
        self._holder: int | None = None

    @classmethod
    def size(cls, group: RegionGroup) -> int:
        return MEDIUM

    def text(self) -> bytes:
        import json

        self.check_group()
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
                if group >= _GROUP_IDS:
                    raise OSError(errno.ENODEV, "no group has this number")
                self.opening.mount.children_changed(group)
            case [b"umount"]:
                self._unmount(keep=False)
            case [b"umount", b"keep"]:
                self._unmount(keep=True)
            case _:
                raise OSError(errno.EINVAL, "the channel has no such command")

    def release(self) -> None:
        if self._holder is not None:
            self.opening.mount.release_holder(self._holder)

    def _bind(self, number: int) -> None:
        if self._holder is not None:
            raise OSError(errno.EBUSY, "this open file has a holder")
        holder = self.group.tree.holder(number)
        if holder is None:
            raise OSError(errno.ENODEV, "no holder has this number")
        if not holder.is_process or holder.pid != self._pid:
            raise OSError(errno.EPERM, "the holder belongs to another process")
        self.opening.mount.bind_holder(number, self._pid)
        self._holder = number

    def _unmount(self, keep: bool) -> None:
        if self.user not in (0, os.getuid()):
            raise OSError(errno.EPERM, "only root and the owner of the mount end it")
        self.opening.mount.unmount(keep)


def _id(number: bytes) -> int:
    """The 64-bit number of a holder or group."""
    if not number.isdigit() or len(number) > 20 or int(number) >= 1 << 64:
        raise OSError(errno.EINVAL, "a holder or group has a number below 2^64")
    return int(number)

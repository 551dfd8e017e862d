"""A mount that looks like one of fsmount's, with a file `metrics` that no fsmount would have.

usage: MOUNTPOINT BEHAVIOUR, where a behaviour is the name of an errno, or one of _BEHAVIOURS.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

_FILE = 2
_TEXT = {"endless": b"# TYPE fsmount_usage gauge\n" * 4096, "nonsense": b"\xff\x00 no metrics\n"}


class OddMount(pyfuse3.Operations):
    def __init__(self, behaviour: str) -> None:
        super().__init__()
        self._behaviour = behaviour

    async def getattr(self, inode: int, ctx: object = None) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = stat.S_IFREG | 0o444 if inode == _FILE else stat.S_IFDIR | 0o755
        entry.st_uid = os.geteuid()
        return entry

    async def lookup(self, parent: int, name: bytes, ctx: object = None) -> pyfuse3.EntryAttributes:
        if name != b"metrics":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(_FILE)

    async def open(self, inode: int, flags: int, ctx: object = None) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(1), direct_io=True)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        if self._behaviour == "hang":
            await trio.sleep_forever()
        if text := _TEXT.get(self._behaviour):
            return text[:size] if self._behaviour == "endless" or not offset else b""
        raise pyfuse3.FUSEError(getattr(errno, self._behaviour))


def main(mountpoint: str, behaviour: str) -> None:
    pyfuse3.init(OddMount(behaviour), mountpoint, {"fsname=odd", "subtype=fsmount"})
    print("mounted", flush=True)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main(*sys.argv[1:])

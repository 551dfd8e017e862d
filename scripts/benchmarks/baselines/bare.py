"""A bare file system as a baseline: pyfuse3 with one constant file in every directory.

usage: python -m benchmarks.baselines.bare MOUNTPOINT

It keeps its directories in a dict, with the caching and the mount options of fsmount. It ignores writes.
SIGTERM unmounts.
"""

import errno
import os
import signal
import stat
import sys

import pyfuse3
import trio

FILE = b"value"
TEXT = b"9223372036854775807\n"
ROOT = int(pyfuse3.ROOT_INODE)

# A directory's inode is odd, like the root's; its file has the next number.
STEP = 2

# As in fsmount, the kernel caches everything for ever.
FOREVER = 100 * 365 * 86400.0
OPTIONS = {*pyfuse3.default_options, "default_permissions", "fsname=bare", "subtype=bare"}


class Bare(pyfuse3.Operations):
    def __init__(self) -> None:
        super().__init__()
        self._children: dict[int, dict[bytes, int]] = {ROOT: {}}
        self._next = ROOT + STEP
        self._made = 0

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.generation = 0
        entry.attr_timeout = entry.entry_timeout = FOREVER
        if inode % STEP:
            entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755)
            entry.st_nlink = 2 + len(self._children[inode])
        else:
            entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o644)
            entry.st_nlink = 1
        entry.st_uid = os.getuid()
        entry.st_gid = os.getgid()
        entry.st_size = 0
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._made
        return entry

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name == FILE:
            return self._attributes(parent_inode + 1)
        inode = self._children[parent_inode].get(name)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(inode)

    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(inode)

    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(inode)

    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return TEXT[off : off + size]

    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        return len(buf)

    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        pass

    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        siblings = self._children[parent_inode]
        if name == FILE or name in siblings:
            raise pyfuse3.FUSEError(errno.EEXIST)
        inode = siblings[name] = self._next
        self._next += STEP
        self._children[inode] = {}
        return self._attributes(inode)

    async def rmdir(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        inode = self._children[parent_inode].pop(name, None)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        del self._children[inode]


async def serve() -> None:
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

            async def stop() -> None:
                async for _ in signals:
                    pyfuse3.terminate()
                    return

            nursery.start_soon(stop)
            await pyfuse3.main()
            nursery.cancel_scope.cancel()


def main() -> None:
    pyfuse3.init(Bare(), sys.argv[1], OPTIONS)
    try:
        trio.run(serve)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()

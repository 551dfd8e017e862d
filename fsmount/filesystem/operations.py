"""The handlers: each translates a request of the kernel into a few calls.

Some requests have no handler on purpose.  flush, fsync, fsyncdir and the extended attributes answer ENOSYS: the kernel
then succeeds (or answers EOPNOTSUPP, for the attributes) and never asks again.  The kernel itself decides about access,
with default_permissions.

guard.py says how handlers are guarded, and why one may run twice; kernel_cache/ says why the kernel may cache every
answer forever.
"""

import errno
import itertools
import logging
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from time import time_ns

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, PollHandle, ReaddirToken, RequestContext, SetattrFields

from fsmount.control_files.control_file import ControlFile
from fsmount.control_files.long_file import MakeText
from fsmount.errors import GroupRemoved, LockTimeout
from fsmount.filesystem import guard, inodes
from fsmount.filesystem.attributes import InodeAttributes
from fsmount.filesystem.directory import Directory
from fsmount.filesystem.guard import by_handle, by_inode
from fsmount.filesystem.host import Host
from fsmount.filesystem.kernel_cache._page_reads import is_marking
from fsmount.filesystem.kernel_cache.attributes import entry
from fsmount.filesystem.kernel_cache.file_sizes import SETTLED, FileSizes
from fsmount.filesystem.kernel_cache.names import KnownNames
from fsmount.filesystem.lookup import Lookup
from fsmount.filesystem.open_files import OpenFiles
from fsmount.filesystem.polled_files import PolledFiles
from fsmount.filesystem.removed_groups import RemovedGroups
from fsmount.filesystem.served_mount import ServedMount
from fsmount.filesystem.shares import Shares
from fsmount.filesystem.texts.long_texts import LongTexts
from fsmount.protocol.names import NAME_MAX
from fsmount.shm import Attributes, Holder, Tree, set_patience

log = logging.getLogger(__name__)


class Operations(pyfuse3.Operations):
    """The file system of one tree, for pyfuse3.init().

    The options of the mount must contain default_permissions.
    """

    def __init__(self, tree: Tree, host: Host, leases: Iterable[Holder] = ()) -> None:
        """leases: the open leases of an earlier daemon that has died."""
        self._tree = tree
        self._shares = Shares(tree, leases)
        self._lookup = Lookup(tree)
        self._find = self._lookup.find
        self._slots_in = self._lookup.slots_in
        self._sizes = FileSizes()
        self._names = KnownNames(tree)
        self._removed = RemovedGroups(self._lookup, self._shares)
        self._attributes = InodeAttributes(self._lookup, self._shares, self._sizes, self._removed)
        self._write_times = self._attributes.write_times
        self._texts = LongTexts()
        self._polled = PolledFiles(tree)
        self._files = OpenFiles(self._lookup, self._shares, self._sizes, self._texts, self._polled)
        self._directories: dict[int, Directory] = {}
        self._handles = itertools.count(1)
        self._mount = ServedMount(self._lookup, self._shares, host, self._files, self._children_changed)

    def init(self) -> None:
        set_patience(guard.PATIENCE)
        sys.setswitchinterval(guard.SWITCH_INTERVAL)
        self._names.serving = True
        self._attributes.page_reads_are_marked = is_marking()
        if not self._attributes.page_reads_are_marked:
            log.warning("cannot mark reads for the page cache: each open() asks for the attributes, and takes longer")

    def close(self) -> None:
        """Ends the leases that are still open, after the last request and before pyfuse3.close().  Never raises."""
        self._names.serving = False
        self._files.abandon()
        self._write_times.store()

    async def run(self) -> None:
        """Does the work that requests wait for, until it is cancelled: events, long texts and sizes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._polled.run)
            nursery.start_soon(self._texts.run)
            nursery.start_soon(self._sizes.run)

    def _children_changed(self, group: int) -> None:
        """Handles a report that a process has changed the children of this group in the region.  May wait."""
        self._shares.owners_changed()
        guard.in_loop(self._polled.wake, self._names.correct(group))

    # ---- names and attributes ----

    @by_inode
    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        parent, _ = self._find(parent_inode)
        slot = self._slots_in(parent_inode).get(name)
        if slot is not None:
            return self._attributes.of(inodes.number(parent.id, slot), ctx.pid)
        if name == b".":
            return self._attributes.of(parent_inode)
        if name == b"..":
            return self._attributes.of(inodes.number((parent.parent or parent).id, inodes.DIRECTORY))
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        child = parent.find(name)
        if child is None:
            raise FUSEError(errno.ENOENT)
        attributes = self._attributes.of(inodes.number(child.id, inodes.DIRECTORY))
        self._names.add(parent.id, name, child.id)
        return attributes

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        if self._sizes.is_noting_end(inode):
            await trio.sleep(SETTLED)
        return await self._getattr(inode, ctx)

    @by_inode
    def _getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        try:
            return self._attributes.of(inode, ctx.pid)
        except GroupRemoved:
            removed = self._attributes.of_removed(inode)
            if removed is None:
                raise
            return removed

    @by_inode
    def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        self._attributes.change(inode, attr, fields)
        return self._attributes.of(inode)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._removed.forget(inode for inode, _ in inode_list)

    @by_inode
    def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        result = pyfuse3.StatvfsData()
        result.f_bsize = result.f_frsize = os.sysconf("SC_PAGESIZE")
        result.f_namemax = NAME_MAX
        return result

    # ---- changes of names ----

    @by_inode
    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        if name in self._slots_in(parent_inode):
            raise FUSEError(errno.EEXIST)
        if b"\n" in name:  # the only bad name that the kernel lets through
            raise FUSEError(errno.EINVAL)
        parent, _ = self._find(parent_inode)
        mode, gid = parent.inherited(stat.S_IMODE(mode), ctx.gid)
        account = self._shares.account(parent, ctx.uid)
        account.take(groups=1)
        try:
            group = parent.mkdir_for(name, mode, ctx.uid, gid)
        except BaseException:
            account.give_back(groups=1)
            raise
        self._names.add(parent.id, name, group.id)
        self._names.invalidate(parent.id)
        # nothing may fail from here on, so the attributes are not read: the kernel asks for them later (timeout 0)
        made = Attributes(mode, ctx.uid, gid, 0, 0, 0)
        return entry(inodes.number(group.id, inodes.DIRECTORY), stat.S_IFDIR | mode, 2, made, timeout=0)

    @by_inode
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        if name in self._slots_in(parent_inode):
            raise FUSEError(errno.ENOTDIR)
        parent, _ = self._find(parent_inode)
        group = parent.child(name)
        attributes = self._removed.attributes_of(group)
        account = self._shares.account(group, attributes.directory.uid)
        group.remove()
        account.give_back(groups=1)
        self._removed.remember(group.id, attributes, ctx.uid)
        self._names.drop(parent.id, name, group.id)
        self._names.forget(group.id)
        self._names.invalidate(parent.id)
        self._polled.wake([group.id])

    @by_inode
    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FUSEError(errno.EINVAL)
        if name_old in self._slots_in(parent_inode_old):
            raise FUSEError(errno.ENOTDIR)
        if parent_inode_old != parent_inode_new:
            raise FUSEError(errno.EPERM)
        if name_new in self._slots_in(parent_inode_new):
            raise FUSEError(errno.ENOTDIR)
        parent, _ = self._find(parent_inode_old)
        group = parent.child(name_old)
        parent.rename(name_old, name_new)
        self._names.drop(parent.id, name_old, group.id)
        self._names.add(parent.id, name_new, group.id)
        self._names.invalidate(parent.id)
        self._names.invalidate(group.id)

    @by_inode
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        raise FUSEError(errno.EPERM)

    @by_inode
    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        raise FUSEError(errno.EPERM)

    @by_inode
    def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        raise FUSEError(errno.EPERM)

    @by_inode
    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        raise FUSEError(errno.EPERM)

    @by_inode
    def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        raise FUSEError(errno.EPERM)

    # ---- open directories ----

    @by_inode
    def opendir(self, inode: int, ctx: RequestContext) -> int:
        group, _ = self._find(inode)
        if group.id not in self._removed and not group.exists:
            raise FUSEError(errno.ESTALE)
        self._shares.open_file(ctx.uid)
        handle = next(self._handles)
        self._directories[handle] = Directory(group, ctx.uid, self._lookup.listed_in(group))
        return handle

    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        directory = self._directories[fh]
        if start_id == 0:  # also after rewinddir()
            await directory.start(self._texts)
        await self._reply_entries(directory, start_id, token)

    @by_handle
    def _reply_entries(self, directory: Directory, start: int, token: ReaddirToken) -> None:
        for place, inode, known in directory.entries(start):
            try:
                name = known or os.fsencode(self._tree.group(inodes.group_of(inode)).name)
                attributes = self._attributes.of(inode)
            except LockTimeout:
                if place == start:
                    raise
                return  # a second run would repeat the entries that are already in the reply
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                continue
            if not pyfuse3.readdir_reply(token, name, attributes, place + 1):
                return
            if known is None:
                self._names.add(directory.group.id, name, inodes.group_of(inode))

    @by_handle
    def releasedir(self, fh: int) -> None:
        directory = self._directories.pop(fh)
        self._shares.close_file(directory.user)
        self._texts.drop(directory)

    # ---- open files ----

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        handle = next(self._handles)
        opened = await self._open(handle, inode, flags, ctx)
        await self._files.opened(handle, opened)
        return FileInfo(fh=handle, direct_io=True, keep_cache=False)

    @by_inode
    def _open(self, handle: int, inode: int, flags: int, ctx: RequestContext) -> ControlFile:
        return self._files.open(handle, inode, flags, ctx, self._mount)

    # read() and write() have guards of their own, since they must be quick

    async def read(self, fh: int, off: int, size: int) -> bytes:
        try:
            opened = self._files[fh]
            if off < 0:  # the mark of _page_reads.c
                return await self._files.read_page(fh, ~off, size)
            return opened.read(off, size)
        except MakeText:
            return await self._files.read_long(fh, off, size)
        except Exception as error:
            return await guard.recover(error, errno.ENODEV, lambda: self._files[fh].read(off, size))

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        try:
            opened = self._files[fh]
            length = opened.write(buf)
        except Exception as error:
            length = await guard.recover(error, errno.ENODEV, lambda: opened.write(buf))
        if self._sizes.has_short_pages:
            await self._sizes.drop_short_pages()
        self._sizes.news.sent(opened.inode, opened.thread)
        if length and opened.timed:
            self._write_times.note(opened.inode, time_ns())
        return length

    @by_handle
    def release(self, fh: int) -> None:
        self._files.close(fh)

    @by_handle
    def poll(self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: RequestContext) -> int:
        return self._files.poll(fh, poll_handle)

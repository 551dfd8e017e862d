"""The handlers: each says in a few lines what a request of the kernel means for the tree.

What is not here is on purpose.  flush, fsync, fsyncdir and the extended attributes answer ENOSYS, which has the kernel
succeed (or, for the attributes, answer EOPNOTSUPP) and not ask again; access is decided by the kernel
(default_permissions).

How handlers are guarded, and why they may be begun again, is told in guard.py; why everything may be cached for ever,
in entries.py.
"""

import errno
import functools
import itertools
import logging
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import monotonic, time_ns

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, PollHandle, ReaddirToken, RequestContext, SetattrFields

from fsmount.control_files import table
from fsmount.control_files.control_file import ControlFile
from fsmount.control_files.long_file import LongFile, MakeText
from fsmount.control_files.mount import Opening
from fsmount.control_files.table import Place
from fsmount.control_files.text import Text
from fsmount.errors import GroupRemoved, LockTimeout
from fsmount.filesystem import guard, inodes
from fsmount.filesystem.directory import Directory
from fsmount.filesystem.guard import by_handle, by_inode
from fsmount.filesystem.host import Host
from fsmount.filesystem.kernel_cache._page_reads import is_marking
from fsmount.filesystem.kernel_cache.file_sizes import PAGE, SETTLED, FileSizes
from fsmount.filesystem.kernel_cache.names_and_attributes import (
    KnownNames,
    entry,
    invalidate_attributes,
    invalidate_name,
)
from fsmount.filesystem.polled_files import PolledFiles
from fsmount.filesystem.served_mount import ServedMount
from fsmount.filesystem.shares import Shares
from fsmount.filesystem.texts import freed_memory
from fsmount.filesystem.texts.kept_texts import KeptTexts
from fsmount.filesystem.texts.text_makers import TextMakers
from fsmount.filesystem.write_times import WriteTimes
from fsmount.shm import (
    MODE_UNSET,
    NAME_MAX,
    ROOT,
    SET_ATIME,
    SET_GID,
    SET_MODE,
    SET_MTIME,
    SET_UID,
    Attributes,
    Group,
    Holder,
    Tree,
    set_patience,
)

log = logging.getLogger(__name__)

_TIME_MIN, _TIME_MAX = -(2**63), 2**63 - 1

#: How many times of writes are stored at a time.
_STORED_AT_ONCE = 16

#: How many inodes' groups are at hand.
_CACHED = 8192

_ONE_REMOVED = {"removed_groups": 1}


class _File:
    """A control file in every group."""

    __slots__ = ("kind", "owned", "resource", "slot")

    def __init__(self, place: Place, resource: str) -> None:
        self.kind = place.kind
        self.owned = place.kind.is_owned()
        self.slot = place.slot  # of the engine's attributes
        #: Empty for a file of the group.
        self.resource = resource if place.kind.scope == "resource" else ""


class Operations(pyfuse3.Operations):
    """The file system of one tree, for pyfuse3.init().

    The options of the mount must contain default_permissions.
    """

    def __init__(self, tree: Tree, host: Host, leases: Iterable[Holder] = ()) -> None:
        """leases: those that were open when the daemon before died."""
        self._tree = tree
        self._shares = Shares(tree, leases)
        self._open: dict[int, ControlFile] = {}
        self._mount = ServedMount(self._shares, host, self._open, self._children_changed)
        resources = list(tree.resources)
        names = {os.fsencode(name): place for name, place in table.files(tree.resources).items()}
        self._files = {inodes.file_slot(place): _File(place, resources[place.resource]) for place in names.values()}
        self._slots_in_root = {name: inodes.file_slot(place) for name, place in names.items()}
        self._slots = {name: self._slots_in_root[name] for name, at in names.items() if at.kind.scope != "root"}
        self._listed_in_root = [
            (name, slot) for name, slot in self._slots_in_root.items() if not names[name].kind.hidden
        ]
        self._listed = [(name, slot) for name, slot in self._listed_in_root if name in self._slots]
        self._find = functools.lru_cache(_CACHED)(self._look_at)
        self._handles = itertools.count(1)
        self._directories: dict[int, Directory] = {}
        self._polled = PolledFiles(tree)
        self._known = KnownNames()
        self._written = WriteTimes(self._store_time)
        self._sizes = FileSizes()
        self._marks = True  # page reads carry a mark
        self._caller = 0  # the thread that asks for attributes; 0: not known
        self._makers = TextMakers()
        self._kept = KeptTexts()
        # of groups that somebody may still have open: the directory's, of files that are another's, and who removed it
        self._removed: dict[int, tuple[Attributes, dict[int, Attributes], int]] = {}
        self._serving = False

    def init(self) -> None:
        set_patience(guard.PATIENCE)
        sys.setswitchinterval(guard.SWITCH_INTERVAL)
        self._serving = True
        self._marks = is_marking()
        if not self._marks:
            log.warning("reads for the page cache are not told from others: each open() asks for the attributes")

    def close(self) -> None:
        """After the last request, and before pyfuse3.close(): ends the leases that are still open.  Never raises."""
        self._serving = False
        while self._open:
            _, opened = self._open.popitem()
            try:
                opened.abandon()
            except OSError as error:
                log.warning("a lease is left to the next mount of this region: %s", error)
        self._written.store()

    def _look_at(self, inode: int) -> tuple[Group, _File | None]:
        """The group an inode belongs to, and which of its files it is; None: the directory."""
        return self._tree.group(inodes.group_of(inode)), self._files.get(inodes.slot_of(inode))

    def _slots_in(self, inode: int) -> dict[bytes, int]:
        """The control files of a directory, and their slots."""
        return self._slots_in_root if inodes.group_of(inode) == ROOT else self._slots

    def _store_time(self, inode: int, written: int) -> None:
        group, file = self._find(inode)
        assert file is not None
        group.set_attributes(file.slot, SET_MTIME, mtime=written, now=written)

    # ---- names and attributes ----

    @by_inode
    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        parent, _ = self._find(parent_inode)
        found = self._slots_in(parent_inode).get(name)
        if found is not None:
            self._caller = ctx.pid
            return self._entry(inodes.number(parent.id, found))
        if name == b".":
            return self._entry(parent_inode)
        if name == b"..":
            return self._entry(inodes.number((parent.parent or parent).id, inodes.DIRECTORY))
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        child = parent.find(name)
        if child is None:
            raise FUSEError(errno.ENOENT)
        attributes = self._entry(inodes.number(child.id, inodes.DIRECTORY))
        self._known.add(parent.id, name, child.id)
        return attributes

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        if self._sizes.is_noting_end(inode):
            await trio.sleep(SETTLED)
        return await self._attributes(inode, ctx)

    @by_inode
    def _attributes(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        self._caller = ctx.pid
        try:
            return self._entry(inode)
        except GroupRemoved:
            # somebody has it open, or is in it
            group, file = self._find(inode)
            removed = self._removed.get(group.id)
            if removed is None:
                raise
            attributes, others, _ = removed
            attributes = others.get(inodes.slot_of(inode), attributes)
            if inodes.slot_of(inode) == inodes.DIRECTORY:
                return entry(inode, stat.S_IFDIR | attributes.mode, 0, attributes)
            return entry(inode, stat.S_IFREG | (file.kind.mode if file else 0o600), 0, attributes)

    @by_inode
    def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        mask = (fields.update_mode and SET_MODE) | (fields.update_uid and SET_UID) | (fields.update_gid and SET_GID)
        if inodes.group_of(inode) in self._removed:
            raise FUSEError(errno.ENODEV)  # somebody has it open: its path leads nobody here any more
        group, file = self._find(inode)
        owned = file is None or file.owned
        if mask and not owned:
            raise FUSEError(errno.EPERM)
        if not fields.update_size:  # a truncated file is not a written one: its time stays
            mask |= (fields.update_mtime and SET_MTIME) | (fields.update_atime and SET_ATIME)
        if mask and owned:
            mtime = attr.st_mtime_ns
            written = self._written.get(inode)
            if written is not None and not mask & SET_MTIME:
                mask |= SET_MTIME
                mtime = written
            group.set_attributes(
                file.slot if file else 0,
                mask,
                mode=stat.S_IMODE(attr.st_mode),
                uid=attr.st_uid,
                gid=attr.st_gid,
                atime=min(max(attr.st_atime_ns, _TIME_MIN), _TIME_MAX),
                mtime=min(max(mtime, _TIME_MIN), _TIME_MAX),
            )
            self._written.pop(inode, None)
            if file is None and mask & SET_UID:
                self._shares.owners_changed()
        self._caller = 0
        return self._entry(inode)

    def _entry(self, inode: int) -> EntryAttributes:
        group, file = self._find(inode)
        if file is None:
            attributes = group.attributes(0)
            return entry(inode, stat.S_IFDIR | attributes.mode, 2 + group.child_count, attributes)
        if file.owned:
            written = self._written.get(inode)
            attributes = group.attributes(file.slot)
            if written is not None:
                attributes = attributes._replace(mtime=written, ctime=written)
            mode = file.kind.mode if attributes.mode == MODE_UNSET else attributes.mode
            return self._with_size(entry(inode, stat.S_IFREG | mode, 1, attributes), file.kind, group)
        attributes = group.attributes(0)
        # the kernel does not know that they change with their directory
        mode = file.kind.mode_in(attributes.mode)
        return self._with_size(entry(inode, stat.S_IFREG | mode, 1, attributes, timeout=0), file.kind, group)

    def _with_size(self, found: EntryAttributes, kind: type[ControlFile], group: Group) -> EntryAttributes:
        """The block size is no smaller than the size: tools then read to the end, where they would seek to it."""
        size = kind.size(group)
        if found.st_ino in self._sizes:
            size = self._sizes.size_shown(found.st_ino, size, self._caller)
        self._sizes.news.sent(found.st_ino, self._caller, size)
        if size:
            found.st_size = size
            found.st_blksize = max(PAGE, 1 << (size - 1).bit_length())
            found.st_blocks = -(-size // 512)  # or cp would look for holes
        if kind.grows or not self._marks:
            found.attr_timeout = 0
        return found

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        if self._removed:
            for inode, _ in inode_list:
                if inodes.slot_of(inode) == inodes.DIRECTORY:
                    removed = self._removed.pop(inodes.group_of(inode), None)
                    if removed is not None:
                        self._shares.give_back(removed[2], _ONE_REMOVED)

    # ---- directories ----

    @by_inode
    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        if name in self._slots_in(parent_inode):
            raise FUSEError(errno.EEXIST)
        if b"\n" in name:  # the only bad name that the kernel lets through; whatever room there is
            raise FUSEError(errno.EINVAL)
        parent, _ = self._find(parent_inode)
        mode, gid = parent.inherited(stat.S_IMODE(mode), ctx.gid)
        account = self._shares.account(parent, ctx.uid)
        account.take(groups=1)
        try:
            group = parent.mkdir(name, mode, ctx.uid, gid)
        except BaseException:
            account.give_back(groups=1)
            raise
        self._known.add(parent.id, name, group.id)
        self._invalidate(parent.id)
        # nothing may fail any more, so the attributes that the engine has given it are asked for another time
        return entry(
            inodes.number(group.id, inodes.DIRECTORY),
            stat.S_IFDIR | mode,
            2,
            Attributes(mode, ctx.uid, gid, 0, 0, 0),
            timeout=0,
        )

    @by_inode
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        if name in self._slots_in(parent_inode):
            raise FUSEError(errno.ENOTDIR)
        parent, _ = self._find(parent_inode)
        group = parent.child(name)
        attributes = group.attributes(0)
        files = {number: group.attributes(file.slot) for number, file in self._files.items() if file.owned}
        others = {number: of for number, of in files.items() if (of.uid, of.gid) != (attributes.uid, attributes.gid)}
        account = self._shares.account(group, attributes.uid)
        group.remove()
        account.give_back(groups=1)
        with suppress(OSError):  # to remember it takes room, too: without it nobody sees what its attributes were
            self._shares.take(ctx.uid, _ONE_REMOVED, not self._shares.exempts(ctx.uid))
            self._removed[group.id] = attributes, others, ctx.uid
        self._known.drop(parent.id, name, group.id)
        self._known.forget(group.id)
        self._invalidate(parent.id)
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
        self._known.drop(parent.id, name_old, group.id)
        self._known.add(parent.id, name_new, group.id)
        self._invalidate(parent.id)
        self._invalidate(group.id)

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

    @by_inode
    def opendir(self, inode: int, ctx: RequestContext) -> int:
        group, _ = self._find(inode)
        if group.id not in self._removed and not group.exists:
            raise FUSEError(errno.ESTALE)
        self._shares.open_file(ctx.uid)
        handle = next(self._handles)
        listed = self._listed_in_root if group.id == ROOT else self._listed
        self._directories[handle] = Directory(group, ctx.uid, listed)
        return handle

    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        directory = self._directories[fh]
        if start_id == 0:  # rewinddir() looks again
            await self._list(directory)
        await self._reply_entries(directory, start_id, token)

    async def _list(self, directory: Directory) -> None:
        """Finds the children; many of them in a worker thread, since that takes milliseconds."""
        try:
            if not directory.has_few():
                raise guard.MustWait
            children = directory.look()
        except Exception as error:
            children = await guard.recover(error, errno.ENODEV, directory.look)
        if isinstance(children, Text):
            children = self._kept.keep(directory, directory.key(), children)
        directory.begin(children)

    @by_handle
    def _reply_entries(self, directory: Directory, start: int, token: ReaddirToken) -> None:
        self._caller = 0
        for place, inode, known in directory.entries(start):
            try:
                name = known or os.fsencode(self._tree.group(inodes.group_of(inode)).name)
                attributes = self._entry(inode)
            except LockTimeout:
                if place == start:
                    raise
                return  # what is in the reply already must not be put there again
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                continue
            if not pyfuse3.readdir_reply(token, name, attributes, place + 1):
                return
            if known is None:
                self._known.add(directory.group.id, name, inodes.group_of(inode))

    @by_handle
    def releasedir(self, fh: int) -> None:
        directory = self._directories.pop(fh)
        self._shares.close_file(directory.user)
        self._kept.drop(directory)

    @by_inode
    def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        result = pyfuse3.StatvfsData()
        result.f_bsize = result.f_frsize = os.sysconf("SC_PAGESIZE")
        result.f_namemax = NAME_MAX
        return result

    # ---- open files ----

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        info, opened = await self._begin(inode, flags, ctx)
        if opened.readable:
            await self._sizes.opened(inode, info.fh, ctx.pid)
        opened.opened_at = monotonic()
        return info

    @by_inode
    def _begin(self, inode: int, flags: int, ctx: RequestContext) -> tuple[FileInfo, ControlFile]:
        group, file = self._find(inode)
        if not group.exists:
            raise FUSEError(errno.ESTALE)
        assert file is not None
        self._shares.open_file(ctx.uid)
        try:
            opened = file.kind(Opening(group, file.resource, inode, flags, ctx.uid, ctx.pid, self._mount))
        except BaseException:
            self._shares.close_file(ctx.uid)
            raise
        handle = next(self._handles)
        self._open[handle] = opened
        if flags & os.O_TRUNC and opened.size(group):
            opened.truncates = True
            self._sizes.truncated(inode, ctx.pid)
        return FileInfo(fh=handle, direct_io=True, keep_cache=False), opened

    # read and write guard themselves: they are the ones that have to be quick

    async def read(self, fh: int, off: int, size: int) -> bytes:
        try:
            opened = self._open[fh]
            if off < 0:  # marked by _page_reads.c
                return await self._read_page(fh, ~off, size)
            return opened.read(off, size)
        except MakeText:
            return await self._read_long(fh, off, size)
        except Exception as error:
            return await guard.recover(error, errno.ENODEV, lambda: self._open[fh].read(off, size))

    async def _read_page(self, fh: int, off: int, size: int) -> bytes:
        """For sendfile() and splice(): see file_sizes.py."""
        opened = self._open[fh]
        self._sizes.begin_copy(opened.inode, fh)
        try:
            text = opened.read(off, size)
        except MakeText:
            text = await self._read_long(fh, off, size)
        except Exception as error:
            text = await guard.recover(error, errno.ENODEV, lambda: opened.read(off, size))
        end = off + len(text) if len(text) < size else None
        length = opened.length_read
        size_shown = opened.size(opened.group)
        await self._sizes.allow_answer(opened.inode, fh, opened.thread, opened.opened_at, end, length, size_shown)
        return text

    async def _read_long(self, fh: int, off: int, size: int) -> bytes:
        opened = self._open[fh]
        assert isinstance(opened, LongFile)
        try:
            text = await self._makers.text(opened.user, opened.key(), opened.make)
        except Exception as error:
            raise guard.answer(error, errno.ENODEV) from None
        opened.begin(self._kept.keep(opened, opened.key(), text))
        return text[off : off + size]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        try:
            opened = self._open[fh]
            length = opened.write(buf)
        except Exception as error:
            length = await guard.recover(error, errno.ENODEV, lambda: opened.write(buf))
        if self._sizes.has_short_pages:
            await self._sizes.drop_short_pages()
        self._sizes.news.sent(opened.inode, opened.thread)
        if length and opened.timed:
            self._written[opened.inode] = time_ns()
            if self._written.many:
                self._written.store(_STORED_AT_ONCE)
        return length

    @by_handle
    def release(self, fh: int) -> None:
        self._polled.discard(fh)
        opened = self._open.pop(fh)
        self._shares.close_file(opened.user)
        self._sizes.closed(opened.inode, fh, opened.thread, opened.readable)
        if opened.truncates:
            self._sizes.invalidate(opened.inode)
        if isinstance(opened, LongFile):
            self._kept.drop(opened)
        guard.finish(opened.release)

    @by_handle
    def poll(self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: RequestContext) -> int:
        opened = self._open[fh]
        if poll_handle is not None or opened.in_line:
            # before anything is looked at: a change is noticed either here or there
            opened.waiter = poll_handle or opened.waiter
            self._polled.add(fh, opened)
        return opened.poll()

    # ---- what the kernel has to be told ----

    def _invalidate(self, group: int) -> None:
        if self._serving:
            invalidate_attributes(inodes.number(group, inodes.DIRECTORY))

    async def run(self) -> None:
        """Does what requests wait for: hears events and makes long texts, until it is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._polled.run)
            nursery.start_soon(self._makers.run)
            nursery.start_soon(self._sizes.run)
            nursery.start_soon(freed_memory.give_back)

    def _children_changed(self, number: int) -> None:
        """Somebody has made, renamed or removed children of this group in the region.  It may wait."""
        self._shares.owners_changed()
        group = self._tree.group(number)
        removed = []
        for name, known in self._known.of(number):
            if self._child(group, name) == known:
                continue
            renamed = self._tree.group(known).exists
            self._known.drop(number, name, known)
            if not renamed:
                self._known.forget(known)
                removed.append(known)
            self._invalidate(known)
            invalidate_name(inodes.number(number, inodes.DIRECTORY), name)
        self._invalidate(number)
        guard.in_loop(self._polled.wake, removed)

    def _child(self, group: Group, name: bytes) -> int | None:
        try:
            found = group.find(name)
        except GroupRemoved:
            return None
        return found.id if found else None

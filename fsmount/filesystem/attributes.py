"""The attributes that stat() shows of groups and control files, and their changes.

The engine keeps the attributes of a group's directory.  A file that can have an owner of its own has attributes of its
own, and its kind gives its first mode.  Any other file follows its directory, and refuses chmod and chown.
"""

import errno
import stat

from pyfuse3 import EntryAttributes, FUSEError, SetattrFields

from fsmount.control_files.control_file import ControlFile
from fsmount.filesystem import inodes
from fsmount.filesystem.kernel_cache.attributes import entry
from fsmount.filesystem.kernel_cache.file_sizes import PAGE, FileSizes
from fsmount.filesystem.lookup import Lookup
from fsmount.filesystem.removed_groups import RemovedGroups
from fsmount.filesystem.shares import Shares
from fsmount.filesystem.write_times import WriteTimes
from fsmount.shm import MODE_UNSET, SET_ATIME, SET_GID, SET_MODE, SET_MTIME, SET_UID, Group

_TIME_MIN, _TIME_MAX = -(2**63), 2**63 - 1


class InodeAttributes:
    """The attributes of all inodes."""

    def __init__(self, lookup: Lookup, shares: Shares, sizes: FileSizes, removed: RemovedGroups) -> None:
        self._find = lookup.find
        self._shares = shares
        self._sizes = sizes
        self._removed = removed
        self.write_times = WriteTimes(self._store_time)
        #: Whether reads for the page cache carry a mark; without it the kernel may keep no size.
        self.page_reads_are_marked = True

    def of(self, inode: int, thread: int = 0) -> EntryAttributes:
        """The attributes for an answer to a thread; 0: the thread is not known.  GroupRemoved."""
        group, file = self._find(inode)
        if file is None:
            attributes = group.attributes(0)
            return entry(inode, stat.S_IFDIR | attributes.mode, 2 + group.child_count, attributes)
        if file.owned:
            written = self.write_times.get(inode)  # before the region, see write_times.py
            attributes = group.attributes(file.slot)
            if written is not None:
                attributes = attributes._replace(mtime=written, ctime=written)
            mode = file.kind.mode if attributes.mode == MODE_UNSET else attributes.mode
            return self._with_size(entry(inode, stat.S_IFREG | mode, 1, attributes), file.kind, group, thread)
        attributes = group.attributes(0)
        # the kernel does not know that the file's attributes change with the directory's
        found = entry(inode, stat.S_IFREG | file.kind.mode_in(attributes.mode), 1, attributes, timeout=0)
        return self._with_size(found, file.kind, group, thread)

    def _with_size(self, found: EntryAttributes, kind: type[ControlFile], group: Group, thread: int) -> EntryAttributes:
        """Adds the size of the file.  With a block size of at least that, tools read to the end and never seek."""
        size = kind.size(group)
        if found.st_ino in self._sizes:
            size = self._sizes.size_shown(found.st_ino, size, thread)
        self._sizes.news.sent(found.st_ino, thread, size)
        if size:
            found.st_size = size
            found.st_blksize = max(PAGE, 1 << (size - 1).bit_length())
            found.st_blocks = -(-size // 512)  # without blocks cp looks for holes
        if kind.grows or not self.page_reads_are_marked:
            found.attr_timeout = 0
        return found

    def of_removed(self, inode: int) -> EntryAttributes | None:
        """The attributes of an inode whose group was removed while it was open; None if they are not remembered."""
        attributes = self._removed.find(inode)
        if attributes is None:
            return None
        if inodes.slot_of(inode) == inodes.DIRECTORY:
            return entry(inode, stat.S_IFDIR | attributes.mode, 0, attributes)
        _, file = self._find(inode)
        return entry(inode, stat.S_IFREG | (file.kind.mode if file else 0o600), 0, attributes)

    def change(self, inode: int, wanted: EntryAttributes, fields: SetattrFields) -> None:
        """Sets the mode, owner and times of an inode.  Truncation does not count as a write: the time stays."""
        if inodes.group_of(inode) in self._removed:
            raise FUSEError(errno.ENODEV)  # a process has it open
        group, file = self._find(inode)
        mask = (fields.update_mode and SET_MODE) | (fields.update_uid and SET_UID) | (fields.update_gid and SET_GID)
        if file is not None and not file.owned:
            if mask:
                raise FUSEError(errno.EPERM)
            return
        if not fields.update_size:
            mask |= (fields.update_mtime and SET_MTIME) | (fields.update_atime and SET_ATIME)
        if not mask:
            return
        mtime = wanted.st_mtime_ns
        written = self.write_times.get(inode)
        if written is not None and not mask & SET_MTIME:
            mask |= SET_MTIME
            mtime = written
        group.set_attributes(
            file.slot if file else 0,
            mask,
            mode=stat.S_IMODE(wanted.st_mode),
            uid=wanted.st_uid,
            gid=wanted.st_gid,
            atime=min(max(wanted.st_atime_ns, _TIME_MIN), _TIME_MAX),
            mtime=min(max(mtime, _TIME_MIN), _TIME_MAX),
        )
        self.write_times.pop(inode, None)
        if file is None and mask & SET_UID:
            self._shares.owners_changed()

    def _store_time(self, inode: int, written: int) -> None:
        group, file = self._find(inode)
        assert file is not None
        group.set_attributes(file.slot, SET_MTIME, mtime=written, now=written)

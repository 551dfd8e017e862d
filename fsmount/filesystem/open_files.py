"""The open files of a mount, by handle."""

import errno
import logging
import os
from time import monotonic

from pyfuse3 import FUSEError, PollHandle, RequestContext

from fsmount.control_files.control_file import ControlFile
from fsmount.control_files.long_file import LongFile, MakeText
from fsmount.control_files.mount import Mount, Opening
from fsmount.filesystem import guard
from fsmount.filesystem.kernel_cache.file_sizes import FileSizes
from fsmount.filesystem.lookup import Lookup
from fsmount.filesystem.polled_files import PolledFiles
from fsmount.filesystem.shares import Shares
from fsmount.filesystem.texts.long_texts import LongTexts

log = logging.getLogger(__name__)


class OpenFiles(dict[int, ControlFile]):
    """The open files by handle.  For the event loop's thread."""

    def __init__(self, lookup: Lookup, shares: Shares, sizes: FileSizes, texts: LongTexts, polled: PolledFiles) -> None:
        super().__init__()
        self._find = lookup.find
        self._shares = shares
        self._sizes = sizes
        self._texts = texts
        self._polled = polled

    def open(self, handle: int, inode: int, flags: int, ctx: RequestContext, mount: Mount) -> ControlFile:
        """Opens a file of a group; opened() follows.  FUSEError(ESTALE), OSError(ENFILE)."""
        group, file = self._find(inode)
        if not group.exists:
            raise FUSEError(errno.ESTALE)
        assert file is not None
        self._shares.open_file(ctx.uid)
        try:
            opened = file.kind(Opening(group, file.resource, inode, flags, ctx.uid, ctx.pid, mount))
        except BaseException:
            self._shares.close_file(ctx.uid)
            raise
        self[handle] = opened
        if flags & os.O_TRUNC and opened.size(group):
            opened.truncates = True
            self._sizes.truncated(inode, ctx.pid)
        return opened

    async def opened(self, handle: int, opened: ControlFile) -> None:
        """Finishes an open() before its answer."""
        if opened.readable:
            await self._sizes.opened(opened.inode, handle, opened.thread)
        opened.opened_at = monotonic()

    async def read_page(self, handle: int, offset: int, size: int) -> bytes:
        """A read for the kernel's page cache: see kernel_cache/file_sizes.py."""
        opened = self[handle]
        self._sizes.begin_copy(opened.inode, handle)
        try:
            text = opened.read(offset, size)
        except MakeText:
            text = await self.read_long(handle, offset, size)
        except Exception as error:
            text = await guard.recover(error, errno.ENODEV, lambda: opened.read(offset, size))
        end = offset + len(text) if len(text) < size else None
        shown, length = opened.size(opened.group), opened.length_read
        await self._sizes.allow_answer(opened.inode, handle, opened.thread, opened.opened_at, end, length, shown)
        return text

    async def read_long(self, handle: int, offset: int, size: int) -> bytes:
        """A read that starts a long text."""
        opened = self[handle]
        assert isinstance(opened, LongFile)
        return await self._texts.read(opened, offset, size)

    def poll(self, handle: int, poll_handle: PollHandle | None) -> int:
        """The events of a file; the kernel is notified of later ones through `poll_handle`."""
        opened = self[handle]
        if poll_handle is not None or opened.queued:
            # registered before the file is checked, so that no change is missed
            opened.waiter = poll_handle or opened.waiter
            self._polled.add(handle, opened)
        return opened.poll()

    def close(self, handle: int) -> None:
        """Closes a file, when its last descriptor is closed."""
        self._polled.discard(handle)
        opened = self.pop(handle)
        self._shares.close_file(opened.user)
        self._sizes.closed(opened.inode, handle, opened.thread, opened.readable)
        if opened.truncates:
            self._sizes.invalidate(opened.inode)
        if isinstance(opened, LongFile):
            self._texts.drop(opened)
        guard.finish(opened.release)

    def abandon(self) -> None:
        """Ends the leases that are still open at the end of the mount.  Never raises."""
        while self:
            _, opened = self.popitem()
            try:
                opened.abandon()
            except OSError as error:
                log.warning("an open lease keeps its charges until the next mount of this region ends it: %s", error)

"""The region of a mount, opened with its user's rights and held by descriptors from then on.

The user chooses the region's path, and the path can lead to another file at any time.  So root never opens it.  A child
process that acts as the user opens the file.  To remove it, the child first compares it with the open file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fsmount.admin import region_path
from fsmount.admin.bounded_child import NoAnswer, bounded, bounded_files
from fsmount.admin.mount_table import Mount, mount_of, mounts_of_device, opened_root
from fsmount.protocol.file_names import CHANNEL_FILE

if TYPE_CHECKING:
    from fsmount.shm import Tree


class DaemonAnswer(NamedTuple):
    """The content of a mount's control channel.  The mount's user can forge all of it."""

    region: str
    pid: int
    tree_id: int


@dataclass(frozen=True)
class RegionFile:
    """An open region: a regular file of the mount's user."""

    path: str  # as its user sees it
    mount: Mount
    point: str  # the mount point that led to it; empty if the daemon named it
    tree_id: int | None  # of the tree that the daemon says it serves
    directory: int
    file: int

    @property
    def content(self) -> str:
        """A path that leads to the open file."""
        return f"/proc/self/fd/{self.file}"

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def lock(self) -> None:
        """Locks it until it is closed.  BlockingIOError: another process has the lock.  FileNotFoundError: removed."""
        fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not bounded(self._is_at_path, user=self.mount.owner, keep=[self.directory, self.file]):
            raise FileNotFoundError(errno.ENOENT, "removed meanwhile", self.path)

    def remove(self) -> None:
        """Removes the file, unless another one has taken its name, and the link from its mount point."""

        def remove() -> None:
            if self._is_at_path():
                os.unlink(self.name, dir_fd=self.directory)
            region_path.forget(self.mount.path, self.mount.uid)

        bounded(remove, user=self.mount.owner, keep=[self.directory, self.file])

    def _is_at_path(self) -> bool:
        try:
            there = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.file))


def ask_daemon(mount: Mount) -> DaemonAnswer | None:
    """The answer of a mount's daemon; None if it does not answer the caller.  NoAnswer."""
    if not mount.is_accessible:
        return None
    with opened_root(mount) as root:
        return None if root is None else bounded(lambda: _read_answer(root), user=mount.owner, keep=[root])


@contextlib.contextmanager
def region_of(mount: Mount, answer: DaemonAnswer | None = None) -> Iterator[RegionFile | None]:
    """The region of a mount, open in the block; None if the caller may not use it.

    answer: the answer of the mount's daemon.  Without one, the region is found by the mount points of the tree, the
    mount's own first.
    """
    region = _located(mount, answer) if mount.is_accessible else None
    try:
        yield region
    finally:
        if region is not None:
            os.close(region.directory)
            os.close(region.file)


@contextlib.contextmanager
def tree_in(region: RegionFile | None) -> Iterator[Tree | None]:
    """The region's tree; None if it cannot be opened, or is not the tree that the daemon serves."""
    from fsmount.shm import Tree

    try:
        tree = Tree.open(region.content) if region is not None else None
    except OSError:
        tree = None
    try:
        if tree is not None and region is not None:
            tree.path = region.path
            if region.tree_id not in (None, tree.id):
                tree.close()
                tree = None
        yield tree
    finally:
        if tree is not None:
            tree.close()


def _located(mount: Mount, answer: DaemonAnswer | None) -> RegionFile | None:
    points = [other.path for other in mounts_of_device(mount.device)]
    points.sort(key=lambda path: path != mount.path)

    def find() -> tuple[tuple[str, str] | None, list[int]]:
        for point, path in _candidates(answer, points, mount.uid):
            with contextlib.suppress(OSError):
                return (point, path), open_region_file(path, mount.uid)
        return None, []

    try:
        found, files = bounded_files(find, user=mount.owner)
    except NoAnswer:
        return None
    if found is None:
        return None
    directory, file = files
    if mount.owner is not None and ((there := mount_of(file)) is None or there.is_fuse):
        os.close(directory)  # that user's daemon could block every reader
        os.close(file)
        return None
    point, path = found
    return RegionFile(path, mount, point, answer.tree_id if answer else None, directory, file)


def _read_answer(root: int) -> DaemonAnswer | None:
    """Reads a mount's control channel; None if it is not one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        control = os.open(CHANNEL_FILE, flags, dir_fd=root)
        try:
            if not stat.S_ISREG(os.fstat(control).st_mode):
                return None
            content = json.loads(os.read(control, 65536))
        finally:
            os.close(control)
        return DaemonAnswer(os.fspath(content["region"]), int(content["server"]), int(content["tree"], 16))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _candidates(answer: DaemonAnswer | None, points: list[str], uid: int) -> Iterator[tuple[str, str]]:
    """Paths where the region may be, each with the mount point that leads there; "" if the daemon names the path."""
    if answer is not None:
        yield "", answer.region
        yield (
            "",
            f"/proc/{answer.pid}/root{answer.region}",
        )  # through the root directory of a daemon in another mount namespace
        return
    for point in points:
        if (path := region_path.find(point, uid)) is not None:
            yield point, path


def open_region_file(path: str, uid: int) -> list[int]:
    """Descriptors of the region's directory and file.  OSError: not a regular file of this user."""
    with contextlib.ExitStack() as failed:
        directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        failed.callback(os.close, directory)
        found = os.open(os.path.basename(path), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != uid:
                raise OSError(errno.EPERM, "not a region of the mount's user", path)
            file = os.open(f"/proc/self/fd/{found}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(found)
        failed.pop_all()
    return [directory, file]

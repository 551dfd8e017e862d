"""A path that a user names, walked once and held by a descriptor from then on.

The walk has two dangers.  A file system whose daemon is stopped never answers, so a child process walks, with a time
limit.  And another user may control a part of the path.  Root follows no symbolic link of another user, as the kernel
does in sticky directories: that user could choose the directory that root mounts on, or the tree that root unmounts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from fsmount.admin import region_path
from fsmount.admin.bounded_child import NoAnswer, bounded, bounded_files
from fsmount.admin.daemon_process import describe_no_answer
from fsmount.admin.mount_table import Mount, all_mounts, is_below, mount_of
from fsmount.admin.user_error import UserError
from fsmount.paths.walk import Trap, walked


@dataclass(frozen=True)
class OpenPath:
    """An open file or directory.  `descriptor` identifies it, even if the path leads elsewhere later."""

    path: str  # its real path
    descriptor: int
    mount: Mount | None  # the mount that it is on

    @property
    def is_mount(self) -> bool:
        """Whether it is the root of its mount."""
        return self.mount is not None and self.mount.path == self.path

    def status(self) -> os.stat_result:
        """Its status.  OSError; UserError if its daemon does not answer."""
        try:
            return bounded(lambda: os.fstat(self.descriptor), keep=[self.descriptor])
        except NoAnswer:
            raise UserError(_describe_silence(self.path)) from None

    @property
    def is_directory(self) -> bool:
        try:
            return stat.S_ISDIR(self.status().st_mode)
        except OSError:
            return False


@contextlib.contextmanager
def open_path(path: str) -> Iterator[OpenPath]:
    """Opens the file or directory at a path for the block.  OSError; UserError if a daemon on the way is silent."""
    if not path:
        raise UserError("an empty name (a shell variable that is not set?): name a path")
    try:
        _, (descriptor,) = bounded_files(lambda: (None, [_descriptor_of(path)]))
    except NoAnswer:
        raise UserError(_describe_silence(os.path.abspath(path))) from None
    except Trap as error:
        raise UserError(str(error.strerror)) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # not a component of the path
    try:
        real = os.readlink(f"/proc/self/fd/{descriptor}")
        yield OpenPath(real, descriptor, mount_of(descriptor))
    finally:
        os.close(descriptor)


def _describe_silence(path: str) -> str:
    """The text of an error about a blocked walk.  It names the last FUSE mount on the way."""
    on_the_way = [mount for mount in all_mounts() if mount.is_fuse and is_below(path, mount.path)]
    if not on_the_way:
        return "a file system on the way to it does not answer"
    mount = max(on_the_way, key=lambda mount: len(mount.path))
    if not mount.is_fsmount:
        return f"the daemon of {mount.path} does not answer: end that daemon first"
    return (
        describe_no_answer(mount)
        if mount.path == path
        else f"{mount.path} is on the way, and {describe_no_answer(mount)}"
    )


def _descriptor_of(path: str) -> int:
    """A descriptor of the file or directory at a path.  OSError; Trap where root would follow another user's link."""
    with walked(path, _distrusts) as found:
        if found.file < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return os.dup(found.file)


def _distrusts(owner: int, _directory: int) -> bool:
    return os.geteuid() == 0 and owner not in region_path.trusted_owners()

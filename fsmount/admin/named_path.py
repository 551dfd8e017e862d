"""A path that a user names, followed once: from then on it is a descriptor.

Two things can go wrong on the way.  A file system whose daemon is stopped never answers: so a child goes there.  And
somebody else may control a part of the way.  Root follows no symbolic link of another user, as the kernel does not in
sticky directories: that user would choose what root mounts on, unmounts or repairs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from fsmount.admin import region_path
from fsmount.admin.bounded import NoAnswer, bounded, bounded_files
from fsmount.admin.daemon_process import describe_no_answer
from fsmount.admin.mount_table import Mount, all_mounts, is_below, mount_of
from fsmount.admin.user_error import UserError
from fsmount.paths.walk import Trap, walked


@dataclass(frozen=True)
class OpenPath:
    """The thing at a path: `descriptor` is of it alone, wherever the path leads by now."""

    path: str  # the real one
    descriptor: int
    mount: Mount | None  # the one that it is on

    @property
    def is_mount(self) -> bool:
        """Whether the root of that mount is here."""
        return self.mount is not None and self.mount.path == self.path

    def status(self) -> os.stat_result:
        """OSError.  UserError if that does not come."""
        try:
            return bounded(lambda: os.fstat(self.descriptor), keep=[self.descriptor])
        except NoAnswer:
            raise UserError(_who_does_not_answer(self.path)) from None

    @property
    def is_directory(self) -> bool:
        try:
            return stat.S_ISDIR(self.status().st_mode)
        except OSError:
            return False


@contextlib.contextmanager
def open_path(path: str) -> Iterator[OpenPath]:
    """The place that a path leads to now.  OSError; UserError if a daemon on the way does not answer."""
    if not path:
        raise UserError("an empty name (a shell variable that is not set?): name a path")
    try:
        _, (descriptor,) = bounded_files(lambda: (None, [_descriptor_of(path)]))
    except NoAnswer:
        raise UserError(_who_does_not_answer(os.path.abspath(path))) from None
    except Trap as error:
        raise UserError(str(error.strerror)) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # and not a name on the way
    try:
        real = os.readlink(f"/proc/self/fd/{descriptor}")
        yield OpenPath(real, descriptor, mount_of(descriptor))
    finally:
        os.close(descriptor)


def _who_does_not_answer(path: str) -> str:
    """The FUSE mount that the path leads into last is the one that may keep it waiting."""
    on_the_way = [mount for mount in all_mounts() if mount.is_fuse and is_below(path, mount.path)]
    if not on_the_way:
        return "a file system on the way does not answer"
    mount = max(on_the_way, key=lambda mount: len(mount.path))
    if not mount.is_fsmount:
        return f"the daemon of {mount.path} does not answer: end that first"
    return (
        describe_no_answer(mount)
        if mount.path == path
        else f"{mount.path} is on the way, and {describe_no_answer(mount)}"
    )


def _descriptor_of(path: str) -> int:
    """Of what is at the path.  OSError; Trap where root would follow another user's link."""
    with walked(path, _distrusts) as found:
        if found.file < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return os.dup(found.file)


def _distrusts(owner: int, _directory: int) -> bool:
    return os.geteuid() == 0 and owner not in region_path.trusted_owners()

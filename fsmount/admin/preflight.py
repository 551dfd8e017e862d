"""Checks before a mount: whether fsmount can mount on a directory, and whether FUSE is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator

from fsmount.admin.daemon_process import is_served
from fsmount.admin.named_path import OpenPath, open_path
from fsmount.admin.user_error import UserError
from fsmount.errors import says_daemon_is_lost

_DEVICE = "/dev/fuse"


@contextlib.contextmanager
def checked_mount_point(path: str) -> Iterator[OpenPath]:
    """The mount point at this real path, open in the block.  UserError if fsmount cannot mount there."""
    with open_mount_point(path) as found:
        if found.path != path:
            raise UserError(f"replaced meanwhile: it now leads to {found.path}; try again")
        mount = found.mount
        if mount is None or not found.is_mount or not mount.is_fsmount:
            _check_directory(found)
        elif mount.uid != os.geteuid():
            raise UserError(
                f"already an fsmount mount, of user {mount.uid}: choose another directory or unmount it first"
            )
        elif is_served(mount):
            raise UserError("already an fsmount mount: use it, or unmount it with fsmount umount")
        _check_fuse()
        yield found


@contextlib.contextmanager
def open_mount_point(path: str) -> Iterator[OpenPath]:
    """The directory that a user names to mount on, open in the block.  UserError if there is none."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(open_path(path))
        except FileNotFoundError:
            raise UserError("there is no such directory: make it with mkdir") from None
        except NotADirectoryError:
            raise UserError("not a directory: choose or make one") from None
        except OSError as error:
            raise UserError(f"cannot be opened: {error.strerror}") from None
        yield found


def _check_directory(found: OpenPath) -> None:
    try:
        status = found.status()
    except OSError as error:
        if says_daemon_is_lost(error):
            raise UserError("another file system that has lost its daemon is mounted there: unmount it first") from None
        raise UserError(f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise UserError("not a directory: choose or make one")
    if status.st_nlink == 0:
        raise UserError("the directory was removed: make it with mkdir")


def _check_fuse() -> None:
    if not os.path.exists(_DEVICE):
        raise UserError(f"this machine has no {_DEVICE}: load the kernel's module with modprobe fuse, as root")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise UserError(f"you may not open {_DEVICE}: ask root for chmod 0666 {_DEVICE}")
    if os.geteuid() != 0 and not shutil.which("fusermount3"):
        raise UserError("fusermount3 is missing, and only root can mount without it: install the package fuse3")

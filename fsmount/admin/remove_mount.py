"""Unmounts one mount and no other: by a descriptor of it, or where only fusermount3 can, just after it was compared."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess

from fsmount.admin.bounded import NoAnswer, bounded
from fsmount.admin.mount_table import Mount, all_mounts, is_root_of, open_root, opened_root
from fsmount.admin.mount_users import describe_users
from fsmount.admin.user_error import UserError

# <sys/mount.h>
_DETACH = 2
_EXPIRE = 4
_NOFOLLOW = 8


def remove_mount(mount: Mount, *, lazy: bool = False) -> None:
    """Unmounts; UserError if it cannot be.  Lazy: at once, even with open files.  Nothing is wrong if it is gone."""
    failure = _as_root(mount, lazy) if os.geteuid() == 0 else _as_user(mount, lazy)
    if failure is None or not _is_there(mount):
        return
    if "busy" in failure:
        raise UserError(f"busy: {describe_users(mount)}")
    if os.geteuid() not in (0, mount.uid):
        raise UserError(f"mounted by user {mount.uid}: unmount it as that user or as root")
    raise UserError(f"cannot be unmounted: {failure}")


def _is_there(mount: Mount) -> bool:
    return any((other.id, other.device) == (mount.id, mount.device) for other in all_mounts())


def detach(mount: Mount) -> None:
    """Unmounts it at once, as root; files in it stay open.  OSError: ENOENT if it is not at its path any more."""
    root = open_root(mount)
    try:
        if not is_root_of(mount, root):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), mount.path)
        if number := _umount(f"/proc/self/fd/{root}", _DETACH):
            raise OSError(number, os.strerror(number), mount.path)
    finally:
        os.close(root)


def _as_root(mount: Mount, lazy: bool) -> str | None:
    """What failed.

    Only a lazy unmount can be done through a descriptor, since that itself keeps the mount busy.  Whether anything else
    does is asked by the path before: MNT_EXPIRE answers EAGAIN where nothing does, and the first time it only marks
    what is there, whichever mount that is.
    """

    def act() -> None:
        if not lazy and (number := _umount(mount.path, _EXPIRE | _NOFOLLOW)) not in (0, errno.EAGAIN):
            raise OSError(number, os.strerror(number))
        detach(mount)

    try:
        bounded(act)
    except OSError as error:
        return error.strerror
    except NoAnswer:
        return "a file system on the way does not answer"
    return None


def _umount(path: str, flags: int) -> int:
    """umount2(2); the errno, 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.umount2(os.fsencode(path), flags) else 0


def _as_user(mount: Mount, lazy: bool) -> str | None:
    """What failed.  fusermount3 unmounts for a user what is this user's."""
    if not shutil.which("fusermount3"):
        raise UserError("fusermount3 is missing: install fuse3, or ask root to unmount")
    with opened_root(mount) as root:
        if root is None:
            return "it cannot be reached"
    done = subprocess.run(
        ["fusermount3", "-uz" if lazy else "-u", "--", mount.path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    return None if done.returncode == 0 else plain_words(done.stderr) or f"fusermount3 failed: status {done.returncode}"


def plain_words(stderr: str) -> str:
    """The stderr of a program as one line, without its name in front."""
    lines = (re.sub(r"^\S+: ", "", line.strip()) for line in stderr.splitlines())
    return "; ".join(line for line in lines if line)

"""Unmounts exactly one mount.

Root unmounts through a descriptor whose mount id was compared.  For other users fusermount3 unmounts by path, just
after the comparison.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess

from fsmount.admin.bounded_child import NoAnswer, bounded
from fsmount.admin.mount_table import Mount, all_mounts, is_root_of, open_root, opened_root
from fsmount.admin.mount_users import describe_users
from fsmount.admin.user_error import UserError

# <sys/mount.h>
_DETACH = 2
_EXPIRE = 4
_NOFOLLOW = 8


def remove_mount(mount: Mount, *, lazy: bool = False) -> None:
    """Unmounts; a mount that is gone is no error.  UserError: busy, or of another user.  lazy: even with open files."""
    failure = _as_root(mount, lazy) if os.geteuid() == 0 else _as_user(mount, lazy)
    if failure is None or not _exists(mount):
        return
    if "busy" in failure:
        raise UserError(f"busy: {describe_users(mount)}")
    if os.geteuid() not in (0, mount.uid):
        raise UserError(f"mounted by user {mount.uid}: unmount it as that user or as root")
    raise UserError(f"cannot be unmounted: {failure}")


def _exists(mount: Mount) -> bool:
    return any((other.id, other.device) == (mount.id, mount.device) for other in all_mounts())


def detach(mount: Mount) -> None:
    """Unmounts lazily, as root; files in it stay open.  OSError: ENOENT if another mount is at its path now."""
    root = open_root(mount)
    try:
        if not is_root_of(mount, root):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), mount.path)
        if number := _umount(f"/proc/self/fd/{root}", _DETACH):
            raise OSError(number, os.strerror(number), mount.path)
    finally:
        os.close(root)


def _as_root(mount: Mount, lazy: bool) -> str | None:
    """Unmounts; returns the reason of a failure.

    A descriptor keeps the mount busy, so only a lazy unmount can go through one.  MNT_EXPIRE by path first tests
    whether the mount is busy for another reason.  If not, it fails with EAGAIN and only marks the mount at that path.
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
        return "a file system on the way to it does not answer"
    return None


def _umount(path: str, flags: int) -> int:
    """umount2(2); returns the errno, 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.umount2(os.fsencode(path), flags) else 0


def _as_user(mount: Mount, lazy: bool) -> str | None:
    """Unmounts; returns the reason of a failure.  fusermount3 accepts only mounts of the calling user."""
    if not shutil.which("fusermount3"):
        raise UserError("fusermount3 is missing: install fuse3, or ask root to unmount")
    with opened_root(mount) as root:
        if root is None:
            return "it is out of reach"
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
    """The stderr of a program as one line, without the program's name."""
    lines = (re.sub(r"^\S+: ", "", line.strip()) for line in stderr.splitlines())
    return "; ".join(line for line in lines if line)

"""The path of a mount point's region.

A region outlives its daemon, and the mount point alone must lead its owner and root to it again.
It is in a directory that only its owner can change, on shared memory if possible, under a name
made from the mount point:

    /dev/shm/fsmount-1000/3f2c9d1e5a7b8c90.region

All users may write to /dev/shm, so another user can take the name fsmount-1000 first.  Then a
directory fsmount-1000-* is used: lstat() must show the right owner, whatever the name.  For a
region elsewhere (`--region`) a symbolic link here leads to it, so that the next mount finds it
without the option.

All paths here are real: a symbolic link in one could lead elsewhere the next time.

A directory is safe if only its owner and trusted users may replace its entries, and each directory
above it is safe too; see trusted_owners().
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator

SHARED_MEMORY = "/dev/shm"


def find(mountpoint: str, uid: int | None = None) -> str | None:
    """The path of the region that a user (by default the caller) made for this mount point, or None."""
    uid = os.geteuid() if uid is None else uid
    for base in _bases(uid):
        for directory in _directories(base, uid):
            path = os.path.join(directory, _name(mountpoint))
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if status.st_uid != uid:
                continue
            if not stat.S_ISLNK(status.st_mode):
                return path
            target = os.readlink(path)
            if os.path.lexists(target):
                return target
    return None


def place(mountpoint: str) -> str:
    """The path for a new region of this mount point; makes its directory.  OSError if no directory is safe."""
    uid = os.geteuid()
    failure: OSError | None = None
    for base in _bases(uid):
        try:
            path = os.path.join(_private_directory(base, uid), _name(mountpoint))
        except OSError as error:
            failure = error
            continue
        if os.path.islink(path) and not os.path.lexists(os.readlink(path)):
            os.unlink(path)  # the region that it led to was removed
        return path
    raise failure or FileNotFoundError(errno.ENOENT, "neither /dev/shm nor a temporary directory is safe")


def remember(mountpoint: str, region: str) -> None:
    """Links the mount point's own path to a region elsewhere.  FileExistsError: another region or link is there."""
    while (link := place(mountpoint)) != region:
        # a correct link stays: a process that is killed after its removal would leave no link to the region
        if os.path.islink(link) and os.readlink(link) == region:
            return
        try:
            os.symlink(region, link)
        except FileNotFoundError:
            continue  # forget() of another mount point has just removed the empty directory
        return


def forget(mountpoint: str, uid: int | None = None) -> None:
    """Removes the link that remember() made, and its directory if that is empty.  uid: the user; None: the caller."""
    uid = os.geteuid() if uid is None else uid
    for base in _bases(uid):
        for directory in _directories(base, uid):
            link = os.path.join(directory, _name(mountpoint))
            if os.path.islink(link):
                os.unlink(link)
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def only_owner_can_replace(path: str) -> bool:
    """Whether only the caller and root can replace the file at this real path."""
    return _guarded(os.path.dirname(path), os.geteuid())


def trusted_owners() -> set[int]:
    """The users whose directories and symbolic links are trusted: the caller and root.

    A user namespace shows all users without a number in it as one, the overflow uid.  If root is among them, the
    overflow uid counts as root: it owns "/", and every program there depends on the owner of "/" already.  The cost:
    another user without a number there looks like root too.  Only a region of the caller in a directory of that user,
    named with --region or by the environment, is affected.  If the namespace has a user with the number of the overflow
    uid, that user is not trusted.
    """
    trusted = {0, os.geteuid()}
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            overflow = int(file.read())
        if not _is_known(overflow):
            trusted.add(overflow)
    return trusted


def _is_known(uid: int) -> bool:
    """Whether this user namespace has a user with this number."""
    with open("/proc/self/uid_map", "rb") as file:
        ranges = [tuple(map(int, line.split())) for line in file.read().splitlines()]
    return any(first <= uid < first + count for first, _, count in ranges)


def _guarded(directory: str, uid: int) -> bool:
    """Whether only this user and trusted users can replace this user's entries there, and each directory above."""
    trusted = trusted_owners() | {uid}
    path = directory
    while os.path.isabs(path) and _guards(path, trusted):
        if path == os.path.dirname(path):
            return True
        path = os.path.dirname(path)
    return False


def _guards(directory: str, trusted: set[int]) -> bool:
    """Whether only trusted users can replace entries.  An access control list shows in the bits of the group."""
    try:
        status = os.lstat(directory)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in trusted:
        return False
    return not status.st_mode & 0o022 or bool(status.st_mode & stat.S_ISVTX)


def _name(mountpoint: str) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16] + ".region"


def _bases(uid: int) -> Iterator[str]:
    """The safe directories for a user's regions: shared memory, the login's runtime directory, a temporary one."""
    login = os.environ.get("XDG_RUNTIME_DIR", "") if uid == os.geteuid() else f"/run/user/{uid}"
    for base in (SHARED_MEMORY, login, tempfile.gettempdir()):
        if os.path.isabs(base) and _guarded(real := os.path.realpath(base), uid):
            yield real


def _directories(base: str, uid: int) -> Iterator[str]:
    """The directories of this user in base, the plain name first."""
    prefix = f"fsmount-{uid}"
    try:
        names = sorted(name for name in os.listdir(base) if name == prefix or name.startswith(prefix + "-"))
    except OSError:
        return
    for name in names:
        path = os.path.join(base, name)
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022:
            yield path


def _private_directory(base: str, uid: int) -> str:
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(base, f"fsmount-{uid}"), 0o700)
    for path in _directories(base, uid):
        return path
    return tempfile.mkdtemp(prefix=f"fsmount-{uid}-", dir=base)

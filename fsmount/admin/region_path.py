"""Where the region of a mount point lives.

A region must outlive its daemon and be found again from the mount point alone, by its owner
and by root.  It lives in a directory that only its owner can change, on shared memory where
there is some, under a name made from the mount point:

    /dev/shm/fsmount-1000/3f2c9d1e5a7b8c90.region

/dev/shm is everybody's, so another user can take the name fsmount-1000 first.  Then any other
directory fsmount-1000-* will do, if it is ours: what counts is what lstat() says of it, never
its name.  A region that was put elsewhere (`--region`) leaves a symbolic link at its place here,
so that the next mount finds it without being told.

All paths here are real ones: a symbolic link on the way could lead elsewhere the next time.

A directory is safe if only we, or users who can do anything anyway, may replace what is in it,
and the same holds of each directory above it; see trusted_owners().
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
    """The path of the region that was made for this mount point by this user (default: ours), or None."""
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
    """The path where a new region for this mount point goes; makes its directory.  OSError if there is no place."""
    uid = os.geteuid()
    failure: OSError | None = None
    for base in _bases(uid):
        try:
            path = os.path.join(_private_directory(base, uid), _name(mountpoint))
        except OSError as error:
            failure = error
            continue
        if os.path.islink(path) and not os.path.lexists(os.readlink(path)):
            os.unlink(path)  # it led to a region that somebody has removed
        return path
    raise failure or FileNotFoundError(errno.ENOENT, "neither /dev/shm nor a temporary directory is safe to use")


def remember(mountpoint: str, region: str) -> None:
    """Leaves a link from the mount point's own place to a region elsewhere.  FileExistsError: another one is there."""
    while (link := place(mountpoint)) != region:
        # what is right is left alone: without it nobody finds the region, and one can be killed here
        if os.path.islink(link) and os.readlink(link) == region:
            return
        try:
            os.symlink(region, link)
        except FileNotFoundError:
            continue  # forget() of another mount point has just removed the empty directory
        return


def forget(mountpoint: str, uid: int | None = None) -> None:
    """Removes what remember() left, and the directory with the last region in it, of this user (default: ours)."""
    uid = os.geteuid() if uid is None else uid
    for base in _bases(uid):
        for directory in _directories(base, uid):
            link = os.path.join(directory, _name(mountpoint))
            if os.path.islink(link):
                os.unlink(link)
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def only_owner_can_replace(path: str) -> bool:
    """Whether nobody but we and root can put something else at this real path."""
    return _guarded(os.path.dirname(path), os.geteuid())


def trusted_owners() -> set[int]:
    """The users whose directories and symbolic links are as good as our own: we, and root.

    In a user namespace that does not know root, all users that it does not know are shown as one, the overflow uid.
    There that one counts as root.  It owns "/", and the owner of "/" decides what every path means, so nothing that
    runs there can do without trusting it.  The cost: another user, unknown to the namespace, cannot be told from
    root either.  Only a place in a directory of that user's, named with --region or the environment, is affected, and
    of it only what is the caller's own.  Where the overflow uid is a user of the namespace, it is trusted like any
    other: not at all.
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
    """A real directory where an entry of ours can be replaced by us and root alone, and so can it, and all above it."""
    trusted = trusted_owners() | {uid}
    path = directory
    while os.path.isabs(path) and _guards(path, trusted):
        if path == os.path.dirname(path):
            return True
        path = os.path.dirname(path)
    return False


def _guards(directory: str, trusted: set[int]) -> bool:
    """An access control list that lets anybody write shows in the bits of the group."""
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
    """Directories that may hold those of a user: shared memory, what a login gives, any temporary one."""
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

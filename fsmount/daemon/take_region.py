"""Getting hold of the region that a mount serves: a new one, or the one an earlier daemon left.

One daemon at a time: it holds flock(LOCK_EX) on the region's file for as long as it lives, and the
kernel takes the lock from it however it dies.  Whoever has the lock may remove the file; so after
getting the lock one looks whether the path still leads to the locked file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fsmount import config
from fsmount.admin import region_path
from fsmount.admin.daemon_process import command_of, daemon_record_in
from fsmount.admin.mount_table import mount_at
from fsmount.admin.named_path import open_path
from fsmount.admin.user_error import UserError
from fsmount.daemon.config_warnings import config_warnings
from fsmount.daemon.mount_request import MountRequest
from fsmount.errors import LockTimeout
from fsmount.shm import LEASE, DaemonRecord, Holder, Tree, parse_resource

log = logging.getLogger(__name__)

# How long a daemon that is unmounted already may take to end.
_PATIENCE = 5.0


@dataclass
class LockedRegion:
    """A region that is ours to serve."""

    tree: Tree
    path: str
    mountpoint: str
    adopted: bool  # it was there before
    lock: int  # a descriptor that holds the flock
    leases: list[Holder]  # open when the daemon before died
    warnings: list[str]  # of what differs from the request's config

    def abandon(self) -> None:
        """Nothing came of it: the region is as it was."""
        if self.adopted:
            self.tree.serve(None)
        else:
            self.remove()

    def release(self, *, keep: bool) -> None:
        """The clean end: nobody serves the region any more.  It is removed, unless kept or still held by somebody."""
        self.tree.serve(None)
        self.tree.reap()
        holders = len(self.tree.holders())
        if keep:
            log.info("the counters stay in %s, for the next mount", self.path)
        elif holders:
            log.warning("the counters stay in %s, for %d live holders and the next mount", self.path, holders)
        else:
            self.remove()
        self.tree.close()
        os.close(self.lock)

    def remove(self) -> None:
        """Removes the region, unless something else was put in its place."""
        try:
            ours = os.path.samestat(os.lstat(self.path), os.fstat(self.lock))
        except FileNotFoundError:
            ours = False
        else:
            if not ours:
                log.warning("%s was replaced while it was served; what is there now stays", self.path)
        if ours:
            os.unlink(self.path)
        region_path.forget(self.mountpoint)


def take_region(request: MountRequest) -> LockedRegion:
    """The region for the mount point, locked; UserError if it is not to be had or is not as the request says."""
    path = _where(request)
    created: int | None = None
    deadline = time.monotonic() + _PATIENCE
    while created is None:
        try:
            lock = lock_region(path)
        except FileNotFoundError:
            created = _create(path, request)
        except BlockingIOError:
            record = daemon_record_in(path)
            if record is not None and not record.alive:
                record = None  # it died, and somebody else is about to take over from it
            if time.monotonic() > deadline or (record is not None and mount_at(record.mountpoint) is not None):
                raise _served(path, record) from None
            time.sleep(0.02)  # it is about to serve, or its mount is gone and it is about to end
        else:
            break
    else:
        lock = created
    try:
        tree = _open(path, lock)
        with _in_order(path):
            if created is None:
                _agree(request, tree, path)
            leases = _take_over(tree, request.mountpoint)
            warnings = config_warnings(request, tree) if created is None else []
        _remember(request.mountpoint, path)
    except BaseException:
        if created is not None:
            os.unlink(path)
            if region_path.find(request.mountpoint) is None:
                region_path.forget(request.mountpoint)
        os.close(lock)
        raise
    return LockedRegion(tree, path, request.mountpoint, created is None, lock, leases, warnings)


def _where(request: MountRequest) -> str:
    """The region's path."""
    known = region_path.find(request.mountpoint)
    if request.region is None:
        try:
            own = region_path.place(request.mountpoint)
        except OSError as error:
            raise UserError(f"there is no place for the counters ({error.strerror}): name one with --region") from None
        if known not in (None, own) and not region_path.only_owner_can_replace(known):
            raise UserError(f"other users could replace the region {known}: take their right to write from where it is")
        return known or own
    path = _real(request.region)
    if known not in (None, path):
        raise UserError(
            f"its counters from before are in {known}: leave --region out, or remove that file to begin anew"
        )
    if not region_path.only_owner_can_replace(path):
        raise UserError(
            f"other users could replace the region {path}: name one in a directory of your own with --region"
        )
    return path


def _real(region: str) -> str:
    """The path of a region with no symbolic link on the way to it."""
    directory, name = os.path.split(region)
    try:
        with open_path(directory) as place:
            if place.is_directory:
                return os.path.join(place.path, name)
    except OSError:
        pass
    raise UserError(f"there is no directory for the region {region}: make it, or name another --region")


def lock_region(path: str, uid: int | None = None) -> int:
    """A descriptor that locks the region's file.

    FileNotFoundError, BlockingIOError; UserError if it is not this user's (default: ours) alone.
    """
    uid = os.geteuid() if uid is None else uid
    try:
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"the region {path} cannot be opened ({error.strerror}): name another with --region") from None
    try:
        status = os.fstat(lock)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no region but something else: name another with --region")
        if status.st_uid != uid:
            raise UserError(f"the region {path} belongs to user {status.st_uid}: name another with --region")
        if status.st_mode & 0o022:
            raise UserError(f"other users may write to the region {path}: chmod 0600 it if you trust it still")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.lstat(path), status):
            raise FileNotFoundError(errno.ENOENT, "removed meanwhile", path)
        if status.st_nlink > 1 and not _is_only_name(path, lock):
            raise UserError(f"the region {path} has other names, by which others may get at it: remove those first")
    except BaseException:
        os.close(lock)
        raise
    return lock


def _is_only_name(path: str, lock: int) -> bool:
    """Whether it is, once a maker's own name for it is removed: it has the region's lock as long as it lives."""
    for other in glob.glob(f"{glob.escape(path)}.new-*"):
        if os.path.samestat(os.lstat(other), os.fstat(lock)):
            os.unlink(other)
    return os.fstat(lock).st_nlink == 1


def _remember(mountpoint: str, path: str) -> None:
    try:
        region_path.remember(mountpoint, path)
    except FileExistsError:
        raise UserError("somebody else has just mounted here, with other counters") from None
    except OSError as error:
        raise UserError(f"the way to the region {path} cannot be kept: {error.strerror} ({error.filename})") from None


def _create(path: str, request: MountRequest) -> int | None:
    """Makes the region as requested; returns a descriptor that locks it, or None if there is one now.

    It is made beside its place and gets there when it is whole, so whoever is killed here leaves none that is not.
    What he leaves beside it is not locked, and the next one removes it.  It is locked from before it is there: nobody
    else can have served it.
    """
    for abandoned in glob.glob(f"{glob.escape(path)}.new-*"):
        _remove_abandoned(abandoned)
    making = f"{path}.new-{secrets.token_hex(8)}"
    try:
        with Tree.create(making, **request.creation()) as tree:
            lock = -1
            try:
                lock = lock_region(making)
                if request.config is not None:
                    config.build(tree, request.config)
                os.link(making, path)
            except BaseException:
                if lock >= 0:
                    os.close(lock)
                raise
            finally:
                os.unlink(making)
        return lock
    except (FileExistsError, BlockingIOError):
        return None
    except FileNotFoundError:
        # the next one was too fast in removing, or the end of another mount has just removed the empty directory
        if not os.path.isdir(os.path.dirname(path)) and region_path.place(request.mountpoint) != path:
            raise UserError(f"the directory of the region {path} has gone: make it, or name another --region") from None
        return None
    except (OSError, ValueError) as error:
        region_path.forget(request.mountpoint)
        if isinstance(error, ValueError):
            raise UserError(str(error)) from None
        where = f" ({os.fsdecode(error.filename)})" if request.config is not None and error.filename is not None else ""
        raise UserError(f"the region {path} cannot be made: {error.strerror}{where}") from None


def _remove_abandoned(path: str) -> None:
    """Removes what somebody was making, unless he is still at it."""
    with contextlib.suppress(OSError, UserError):
        lock = lock_region(path)
        os.unlink(path)
        os.close(lock)


def _open(path: str, lock: int) -> Tree:
    """The tree of the very file that is locked, whatever its path leads to by now."""
    try:
        tree = Tree.open(f"/proc/self/fd/{lock}")
        tree.path = path
        return tree
    except OSError as error:
        raise UserError(
            f"the region {path} cannot be used: {error.strerror}; "
            "serve it with the version that made it, or remove it to begin anew"
        ) from None


@contextlib.contextmanager
def _in_order(path: str) -> Iterator[None]:
    """What the region answers in the block, if it cannot be served, as a refusal."""
    try:
        yield
    except LockTimeout as error:
        raise UserError(f"{error.strerror}: continue or end it, and mount again") from None
    except OSError as error:
        raise UserError(f"the region {path} is damaged: {error.strerror}; remove it to begin anew") from None


def _take_over(tree: Tree, mountpoint: str) -> list[Holder]:
    """Ends who died while nobody served the tree, says that this process does now, and returns the open leases."""
    if found := tree.check():
        left = tree.repair()
        for finding in found:
            log.warning("%s in the region: %s", "left as it is" if finding in left else "mended", finding)
    tree.reap()
    leases = [holder for holder in tree.holders() if holder.kind == LEASE]
    tree.serve(mountpoint)
    return leases


def _served(path: str, record: DaemonRecord | None) -> UserError:
    if record is None:
        return UserError(f"the region {path} is in use by another daemon: unmount that first")
    return UserError(
        f"the region {path} is served at {record.mountpoint} by {command_of(record.pid)} (pid {record.pid}): "
        "unmount that first, or end what still has files open there"
    )


def _agree(request: MountRequest, tree: Tree, path: str) -> None:
    """A region from before is taken as it is; what was said and is not so is an error, batch aside."""
    anew = f"leave it out, or remove {path} to begin anew"
    if request.resources and dict(map(parse_resource, request.resources)) != tree.resources:
        there = ", ".join(f"{name}:{unit}" for name, unit in tree.resources.items())
        raise UserError(f"the counters from before are {there}, not what --resource says: {anew}")
    capacities = (request.groups, request.holders, request.cells)
    for name, room, said in zip(("groups", "holders", "cells"), tree.capacity, capacities, strict=True):
        if said not in (None, room):
            raise UserError(f"the region from before has room for {room} {name}, not {said}: {anew}")
    if request.batch is not None and request.batch != tree.batch:
        tree.batch = request.batch

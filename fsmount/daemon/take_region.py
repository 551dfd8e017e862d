"""Taking the region of a mount point: a new one, or the one that an earlier daemon left."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator

from fsmount.admin import region_path
from fsmount.admin.daemon_process import command_of, daemon_record_in
from fsmount.admin.mount_table import mount_at
from fsmount.admin.named_path import open_path
from fsmount.admin.region_lock import lock_region
from fsmount.admin.user_error import UserError
from fsmount.daemon.config_warnings import config_warnings
from fsmount.daemon.mount_request import MountRequest
from fsmount.daemon.new_region import create_region
from fsmount.daemon.served_region import ServedRegion
from fsmount.errors import LockTimeout
from fsmount.shm import LEASE, DaemonRecord, Holder, Tree, parse_resource

log = logging.getLogger(__name__)

# The time in which a daemon ends after its mount is gone, in seconds.
_PATIENCE = 5.0

# Between two attempts to lock the region, in seconds.
_NAP = 0.02


def take_region(request: MountRequest) -> ServedRegion:
    """The locked region of the mount point.  UserError: it is in use, unsafe, or contradicts the request."""
    path = _path(request)
    lock, is_new = _locked(path, request)
    try:
        tree = _open(path, lock)
        with _user_errors(path):
            if not is_new:
                _check_agreement(request, tree, path)
            leases = _take_over(tree, request.mountpoint)
            warnings = [] if is_new else config_warnings(request, tree)
        _remember(request.mountpoint, path)
    except BaseException:
        if is_new:
            os.unlink(path)
            if region_path.find(request.mountpoint) is None:
                region_path.forget(request.mountpoint)
        os.close(lock)
        raise
    return ServedRegion(tree, path, request.mountpoint, not is_new, lock, leases, warnings)


def _locked(path: str, request: MountRequest) -> tuple[int, bool]:
    """A descriptor that locks the region, and whether the region is new.  Waits for a daemon that is about to end."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return lock_region(path), False
        except FileNotFoundError:
            if (created := create_region(path, request)) is not None:
                return created, True
        except BlockingIOError:
            daemon = daemon_record_in(path)
            if daemon is not None and not daemon.alive:
                daemon = None  # it died, and another daemon is about to take over
            if time.monotonic() > deadline or (daemon is not None and mount_at(daemon.mountpoint) is not None):
                raise _in_use(path, daemon) from None
            time.sleep(_NAP)  # a daemon is about to serve the region, or unmounted and is about to end


def _path(request: MountRequest) -> str:
    known = region_path.find(request.mountpoint)
    if request.region is None:
        try:
            own = region_path.place(request.mountpoint)
        except OSError as error:
            raise UserError(f"no directory is safe for the region ({error.strerror}): name one with --region") from None
        if known not in (None, own) and not region_path.only_owner_can_replace(known):
            raise UserError(
                f"other users could replace the region {known}: one of its directories is writable by them; "
                "chmod go-w that directory"
            )
        return known or own
    path = _real_path(request.region)
    if known not in (None, path):
        raise UserError(
            f"the counters of an earlier mount are in {known}: leave --region out, or remove that file to start with "
            "new counters"
        )
    if not region_path.only_owner_can_replace(path):
        raise UserError(
            f"other users could replace the region {path}: name one in a directory of your own with --region"
        )
    return path


def _real_path(region: str) -> str:
    """The path of a region without symbolic links in its directory."""
    directory, name = os.path.split(region)
    try:
        with open_path(directory) as found:
            if found.is_directory:
                return os.path.join(found.path, name)
    except OSError:
        pass
    raise UserError(f"there is no directory for the region {region}: mkdir it, or name another --region")


def _open(path: str, lock: int) -> Tree:
    """The tree in the locked file, whatever the path leads to by now."""
    try:
        tree = Tree.open(f"/proc/self/fd/{lock}")
        tree.path = path
        return tree
    except OSError as error:
        raise UserError(
            f"the region {path} cannot be used: {error.strerror}; "
            "mount it with the version that made it, or remove it to start with new counters"
        ) from None


@contextlib.contextmanager
def _user_errors(path: str) -> Iterator[None]:
    """Errors of the region in the block become UserErrors that name it."""
    try:
        yield
    except LockTimeout as error:
        raise UserError(f"{error.strerror}: continue or end it, and mount again") from None
    except OSError as error:
        raise UserError(
            f"the region {path} is damaged: {error.strerror}; remove it to start with new counters"
        ) from None


def _check_agreement(request: MountRequest, tree: Tree, path: str) -> None:
    """UserError where the request contradicts an adopted region.  The batch can change, so it is set."""
    advice = f"leave it out, or remove {path} to start with new counters"
    if request.resources and dict(map(parse_resource, request.resources)) != tree.resources:
        there = ", ".join(f"{name}:{unit}" for name, unit in tree.resources.items())
        raise UserError(f"the existing counters are {there}, not those of --resource: {advice}")
    capacities = (request.groups, request.holders, request.cells)
    for name, capacity, requested in zip(("groups", "holders", "cells"), tree.capacity, capacities, strict=True):
        if requested not in (None, capacity):
            raise UserError(f"the existing region has room for {capacity} {name}, not {requested}: {advice}")
    if request.batch is not None and request.batch != tree.batch:
        tree.batch = request.batch


def _take_over(tree: Tree, mountpoint: str) -> list[Holder]:
    """Records this process as the tree's daemon, and ends dead holders.  Returns the leases that were open."""
    if found := tree.check():
        left = tree.repair()
        for finding in found:
            log.warning("%s in the region: %s", "left as it is" if finding in left else "repaired", finding)
    tree.reap()
    leases = [holder for holder in tree.holders() if holder.kind == LEASE]
    tree.serve(mountpoint)
    return leases


def _remember(mountpoint: str, path: str) -> None:
    try:
        region_path.remember(mountpoint, path)
    except FileExistsError:
        raise UserError("another process has just mounted here, with other counters") from None
    except OSError as error:
        raise UserError(f"the link to the region {path} cannot be made: {error.strerror} ({error.filename})") from None


def _in_use(path: str, daemon: DaemonRecord | None) -> UserError:
    if daemon is None:
        return UserError(f"the region {path} is in use by another daemon: unmount that first")
    return UserError(
        f"the region {path} is served at {daemon.mountpoint} by {command_of(daemon.pid)} (pid {daemon.pid}): "
        "unmount that first, or end the processes with open files there"
    )

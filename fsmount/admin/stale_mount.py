"""A stale mount: its daemon is dead, and every access gets an error until it is unmounted.

It is removed under the lock of its region.  A new daemon mounts there only with that lock, so its mount is never taken
for a stale one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from fsmount.admin.daemon_process import command_of, daemon_record_of, is_served
from fsmount.admin.mount_table import Mount, is_over_another, mount_at, mounts_of_device
from fsmount.admin.region_file import RegionFile, region_of, tree_in
from fsmount.admin.remove_mount import remove_mount
from fsmount.admin.tree_removal import check_holders
from fsmount.admin.user_error import UserError
from fsmount.shm import Tree

# The time in which a daemon begins to serve, or ends, in seconds.
_PATIENCE = 10.0

# Between two attempts to lock a region, in seconds.
_NAP = 0.02


def remove_stale_mounts(path: str) -> bool:
    """Removes stale mounts at a real path, for a caller with their region's lock.  Returns whether there were any."""
    found = False
    while (mount := mount_at(path)) is not None and mount.is_fsmount and not is_served(mount):
        remove_mount(mount, lazy=True)
        found = True
    return found


def clear_stale_mounts(path: str) -> None:
    """Removes stale mounts at a real path; the counters stay."""
    for _ in attempts():
        mount = mount_at(path)
        if mount is None or not mount.is_fsmount or is_served(mount):
            return
        clear_stale_mount(mount, keep=True, about_to_lose=lambda tree: None)
    raise taken_over(path)


def clear_stale_mount(mount: Mount, keep: bool, about_to_lose: Callable[[Tree], None]) -> bool:
    """Removes one stale mount, and its region unless it is kept.

    False: try again, because another daemon is taking the region over, or serves a mount below this one.
    """
    with region_of(mount) as region:
        locked = False
        if region is not None:
            try:
                region.lock()
                locked = True
            except FileNotFoundError:
                pass
            except BlockingIOError:
                if is_over_another(mount):  # the mount below is served; nothing will be mounted over this one
                    remove_mount(mount, lazy=True)
                    return False
                if not _is_served_elsewhere(region, mount):
                    time.sleep(_NAP)
                    return False
        removes = locked and not keep and region is not None and _was_served_at(region, mount)
        if removes:
            with tree_in(region) as tree:
                if tree is not None:
                    check_holders(tree)
                    about_to_lose(tree)
        remove_mount(mount, lazy=True)
        if removes and region is not None:
            region.remove()
    return True


def attempts() -> Iterator[None]:
    """Yields until a daemon that is about to serve, or to end, has had time to do so."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        yield


def taken_over(path: str) -> UserError:
    """The error for a stale mount whose region another process has locked."""
    owner = "another process"
    mount = mount_at(path)
    if mount is not None and mount.uid == os.geteuid():
        with region_of(mount) as region, tree_in(region) as tree:
            record = tree.daemon if tree is not None else None
            if record is not None and record.alive:
                owner = f"{command_of(record.pid)} (pid {record.pid})"
    return UserError(
        f"its daemon is dead, and {owner} has its region but does not serve it here: end that process first"
    )


def _was_served_at(region: RegionFile, mount: Mount) -> bool:
    """Whether the region belongs to this mount, and not to a bind-mounted tree or to an earlier mount."""
    if region.point != mount.path:
        return False
    with tree_in(region) as tree:
        record = daemon_record_of(tree)
        if record is not None:
            return record.mountpoint == mount.path
    return len(mounts_of_device(mount.device)) == 1


def _is_served_elsewhere(region: RegionFile, mount: Mount) -> bool:
    """Whether a daemon now serves the region at another mount point."""
    with tree_in(region) as tree:
        record = daemon_record_of(tree)
        return record is not None and record.alive and record.mountpoint != mount.path

"""fsmount umount: from outside the daemon, which may be dead."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator

from fsmount.admin.bounded import NoAnswer, bounded
from fsmount.admin.daemon_process import Daemon, command_of, daemon_of, describe_no_answer, is_served
from fsmount.admin.mount_table import (
    Mount,
    all_mounts,
    is_over_another,
    mount_at,
    mount_containing,
    mounts_of_device,
    opened_root,
)
from fsmount.admin.named_path import open_path
from fsmount.admin.region_file import RegionFile, ask_daemon, region_of, tree_in
from fsmount.admin.remove_mount import remove_mount
from fsmount.admin.user_error import UserError
from fsmount.errors import LockTimeout, says_daemon_is_lost
from fsmount.protocol.file_names import CHANNEL_FILE
from fsmount.shm import DaemonRecord, Tree

# How long a daemon whose mount is gone may take to end, in seconds: by itself, and when it was told to.
_GRACE = 1.0
_PATIENCE = 10.0

# Between two looks whether a region's lock is to be had.
_NAP = 0.02


def unmount(mountpoint: str, *, keep: bool, about_to_lose: Callable[[Tree], None]) -> None:
    """Unmounts, and returns when the daemon has ended.  UserError with live holders, unless their charges are kept.

    A bind mount is unmounted and nothing else: the tree goes on where it was mounted.  A tree that ends is shown to
    about_to_lose() first.
    """
    path = _real_path(mountpoint)
    for _ in _attempts():
        mount = mount_at(path)
        if mount is None or not mount.is_fsmount:
            raise UserError(_what_it_is(path, mount))
        if is_served(mount):
            _end(mount, keep, about_to_lose)
            if keep:
                _clear_all(path)  # the daemon may have been killed before it did so
            return
        if _clear(mount, keep, about_to_lose):
            return
    raise _taken_over(path)


def clear(mountpoint: str) -> None:
    """Unmounts what dead daemons left there; the counters stay."""
    _clear_all(_real_path(mountpoint))


def _real_path(mountpoint: str) -> str:
    try:
        with open_path(mountpoint) as place:
            return place.path
    except FileNotFoundError:
        raise UserError("there is no such directory") from None


def _clear_all(path: str) -> None:
    for _ in _attempts():
        mount = mount_at(path)
        if mount is None or not mount.is_fsmount or is_served(mount):
            return
        _clear(mount, keep=True, about_to_lose=lambda tree: None)
    raise _taken_over(path)


def _attempts() -> Iterator[None]:
    """Until a daemon that is about to serve, or about to end, should have done so."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        yield


def _taken_over(path: str) -> UserError:
    who = "another process"
    mount = mount_at(path)
    if mount is not None and mount.uid == os.geteuid():
        with region_of(mount) as region, tree_in(region) as tree:
            record = tree.daemon if tree is not None else None
            if record is not None and record.alive:
                who = f"{command_of(record.pid)} (pid {record.pid})"
    return UserError(f"its daemon is dead, but {who} has its region and does not serve it here: end that first")


def _end(mount: Mount, keep: bool, about_to_lose: Callable[[Tree], None]) -> None:
    """Of a mount that is served."""
    try:
        told = ask_daemon(mount)
    except NoAnswer:
        raise UserError(describe_no_answer(mount)) from None
    with (
        region_of(mount, told) as region,
        tree_in(region) as tree,
        daemon_of(mount, told.pid if told else 0) as daemon,
    ):
        if told is not None and _is_copy(mount, _record_of(tree), daemon):
            remove_mount(mount)
            return
        if keep:
            _ask_to_keep(mount)
        else:
            _check_copies(mount)
            if tree is not None:
                _check_holders(tree)
                about_to_lose(tree)
            remove_mount(mount)
        if daemon is not None:
            _await_end(daemon)


def _record_of(tree: Tree | None) -> DaemonRecord | None:
    try:
        return None if tree is None else tree.daemon
    except OSError:
        return None


def _is_copy(mount: Mount, record: DaemonRecord | None, daemon: Daemon | None) -> bool:
    """Whether it is a bind mount, or a copy in another mount namespace, of what a daemon that answers has mounted.

    The daemon's own mount is where the region says; or, if it was moved since, the last one in the daemon's namespace.
    """
    if mount.root != "/":
        return True
    if record is None:
        return daemon is None or not daemon.shares_mount
    if mount.path == record.mountpoint:
        return daemon is not None and not daemon.shares_mount
    return daemon is None or not daemon.is_in_this_namespace or len(mounts_of_device(mount.device)) > 1


def _check_copies(mount: Mount) -> None:
    """UserError if the tree is bound elsewhere too, where it would have no daemon any more.

    A mount that is unmounted there as soon as it is unmounted here does not matter.
    """
    peers = {other.id: other.peers for other in all_mounts()}
    above = peers.get(mount.parent, "")
    for other in mounts_of_device(mount.device):
        if other.id != mount.id and not (above and peers.get(other.parent) == above):
            raise UserError(f"busy: also mounted at {other.path}; unmount that first")


def _clear(mount: Mount, keep: bool, about_to_lose: Callable[[Tree], None]) -> bool:
    """Unmounts what a dead daemon left.  False: look again, since somebody takes the region over, or serves it below.

    It is done with the region's lock, without which nobody mounts there.
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
                if is_over_another(mount):  # which is served: it was there first, and nothing more will come
                    remove_mount(mount, lazy=True)
                    return False
                if not _is_served_elsewhere(region, mount):
                    time.sleep(_NAP)
                    return False
        removes = locked and not keep and region is not None and _was_served_at(region, mount)
        if removes:
            with tree_in(region) as tree:
                if tree is not None:
                    _check_holders(tree)
                    about_to_lose(tree)
        remove_mount(mount, lazy=True)
        if removes and region is not None:
            region.remove()
    return True


def _was_served_at(region: RegionFile, mount: Mount) -> bool:
    """Whether the region is the mount's own, and not of the tree that a bind mount shows or of an earlier mount."""
    if region.point != mount.path:
        return False
    with tree_in(region) as tree:
        record = _record_of(tree)
        if record is not None:
            return record.mountpoint == mount.path
    return len(mounts_of_device(mount.device)) == 1


def _is_served_elsewhere(region: RegionFile, mount: Mount) -> bool:
    """Whether a daemon by now serves the region at another mount point, where it is not our matter."""
    with tree_in(region) as tree:
        record = _record_of(tree)
        return record is not None and record.alive and record.mountpoint != mount.path


def _what_it_is(path: str, mount: Mount | None) -> str:
    if mount is not None:
        return f"not an fsmount mount but of type {mount.type}: use umount"
    tree = mount_containing(path)
    if tree is not None and tree.is_fsmount:
        return f"a group of a tree: name the mount point, {tree.path}"
    return "not an fsmount mount: nothing to do"


def _check_holders(tree: Tree) -> None:
    try:
        holders = [holder for holder in tree.holders() if holder.alive]
    except LockTimeout as error:
        keep = "or leave the counters to the next mount with --keep"
        raise UserError(f"{error.strerror}: continue or end it and unmount again, {keep}") from None
    except OSError:
        return  # a damaged region can be unmounted all the same
    processes = {holder.pid: holder.command for holder in holders}
    if processes:
        named = ", ".join(f"{command} (pid {pid})" for pid, command in sorted(processes.items())[:5])
        more = f" and {len(processes) - 5} more" if len(processes) > 5 else ""
        raise UserError(
            f"busy: charged by {named}{more}; end them, or leave the counters to the next mount with --keep"
        )


def _await_end(daemon: Daemon) -> None:
    """Returns when it has ended.  The mount lives on where a mount namespace was made while it was there."""
    if daemon.ends_within(_GRACE):
        return
    daemon.terminate()
    if not daemon.ends_within(_PATIENCE):
        raise UserError(f"unmounted, but its daemon (pid {daemon.pid}) goes on: end it with kill {daemon.pid}")


def _ask_to_keep(mount: Mount) -> None:
    if not mount.is_accessible:
        raise UserError(f"mounted by user {mount.uid}: unmount it as that user or as root")
    with opened_root(mount) as root:
        if root is None:
            return  # it is gone already
        try:
            bounded(lambda: _write(root, b"umount keep\n"), user=mount.owner, keep=[root])
        except PermissionError:
            raise UserError("its mode keeps you out, so its daemon cannot be told: chmod u+x it first") from None
        except OSError as error:
            if error.errno == errno.EROFS:
                raise UserError("mounted read-only, so its daemon cannot be told: unmount without --keep") from None
            if error.errno in (errno.EIO, errno.ETIMEDOUT):
                raise UserError(
                    "its region is damaged, so its daemon cannot be told: kill it and mount again"
                ) from None
            raise


def _write(root: int, command: bytes) -> None:
    """A command to the daemon, which may be gone before it has answered: then it has ended, as it was told to."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        try:
            control = os.open(CHANNEL_FILE, flags, dir_fd=root)
            stack.callback(os.close, control)
            if stat.S_ISREG(os.fstat(control).st_mode):
                os.write(control, command)
            stack.close()
        except OSError as error:
            if not says_daemon_is_lost(error):
                raise

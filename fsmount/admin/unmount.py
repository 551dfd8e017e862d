"""fsmount umount: unmounts from outside the daemon, which may be dead."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from fsmount.admin.bounded_child import NoAnswer, bounded
from fsmount.admin.daemon_process import (
    DaemonProcess,
    daemon_of,
    daemon_record_of,
    describe_no_answer,
    is_served,
)
from fsmount.admin.mount_table import (
    Mount,
    all_mounts,
    mount_at,
    mount_containing,
    mounts_of_device,
    opened_root,
)
from fsmount.admin.named_path import open_path
from fsmount.admin.region_file import ask_daemon, region_of, tree_in
from fsmount.admin.remove_mount import remove_mount
from fsmount.admin.stale_mount import attempts, clear_stale_mount, clear_stale_mounts, taken_over
from fsmount.admin.tree_removal import check_holders
from fsmount.admin.user_error import UserError
from fsmount.errors import says_daemon_is_lost
from fsmount.protocol.file_names import CHANNEL_FILE
from fsmount.shm import DaemonRecord, Tree

# The time in which a daemon ends after its mount is gone, and after SIGTERM, in seconds.
_GRACE = 1.0
_PATIENCE = 10.0


def unmount(mountpoint: str, *, keep: bool, about_to_lose: Callable[[Tree], None]) -> None:
    """Unmounts, and returns when the daemon has ended.  UserError with live holders, unless keep is set.

    For a bind mount, only the bind mount is removed and the tree stays mounted.  about_to_lose() is called with a tree
    before it ends.
    """
    path = _real_path(mountpoint)
    for _ in attempts():
        mount = mount_at(path)
        if mount is None or not mount.is_fsmount:
            raise UserError(_describe_other(path, mount))
        if is_served(mount):
            _end(mount, keep, about_to_lose)
            if keep:
                clear_stale_mounts(path)  # the daemon may have been killed before it unmounted
            return
        if clear_stale_mount(mount, keep, about_to_lose):
            return
    raise taken_over(path)


def clear(mountpoint: str) -> None:
    """Removes the mounts that dead daemons left there; the counters stay."""
    clear_stale_mounts(_real_path(mountpoint))


def _real_path(mountpoint: str) -> str:
    try:
        with open_path(mountpoint) as found:
            return found.path
    except FileNotFoundError:
        raise UserError("there is no such directory") from None


def _describe_other(path: str, mount: Mount | None) -> str:
    """The text of the error for a path that is not a mount point of fsmount."""
    if mount is not None:
        return f"not an fsmount mount but of type {mount.type}: use umount"
    tree = mount_containing(path)
    if tree is not None and tree.is_fsmount:
        return f"a group of a tree: name the mount point, {tree.path}"
    return "not an fsmount mount: nothing to do"


# ---- a mount whose daemon answers -------------------------------------------------------------------------------


def _end(mount: Mount, keep: bool, about_to_lose: Callable[[Tree], None]) -> None:
    try:
        answer = ask_daemon(mount)
    except NoAnswer:
        raise UserError(describe_no_answer(mount)) from None
    with (
        region_of(mount, answer) as region,
        tree_in(region) as tree,
        daemon_of(mount, answer.pid if answer else 0) as daemon,
    ):
        if answer is not None and _is_copy(mount, daemon_record_of(tree), daemon):
            remove_mount(mount)
            return
        if keep:
            _ask_to_keep(mount)
        else:
            _check_copies(mount)
            if tree is not None:
                check_holders(tree)
                about_to_lose(tree)
            remove_mount(mount)
        if daemon is not None:
            _await_end(daemon)


def _is_copy(mount: Mount, record: DaemonRecord | None, daemon: DaemonProcess | None) -> bool:
    """Whether this is a copy of the daemon's own mount: a bind mount, or a mount in another mount namespace.

    The region records the path of the daemon's own mount.  If that mount was moved since, the last mount in the
    daemon's namespace counts as its own.
    """
    if mount.root != "/":
        return True
    if record is None:
        return daemon is None or not daemon.shares_mount
    if mount.path == record.mountpoint:
        return daemon is not None and not daemon.shares_mount
    return daemon is None or not daemon.is_in_this_namespace or len(mounts_of_device(mount.device)) > 1


def _check_copies(mount: Mount) -> None:
    """UserError if the tree is also mounted elsewhere, where it would lose its daemon.

    A copy that the kernel unmounts together with this mount does not count.
    """
    peers = {other.id: other.peers for other in all_mounts()}
    above = peers.get(mount.parent, "")
    for other in mounts_of_device(mount.device):
        if other.id != mount.id and not (above and peers.get(other.parent) == above):
            raise UserError(f"busy: also mounted at {other.path}; unmount that first")


def _await_end(daemon: DaemonProcess) -> None:
    """Waits for the daemon's end.  A copy in another mount namespace can keep it alive: SIGTERM ends it then."""
    if daemon.ends_within(_GRACE):
        return
    daemon.terminate()
    if not daemon.ends_within(_PATIENCE):
        raise UserError(f"unmounted, but its daemon (pid {daemon.pid}) still runs: end it with kill {daemon.pid}")


def _ask_to_keep(mount: Mount) -> None:
    """Has the daemon unmount and leave its region."""
    if not mount.is_accessible:
        raise UserError(f"mounted by user {mount.uid}: unmount it as that user or as root")
    with opened_root(mount) as root:
        if root is None:
            return  # it is gone already
        try:
            bounded(lambda: _write(root, b"umount keep\n"), user=mount.owner, keep=[root])
        except PermissionError:
            raise UserError("its mode excludes you, so its daemon gets no command: chmod u+x it first") from None
        except OSError as error:
            if error.errno == errno.EROFS:
                raise UserError("mounted read-only, so its daemon gets no command: unmount without --keep") from None
            if error.errno in (errno.EIO, errno.ETIMEDOUT):
                raise UserError(
                    "its region is damaged, so its daemon gets no command: kill it and mount again"
                ) from None
            raise


def _write(root: int, command: bytes) -> None:
    """Writes a command to the control channel.  A daemon that ends before it answers has obeyed."""
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

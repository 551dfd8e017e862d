"""fsmount umount: from outside the daemon, which may be dead."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterator

from fsmount import region_path
from fsmount.control_files import CONTROL_FILE
from fsmount.daemon.claim import lock_region
from fsmount.daemon.mounts import Mount, command_of, is_over_another, mount_at, served, server_of
from fsmount.daemon.mounts import unmount as unmount_now
from fsmount.daemon.refused import Refused
from fsmount.errors import LockTimeout
from fsmount.tree import Tree

# How long a daemon whose mount is gone may take to end, in seconds: by itself, and when it was told to.
_GRACE = 1.0
_PATIENCE = 10.0

# Between two looks whether a region's lock is to be had.
_NAP = 0.02


def unmount(mountpoint: str, *, keep: bool) -> None:
    """Unmounts, and returns when the daemon has ended.  Refused with live holders, unless their charges are kept."""
    path = os.path.realpath(mountpoint)
    for _ in _attempts():
        mount = mount_at(path)
        if mount is None or not mount.ours:
            raise Refused(_what_it_is(path, mount))
        if served(mount):
            _end(mount, keep=keep)
            if keep:
                clear(path)  # the daemon may have been killed before it did so
            return
        if _clear(mount, keep=keep):
            return
    raise _taken_over(path)


def clear(path: str) -> None:
    """Unmounts what dead daemons left at this real path; the counters stay."""
    for _ in _attempts():
        mount = mount_at(path)
        if mount is None or not mount.ours or served(mount):
            return
        _clear(mount, keep=True)
    raise _taken_over(path)


def _attempts() -> Iterator[None]:
    """Until a daemon that is about to serve, or about to end, should have done so."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        yield


def _taken_over(path: str) -> Refused:
    server = server_of(region_path.find(path))
    who = f"{command_of(server.pid)} (pid {server.pid})" if server is not None and server.alive else "another process"
    return Refused(f"its daemon is dead, but {who} has its region and does not serve it here: end that first")


def _end(mount: Mount, *, keep: bool) -> None:
    """Of a mount that is served."""
    with _opened(region_path.find(mount.path, mount.uid)) as tree:
        if tree is not None and not keep:
            _check_holders(tree)
        with _daemon_of(tree, mount) as wait_for_daemon:
            if keep:
                _ask_to_keep(mount)
            else:
                unmount_now(mount)
            wait_for_daemon()


def _clear(mount: Mount, *, keep: bool) -> bool:
    """Unmounts what a dead daemon left.  False: look again, since somebody takes the region over, or serves it below.

    It is done by the path, where a new mount would be meant as well; so it is done with the region's lock, without
    which nobody mounts there.
    """
    region = region_path.find(mount.path, mount.uid)
    lock = -1
    with contextlib.suppress(Refused, FileNotFoundError):  # who would mount there is refused it too, or there is none
        try:
            lock = lock_region(region, mount.uid) if region is not None else -1
        except BlockingIOError:
            if is_over_another(mount):  # which is served: it was there first, and nothing more will come
                unmount_now(mount, lazy=True)
                return False
            server = server_of(region)
            if server is None or not server.alive or server.mountpoint == mount.path:
                time.sleep(_NAP)
                return False
            # it is served elsewhere by now, and not our matter
    try:
        if lock >= 0 and not keep:
            with _opened(region) as tree:
                if tree is not None:
                    _check_holders(tree)
        if mount_at(mount.path) == mount:
            unmount_now(mount, lazy=True)
        if lock >= 0 and not keep and region is not None:
            os.unlink(region)
            region_path.forget(mount.path, mount.uid)
    finally:
        if lock >= 0:
            os.close(lock)
    return True


def _what_it_is(path: str, mount: Mount | None) -> str:
    if mount is not None:
        return f"not an fsmount mount but of type {mount.type}: use umount"
    try:
        os.lstat(path)
    except FileNotFoundError:
        return "there is no such directory"
    return "not an fsmount mount: nothing to do"


@contextlib.contextmanager
def _opened(region: str | None) -> Iterator[Tree | None]:
    """The region's tree; None if there is none that can be used: its mount can be unmounted all the same."""
    try:
        tree = Tree.open(region) if region is not None else None
    except OSError:
        tree = None
    try:
        yield tree
    finally:
        if tree is not None:
            tree.close()


def _check_holders(tree: Tree) -> None:
    try:
        holders = [holder for holder in tree.holders() if holder.alive]
    except LockTimeout as error:
        keep = "or leave the counters to the next mount with --keep"
        raise Refused(f"{error.strerror}: continue or end it and unmount again, {keep}") from None
    except OSError:
        return  # a damaged region can be unmounted all the same
    processes = {holder.pid: holder.command for holder in holders}
    if processes:
        named = ", ".join(f"{command} (pid {pid})" for pid, command in sorted(processes.items())[:5])
        more = f" and {len(processes) - 5} more" if len(processes) > 5 else ""
        raise Refused(f"busy: charged by {named}{more}; end them, or leave the counters to the next mount with --keep")


@contextlib.contextmanager
def _daemon_of(tree: Tree | None, mount: Mount) -> Iterator[Callable[[], None]]:
    """Gives a function that returns when the process that serves the tree there now has ended."""
    process = -1
    pid = 0
    with contextlib.suppress(OSError):
        if tree is not None and (server := tree.server) is not None and server.mountpoint == mount.path:
            pid = server.pid
            process = os.pidfd_open(pid)
            if not server.alive:
                os.close(process)
                process = -1

    def wait() -> None:
        if process < 0 or _readable(process, _GRACE):
            return
        # the mount lives on where a mount namespace was made while it was there
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        if not _readable(process, _PATIENCE):
            raise Refused(f"unmounted, but its daemon (pid {pid}) goes on: end it with kill {pid}")

    try:
        yield wait
    finally:
        if process >= 0:
            os.close(process)


def _readable(process: int, seconds: float) -> bool:
    return bool(select.select([process], [], [], seconds)[0])


def _ask_to_keep(mount: Mount) -> None:
    try:
        control = os.open(os.path.join(mount.path, CONTROL_FILE), os.O_WRONLY | os.O_CLOEXEC)
    except PermissionError:
        if mount.uid == os.geteuid():
            raise Refused("its mode keeps you out, so its daemon cannot be told: chmod u+x it first") from None
        raise Refused(f"mounted by user {mount.uid}: unmount it as that user") from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise Refused("mounted read-only, so its daemon cannot be told: unmount without --keep") from None
        if error.errno in (errno.EIO, errno.ETIMEDOUT):
            raise Refused("its region is damaged, so its daemon cannot be told: kill that, and mount again") from None
        raise
    try:
        os.write(control, b"umount keep\n")
    finally:
        os.close(control)

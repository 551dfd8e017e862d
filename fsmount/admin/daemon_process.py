"""The identity of a mount's daemon: its process, and whether it answers."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fsmount.admin.bounded_child import NoAnswer, bounded
from fsmount.admin.mount_table import Mount, opened_root, parse, served_devices
from fsmount.admin.region_file import region_of
from fsmount.admin.user_error import UserError
from fsmount.errors import says_daemon_is_lost
from fsmount.installation import missing_engine

if TYPE_CHECKING:
    from fsmount.shm import DaemonRecord, Tree


class DaemonProcess:
    """The process that serves a mount, identified by a pidfd: the kernel may give its pid to another process."""

    def __init__(self, pid: int, process: int, mount: Mount) -> None:
        self.pid = pid
        self._process = process
        self._mount = mount

    def ends_within(self, seconds: float) -> bool:
        """Waits at most this long for its end; returns whether it has ended."""
        return bool(select.select([self._process], [], [], seconds)[0])

    def terminate(self) -> None:
        """Sends SIGTERM, if it still serves the mount."""
        with contextlib.suppress(OSError):
            if self.serves():
                signal.pidfd_send_signal(self._process, signal.SIGTERM)

    def serves(self) -> bool:
        """Whether it serves the mount and runs as the mount's user alone.

        /proc is read by pid.  If the process has not ended afterwards, the pid was its own all the time.
        """
        try:
            if _users(self.pid) != {self._mount.uid}:
                return False
            devices = served_devices(str(self.pid))
        except OSError:
            return False
        return (devices is None or self._mount.device in devices) and not self.ends_within(0)

    @property
    def is_in_this_namespace(self) -> bool:
        """Whether the daemon and this process share a mount namespace."""
        try:
            return os.readlink("/proc/self/ns/mnt") == os.readlink(f"/proc/{self.pid}/ns/mnt")
        except OSError:
            return False

    @property
    def shares_mount(self) -> bool:
        """Whether unmounting here also unmounts in the daemon's mount namespace."""
        return self.is_in_this_namespace or (self._mount.peers != "" and self._mount.peers in self._peers())

    def _peers(self) -> set[str]:
        """The peer groups in which its mount namespace has the file system mounted."""
        try:
            with open(f"/proc/{self.pid}/mountinfo", "rb") as file:
                return {mount.peers for mount in parse(file.read()) if mount.device == self._mount.device}
        except OSError:
            return set()


@contextlib.contextmanager
def daemon_of(mount: Mount, pid: int) -> Iterator[DaemonProcess | None]:
    """The daemon of a mount; None if it is unknown.

    pid: the process that the region or the daemon names; 0: none.  The mount's user can name any process, so a process
    counts as the daemon only if it serves the mount.
    """
    process = -1
    with contextlib.suppress(OSError, OverflowError):
        process = os.pidfd_open(pid) if pid > 0 else -1
    try:
        daemon = DaemonProcess(pid, process, mount) if process >= 0 else None
        yield daemon if daemon is not None and daemon.serves() else None
    finally:
        if process >= 0:
            os.close(process)


def is_served(mount: Mount) -> bool:
    """Whether the mount has a live daemon.  UserError if that daemon does not answer.

    statvfs() reaches the daemon, since the kernel does not cache its result.  It runs as the mount's user: without
    allow_other the kernel itself answers all other users, root included.
    """
    with opened_root(mount) as root:
        if root is None:
            return False  # unmounted, or out of reach
        try:
            bounded(lambda: len(os.statvfs(root)), user=mount.owner, keep=[root])
        except NoAnswer:
            raise UserError(describe_no_answer(mount)) from None
        except OSError as error:
            return not says_daemon_is_lost(error)
    return True


def describe_no_answer(mount: Mount) -> str:
    """The text of an error about a daemon that does not answer."""
    with region_of(mount) as region:
        record = daemon_record_in(None if region is None else region.content)
    with daemon_of(mount, record.pid if record else 0) as daemon:
        if daemon is None:
            return "its daemon does not answer: end the daemon and mount again"
        return f"its daemon (pid {daemon.pid}) does not answer: end it with kill -9 and mount again"


def daemon_record_in(region: str | None) -> DaemonRecord | None:
    """The daemon that the region at a path records; None if there is none, or the region cannot be read."""
    if region is None or missing_engine():
        return None
    from fsmount.shm import Tree

    try:
        with Tree.open(region) as tree:
            return tree.daemon
    except OSError:
        return None


def daemon_record_of(tree: Tree | None) -> DaemonRecord | None:
    """The daemon that the region of an open tree records."""
    try:
        return None if tree is None else tree.daemon
    except OSError:
        return None


def command_of(pid: int) -> str:
    """The command of a process, as ps shows it; "?" if the process is gone."""
    from fsmount.shm.holder import command_name

    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return command_name(file.read()[:-1]) or "?"
    except OSError:
        return "?"


def _users(pid: int) -> set[int]:
    """The real, effective, saved and file system user of a process."""
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file.read().split(b"\n"):
            if line.startswith(b"Uid:"):
                return set(map(int, line.split()[1:]))
    return set()

"""Which process serves a mount, and whether it answers."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator

from fsmount.admin.bounded import NoAnswer, bounded
from fsmount.admin.mount_table import Mount, opened_root, parse, served_devices
from fsmount.admin.region_file import region_of
from fsmount.admin.user_error import UserError
from fsmount.errors import says_daemon_is_lost
from fsmount.shm import DaemonRecord, Tree
from fsmount.shm.holder import command_name


class Daemon:
    """The process that serves a mount, by a pidfd: it is this one as long as the object is open."""

    def __init__(self, pid: int, process: int, mount: Mount) -> None:
        self.pid = pid
        self._process = process
        self._mount = mount

    def ends_within(self, seconds: float) -> bool:
        """Waits for its end."""
        return bool(select.select([self._process], [], [], seconds)[0])

    def terminate(self) -> None:
        """Asks it to end, if it still is what it was."""
        with contextlib.suppress(OSError):
            if self.serves():
                signal.pidfd_send_signal(self._process, signal.SIGTERM)

    def serves(self) -> bool:
        """Whether it serves the mount, as its user and nobody else.

        Looked at through its pid, which is its own as long as it has not ended.
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
        """Whether it sees the mounts that this process sees."""
        try:
            return os.readlink("/proc/self/ns/mnt") == os.readlink(f"/proc/{self.pid}/ns/mnt")
        except OSError:
            return False

    @property
    def shares_mount(self) -> bool:
        """Whether the mount is its own, or one that is unmounted there when it is unmounted here."""
        return self.is_in_this_namespace or (self._mount.peers != "" and self._mount.peers in self._peers())

    def _peers(self) -> set[str]:
        """The peer groups in which its mount namespace has the file system mounted."""
        try:
            with open(f"/proc/{self.pid}/mountinfo", "rb") as file:
                return {mount.peers for mount in parse(file.read()) if mount.device == self._mount.device}
        except OSError:
            return set()


@contextlib.contextmanager
def daemon_of(mount: Mount, pid: int) -> Iterator[Daemon | None]:
    """The daemon of a mount; None if it cannot be told.

    pid: the process that the region, or the daemon itself, names; 0: none.  Its user may name any: that is only where
    to look.
    """
    process = -1
    with contextlib.suppress(OSError, OverflowError):
        process = os.pidfd_open(pid) if pid > 0 else -1
    try:
        daemon = Daemon(pid, process, mount) if process >= 0 else None
        yield daemon if daemon is not None and daemon.serves() else None
    finally:
        if process >= 0:
            os.close(process)


def is_served(mount: Mount) -> bool:
    """Whether a daemon answers for the mount.  UserError if there is one that does not answer.

    Only a question that the kernel cannot answer from its caches tells.  For its user alone: the kernel itself answers
    all others, root too, unless the mount has allow_other.
    """
    with opened_root(mount) as root:
        if root is None:
            return False  # it is gone, or out of reach
        try:
            bounded(lambda: len(os.statvfs(root)), user=mount.owner, keep=[root])
        except NoAnswer:
            raise UserError(describe_no_answer(mount)) from None
        except OSError as error:
            return not says_daemon_is_lost(error)
    return True


def describe_no_answer(mount: Mount) -> str:
    """Says of a daemon that does not answer which it is, and what to do."""
    with region_of(mount) as region:
        record = daemon_record_in(None if region is None else region.content)
    with daemon_of(mount, record.pid if record else 0) as daemon:
        if daemon is None:
            return "its daemon does not answer: end that and mount again"
        return f"its daemon (pid {daemon.pid}) does not answer: end it with kill -9 and mount again"


def daemon_record_in(region: str | None) -> DaemonRecord | None:
    """The process that a region names as its daemon, now or last; None if that cannot be told."""
    if region is None:
        return None
    try:
        with Tree.open(region) as tree:
            return tree.daemon
    except OSError:
        return None


def command_of(pid: int) -> str:
    """The command of a process as ps shows it; "?" if it is gone."""
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

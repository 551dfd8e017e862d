"""The processes that keep a mount busy, as far as the caller may see them.

A process is found by the mount ids and devices that the kernel reports for its files, never by their paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fsmount.admin.bounded_child import NoAnswer, bounded
from fsmount.admin.daemon_process import command_of
from fsmount.admin.mount_table import Mount, all_mounts, mount_id

_UNKNOWN_USER = "some process has an open file or its current directory there; end it, or close the file"


def describe_users(mount: Mount) -> str:
    """The text of an error about a busy mount: the processes, and what to do."""
    inner = [other.path for other in all_mounts() if other.parent == mount.id]
    if inner:
        return f"{inner[-1]} is mounted in it; unmount that first"
    own = os.getpid()
    try:
        users = bounded(lambda: list(_users(mount, own)))  # a process can make reads of its /proc files block
    except (NoAnswer, OSError):
        users = []
    if not users:
        return _UNKNOWN_USER
    more = f" and {len(users) - 5} more" if len(users) > 5 else ""
    return f"{', '.join(users[:5])}{more}; end them, or have them leave"


def _users(mount: Mount, own: int) -> Iterator[str]:
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid not in (own, os.getpid()) and (use := _use(pid, mount)):
            yield f"{command_of(pid)} (pid {pid}) {use}"


def _use(pid: int, mount: Mount) -> str | None:
    if _leads_there(f"/proc/{pid}/cwd", mount):
        return "has its current directory there"
    if _leads_there(f"/proc/{pid}/root", mount):
        return "has its root directory there"
    if any(f"\nmnt_id:\t{mount.id}\n".encode() in text for text in _open_files(pid)):
        return "has a file open there"
    return "is attached to it" if mount.device in _mapped_devices(pid) else None


def _leads_there(link: str, mount: Mount) -> bool:
    try:
        descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return mount_id(descriptor) == mount.id
    finally:
        os.close(descriptor)


def _open_files(pid: int) -> Iterator[bytes]:
    try:
        for number in os.listdir(f"/proc/{pid}/fdinfo"):
            yield _read(f"/proc/{pid}/fdinfo/{number}")
    except OSError:
        return


def _mapped_devices(pid: int) -> Iterator[str]:
    """The devices of the files that a process has mapped; an attached process maps its control channel."""
    for line in _read(f"/proc/{pid}/maps").split(b"\n"):
        fields = line.split(None, 4)
        if len(fields) >= 4:
            major, _, minor = fields[3].partition(b":")
            yield f"{int(major, 16)}:{int(minor, 16)}"


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""

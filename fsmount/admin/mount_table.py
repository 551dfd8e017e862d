"""The kernel's table of mounts, and the mount that a descriptor is on.

A path can lead to another mount at any time.  So a mount is identified by its id, and every operation on it goes
through a descriptor whose mount id was compared.  Only opened_root() calls into a mounted file system.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fsmount.admin.bounded_child import NoAnswer, User, bounded_files

FILE_SYSTEM_TYPE = "fuse.fsmount"


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo."""

    id: int
    parent: int
    device: str
    root: str  # the mounted part of the file system: "/", or a directory for a bind mount
    path: str
    peers: str  # its peer group, "shared:N"; empty if there is none
    type: str
    uid: int  # the user and group of its daemon
    gid: int

    @property
    def is_fsmount(self) -> bool:
        """Whether its type is fsmount's.  Any user can run another daemon with this type."""
        return self.type == FILE_SYSTEM_TYPE

    @property
    def is_fuse(self) -> bool:
        """Whether it is a FUSE mount, which a process serves."""
        return self.type in ("fuse", "fuseblk") or self.type.startswith(("fuse.", "fuseblk."))

    @property
    def owner(self) -> User | None:
        """The user for bounded() to act as; None: the caller is that user, or may not become it."""
        return User(self.uid, self.gid) if os.geteuid() == 0 != self.uid else None

    @property
    def is_accessible(self) -> bool:
        """Whether the caller may act as its user."""
        return os.geteuid() in (0, self.uid)


def all_mounts() -> list[Mount]:
    """The mounts of this process's mount namespace."""
    with open("/proc/self/mountinfo", "rb") as file:
        return parse(file.read())


def parse(mountinfo: bytes) -> list[Mount]:
    """The mounts in the text of a /proc/PID/mountinfo; malformed lines are skipped.

    The kernel escapes only space, tab, newline and backslash.
    """
    found = []
    for line in mountinfo.split(b"\n"):
        with contextlib.suppress(ValueError, IndexError):
            found.append(_mount(line.split(b" ")))
    return found


def _mount(fields: list[bytes]) -> Mount:
    separator = fields.index(b"-", 6)
    kind, _source, options = fields[separator + 1 : separator + 4]
    given = dict(option.partition(b"=")[::2] for option in options.split(b","))
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2].decode("ascii"),
        root=_decoded(fields[3]),
        path=_decoded(fields[4]),
        peers=next((os.fsdecode(field) for field in fields[6:separator] if field.startswith(b"shared:")), ""),
        type=_decoded(kind),
        uid=int(given.get(b"user_id", b"0")),
        gid=int(given.get(b"group_id", b"0")),
    )


def _decoded(text: bytes) -> str:
    """Undoes the octal escapes of the kernel."""
    return os.fsdecode(re.sub(rb"\\([0-3][0-7]{2})", lambda match: bytes([int(match[1], 8)]), text))


def mount_at(path: str, mounts: list[Mount] | None = None) -> Mount | None:
    """The topmost mount at this real path, among the given mounts or among all."""
    mount = mount_containing(path, mounts)
    return mount if mount is not None and mount.path == path else None


def mount_containing(path: str, mounts: list[Mount] | None = None) -> Mount | None:
    """The mount that this real path leads into, found as the kernel finds it: mount by mount along the path."""
    mounts = all_mounts() if mounts is None else mounts
    known = {mount.id for mount in mounts}
    here: Mount | None = None
    ahead = [mount for mount in mounts if mount.parent not in known or mount.parent == mount.id]
    while on_the_way := [mount for mount in ahead if is_below(path, mount.path)]:
        entered = here = min(on_the_way, key=lambda mount: len(mount.path))
        ahead = [mount for mount in mounts if mount.parent == entered.id != mount.id]
    return here


def is_below(path: str, directory: str) -> bool:
    """Whether a real path is the directory or below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def mount_of(descriptor: int) -> Mount | None:
    """The mount that an open file is on, in this process's mount namespace."""
    number = mount_id(descriptor)
    return next((mount for mount in all_mounts() if mount.id == number), None)


def mount_id(descriptor: int) -> int:
    """The id of the mount that an open file is on; no other mount gets this id while the file is open."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        return _number_in(file.read(), b"mnt_id")


def _number_in(fdinfo: bytes, name: bytes) -> int:
    """A number in the text of /proc/PID/fdinfo/FD; -1 if it is absent."""
    found = re.search(rb"^%s:\t(\d+)$" % name, fdinfo, re.MULTILINE)
    return int(found[1]) if found else -1


def served_devices(process: str = "self") -> set[str] | None:
    """The devices of the FUSE mounts that a process serves; None: unknown to the kernel (before Linux 6.16)."""
    connections = set()
    for number in os.listdir(f"/proc/{process}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{process}/fd/{number}") == "/dev/fuse":
                with open(f"/proc/{process}/fdinfo/{number}", "rb") as file:
                    connections.add(_number_in(file.read(), b"fuse_connection"))
    if connections == {-1}:
        return None
    return {f"{number >> 20}:{number & 0xFFFFF}" for number in connections - {-1}}


def mounts_of_device(device: str) -> list[Mount]:
    """All mounts of a file system or a part of it."""
    return [mount for mount in all_mounts() if mount.device == device]


def mount_points_of_user(uid: int) -> list[str]:
    """The mount points of a user's fsmount mounts."""
    return sorted({mount.path for mount in all_mounts() if mount.is_fsmount and mount.uid == uid})


def is_over_another(mount: Mount) -> bool:
    """Whether it covers another fsmount mount."""
    return any(other.id == mount.parent and other.path == mount.path and other.is_fsmount for other in all_mounts())


@contextlib.contextmanager
def opened_root(mount: Mount) -> Iterator[int | None]:
    """A descriptor of the root of this very mount; None: the mount is out of reach.

    The mount stays busy while the descriptor is open.
    """
    try:
        _, (descriptor,) = bounded_files(lambda: (None, [open_root(mount)]))
    except (OSError, NoAnswer):
        yield None
        return
    try:
        yield descriptor if is_root_of(mount, descriptor) else None
    finally:
        os.close(descriptor)


def open_root(mount: Mount) -> int:
    """A descriptor of the directory at the mount's path; is_root_of() checks that it is the mount."""
    return os.open(mount.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def is_root_of(mount: Mount, descriptor: int) -> bool:
    """Whether a descriptor is of the root of this very mount."""
    return mount_id(descriptor) == mount.id and os.readlink(f"/proc/self/fd/{descriptor}") == mount.path

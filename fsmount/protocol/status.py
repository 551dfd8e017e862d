"""The status of a mount: the hidden file `.fsmount.status` of each of its directories, a JSON object.

    daemon      pid, uid, since (seconds of the epoch) and version of the process that serves the mount
    mountpoint  where that process has mounted it
    region      path, size and allocated bytes
    resources   the unit of each
    capacity    of each kind of thing: capacity, used, and largest, the users who have the most
    share       uid: the user whose share is charged for requests of the reader in this directory; used_up: the kinds
                of which that user gets no more, and how many the user has

Any user can run a daemon that writes any text, so the reader refuses a text of another form.
"""

from __future__ import annotations

import json
import os
import pwd
from typing import NamedTuple

from fsmount.protocol.file_names import STATUS_FILE

_TEXT_MAX = 1 << 20


class Daemon(NamedTuple):
    pid: int
    uid: int
    since: float
    version: str


class Region(NamedTuple):
    path: str
    size: int
    allocated: int


class Capacity(NamedTuple):
    """One kind of thing: its capacity, how many are used, and the users with the most, each with a number."""

    capacity: int
    used: int
    largest: list[tuple[int, int]]


class Status(NamedTuple):
    daemon: Daemon
    mountpoint: str
    region: Region
    resources: dict[str, str]
    capacity: dict[str, Capacity]
    share: int
    used_up: dict[str, int]


def read_status(directory: int | None, path: str = ".") -> Status:
    """The status of the mount at a path; a relative path begins at the descriptor `directory`.

    OSError.  ValueError: the text has another form.
    """
    descriptor = os.open(os.path.join(path, STATUS_FILE), os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        text = b""
        while len(text) <= _TEXT_MAX and (piece := os.read(descriptor, _TEXT_MAX)):
            text += piece
    finally:
        os.close(descriptor)
    return parse_status(text)


def parse_status(text: bytes) -> Status:
    """The status in a text.  ValueError: the text has another form."""
    try:
        fields = json.loads(text)
        daemon, region, share = fields["daemon"], fields["region"], fields["share"]
        return Status(
            Daemon(int(daemon["pid"]), int(daemon["uid"]), float(daemon["since"]), str(daemon["version"])),
            str(fields["mountpoint"]),
            Region(str(region["path"]), int(region["size"]), int(region["allocated"])),
            {str(name): str(unit) for name, unit in fields["resources"].items()},
            {str(kind): _capacity(found) for kind, found in fields["capacity"].items()},
            int(share["uid"]),
            {str(what): int(held) for what, held in share["used_up"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError("this is not the status of an fsmount mount") from None


def _capacity(found: dict[str, object]) -> Capacity:
    largest = found["largest"]
    if not isinstance(largest, list):
        raise TypeError
    users = [(int(user["uid"]), int(user["used"])) for user in largest]
    return Capacity(int(str(found["capacity"])), int(str(found["used"])), users)


def share_used_up(directory: str) -> str | None:
    """The error text about the user whose share is used up in a group; None if no share is used up."""
    try:
        status = read_status(None, directory)
    except (OSError, ValueError):
        return None
    if not status.used_up:
        return None
    held = " and ".join(f"{used} {kind.replace('_', ' ')}" for kind, used in status.used_up.items())
    return f"the share of user {user_name(status.share)} is used up: it has {held}; see fsmount status"


def user_name(uid: int) -> str:
    """The name of a user, or the number if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)

"""From what a user names, a mount point or a region, to the tree: whether somebody serves it or not."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from fsmount import region_path
from fsmount.control_files import CONTROL_FILE
from fsmount.daemon.mounts import mount_at, mounts_of
from fsmount.daemon.refused import Refused
from fsmount.errors import LockTimeout, RegionCorrupt
from fsmount.tree import Tree


@contextlib.contextmanager
def opened(place: str) -> Iterator[Tree]:
    """The tree at a mount point or in a region.  Refused if it cannot be used, here or in the block."""
    region = _region(place)
    try:
        with Tree.open(region) as tree:
            yield tree
    except RegionCorrupt as error:
        raise Refused(f"the region {region} is damaged: {error.found}; fsmount doctor --repair may mend it") from None
    except LockTimeout as error:
        raise Refused(f"{error.strerror}: continue or end it, and try again") from None
    except OSError as error:
        if error.filename != region:
            raise
        raise Refused(f"the region {region} cannot be used: {error.strerror}{_advice(error)}") from None


def is_place(path: str) -> bool:
    """Whether a tree can be mounted there, or is."""
    mount = mount_at(os.path.realpath(path))
    return mount is not None or os.path.isdir(path)


def only_mount() -> str:
    """Where the caller has his one mount.  Refused if he has none, or several."""
    found = mounts_of(os.geteuid())
    if not found:
        raise Refused("you have no fsmount mount: name a mount point or a region")
    if len(found) > 1:
        raise Refused(f"you have several fsmount mounts, {', '.join(found)}: name one")
    return found[0]


def _region(place: str) -> str:
    path = os.path.realpath(place)
    mount = mount_at(path)
    if mount is not None and mount.ours:
        region = region_path.find(path, mount.uid)
        if region is None:
            raise Refused(f"the region of this mount, of user {mount.uid}, is not to be found: name the region itself")
        return region
    if mount is None and os.path.isdir(path):
        region = region_path.find(path)
        if region is None and os.path.exists(os.path.join(path, CONTROL_FILE)):
            raise Refused("a group of a tree: name the mount point")
        if region is None:
            raise Refused("nothing of fsmount is mounted there, and it has no counters from before")
        return region
    if mount is not None:
        raise Refused(f"not an fsmount mount but of type {mount.type}")
    try:
        os.lstat(path)
    except FileNotFoundError:
        raise Refused("there is no such mount point or region") from None
    return path


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return "; ask its owner or root"
        case errno.EPROTO:
            return "; use the version of fsmount that made it, or remove it to begin anew"
    return ""

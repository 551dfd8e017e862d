"""From what a user names, a mount point or a region, to the tree: whether somebody serves it or not."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from fsmount.admin import region_path
from fsmount.admin.bounded import NoAnswer
from fsmount.admin.daemon_process import describe_no_answer
from fsmount.admin.mount_table import Mount, mount_points_of_user
from fsmount.admin.named_path import OpenPath, open_path
from fsmount.admin.region_file import ask_daemon, open_region_file, region_of
from fsmount.admin.user_error import UserError
from fsmount.errors import LockTimeout, RegionCorrupt
from fsmount.shm import Tree


class _Found(NamedTuple):
    """A region: its path for people, one that leads to the very file, and its tree's id if that is known."""

    path: str
    content: str
    tree_id: int | None = None


@contextlib.contextmanager
def open_tree(path: str) -> Iterator[Tree]:
    """The tree at a mount point, in a region, or bound elsewhere.

    UserError if it cannot be used, here or in the block.

    The daemon of a mount tells where its region is, so it does not matter where the mount is seen.
    """
    with _place(path) as place, _region(place) as region:
        try:
            with Tree.open(region.content) as tree:
                tree.path = region.path
                if region.tree_id not in (None, tree.id):
                    raise UserError(f"its region {region.path} is out of reach: another mount namespace has it")
                yield tree
        except RegionCorrupt as error:
            text = f"the region {region.path} is damaged: {error.found}; fsmount doctor --repair may mend it"
            raise UserError(text) from None
        except LockTimeout as error:
            raise UserError(f"{error.strerror}: continue or end it, and try again") from None
        except OSError as error:
            if error.filename not in (region.path, region.content):
                raise
            raise UserError(f"the region {region.path} cannot be used: {error.strerror}{_advice(error)}") from None


def may_be_mount_point(path: str) -> bool:
    """Whether a tree can be mounted there, or is."""
    try:
        with open_path(path) as place:
            return place.is_mount or place.is_directory
    except (OSError, UserError):
        return False


def only_mount() -> str:
    """Where the caller has the only mount of this user.  UserError if there is none, or if there are several."""
    found = mount_points_of_user(os.geteuid())
    if not found:
        raise UserError("you have no fsmount mount: name a mount point or a region")
    if len(found) > 1:
        raise UserError(f"you have several fsmount mounts, {', '.join(found)}: name one")
    return found[0]


@contextlib.contextmanager
def _place(path: str) -> Iterator[OpenPath]:
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(open_path(path))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError("there is no such mount point or region") from None
        yield place


def _region(place: OpenPath) -> contextlib.AbstractContextManager[_Found]:
    mount = place.mount
    if mount is not None and mount.is_fsmount:
        if not place.is_mount:
            raise UserError("a group of a tree: name the mount point")
        return _of_mount(mount)
    if place.is_directory:
        return _from_before(place)
    return contextlib.nullcontext(_of_file(place))


@contextlib.contextmanager
def _of_mount(mount: Mount) -> Iterator[_Found]:
    if not mount.is_accessible:
        raise UserError(f"the region of this mount belongs to user {mount.uid}: ask that user or root")
    try:
        told = ask_daemon(mount)
    except NoAnswer:
        raise UserError(describe_no_answer(mount)) from None
    with region_of(mount, told) as region:
        if region is None:
            raise UserError(
                f"the region of this mount, of user {mount.uid}, is not to be found: name the region itself"
            )
        yield _Found(region.path, region.content, region.tree_id)


@contextlib.contextmanager
def _from_before(place: OpenPath) -> Iterator[_Found]:
    """The region that an earlier mount there has left."""
    path = region_path.find(place.path)
    if path is None:
        if place.mount is not None and place.is_mount:
            raise UserError(f"not an fsmount mount but of type {place.mount.type}")
        raise UserError("nothing of fsmount is mounted there, and it has no counters from before")
    directory, file = open_region_file(path, os.geteuid())
    try:
        yield _Found(path, f"/proc/self/fd/{file}")
    finally:
        os.close(directory)
        os.close(file)


def _of_file(place: OpenPath) -> _Found:
    """A region that is named itself."""
    if not stat.S_ISREG(place.status().st_mode):
        raise UserError("neither a mount point nor a region")
    if place.mount is not None and place.mount.is_fuse and place.mount.uid != os.geteuid():
        raise UserError(f"in a file system of user {place.mount.uid}, who could keep it from being read: copy it first")
    return _Found(place.path, f"/proc/self/fd/{place.descriptor}")


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return "; ask its owner or root"
        case errno.EPROTO:
            return "; use the version of fsmount that made it, or remove it to begin anew"
    return ""

"""The tree that a user names by a mount point or a region, with or without a daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from fsmount.admin import region_path
from fsmount.admin.bounded_child import NoAnswer
from fsmount.admin.daemon_process import describe_no_answer
from fsmount.admin.mount_table import Mount, mount_points_of_user
from fsmount.admin.named_path import OpenPath, open_path
from fsmount.admin.region_file import ask_daemon, open_region_file, region_of
from fsmount.admin.user_error import UserError
from fsmount.errors import LockTimeout, RegionCorrupt

if TYPE_CHECKING:
    from fsmount.shm import Tree


class _Found(NamedTuple):
    """An open region file."""

    path: str  # for messages
    content: str  # leads to the open file
    tree_id: int | None = None  # the id of the tree that the daemon serves; None: unknown


@contextlib.contextmanager
def open_tree(path: str) -> Iterator[Tree]:
    """The tree of a mount point, a bind mount or a region.  UserError if it cannot be used, here or in the block.

    The daemon of a mount names its region, so the path of the mount does not matter.
    """
    from fsmount.shm import Tree

    with _existing(path) as found, _region(found) as region:
        try:
            with Tree.open(region.content) as tree:
                tree.path = region.path
                if region.tree_id not in (None, tree.id):
                    raise UserError(f"its region {region.path} is in another mount namespace: run the command there")
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
    """Whether a path is a directory or a mount point."""
    try:
        with open_path(path) as found:
            return found.is_mount or found.is_directory
    except (OSError, UserError):
        return False


def only_mount() -> str:
    """The mount point of this user's only fsmount mount.  UserError if there is none, or if there are several."""
    found = mount_points_of_user(os.geteuid())
    if not found:
        raise UserError("you have no fsmount mount: name a mount point or a region")
    if len(found) > 1:
        raise UserError(f"you have several fsmount mounts, {', '.join(found)}: name one")
    return found[0]


@contextlib.contextmanager
def _existing(path: str) -> Iterator[OpenPath]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(open_path(path))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError("there is no such mount point or region") from None
        yield found


def _region(found: OpenPath) -> contextlib.AbstractContextManager[_Found]:
    mount = found.mount
    if mount is not None and mount.is_fsmount:
        if not found.is_mount:
            raise UserError("a group of a tree: name its mount point")
        return _of_mount(mount)
    if found.is_directory:
        return _of_directory(found)
    return contextlib.nullcontext(_of_file(found))


@contextlib.contextmanager
def _of_mount(mount: Mount) -> Iterator[_Found]:
    if not mount.is_accessible:
        raise UserError(f"the region of this mount belongs to user {mount.uid}: ask that user or root")
    try:
        answer = ask_daemon(mount)
    except NoAnswer:
        raise UserError(describe_no_answer(mount)) from None
    with region_of(mount, answer) as region:
        if region is None:
            raise UserError(f"the region of this mount, of user {mount.uid}, is out of reach: name the region itself")
        yield _Found(region.path, region.content, region.tree_id)


@contextlib.contextmanager
def _of_directory(found: OpenPath) -> Iterator[_Found]:
    """The region that an earlier mount at a directory has left."""
    path = region_path.find(found.path)
    if path is None:
        if found.mount is not None and found.is_mount:
            raise UserError(f"not an fsmount mount but of type {found.mount.type}")
        raise UserError("no fsmount mount, and no counters of an earlier mount: name another, or mount there")
    directory, file = open_region_file(path, os.geteuid())
    try:
        yield _Found(path, f"/proc/self/fd/{file}")
    finally:
        os.close(directory)
        os.close(file)


def _of_file(found: OpenPath) -> _Found:
    """A region named by its own path."""
    if not stat.S_ISREG(found.status().st_mode):
        raise UserError("neither a mount point nor a region: name one")
    if found.mount is not None and found.mount.is_fuse and found.mount.uid != os.geteuid():
        raise UserError(f"in a file system of user {found.mount.uid}, whose daemon could block the read: copy it first")
    return _Found(found.path, f"/proc/self/fd/{found.descriptor}")


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return "; ask its owner or root"
        case errno.EPROTO:
            return "; use the version of fsmount that made it, or remove it to start with new counters"
    return ""

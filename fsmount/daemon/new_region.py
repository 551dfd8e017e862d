"""Creating a region.

A region is made under a name of its own and linked to its path when it is complete, so a creator that is killed leaves
no incomplete region at that path.  The creator locks it before the link: no other daemon can have served it.  A file
that a dead creator left is unlocked, and the next creator removes it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets

from fsmount import config
from fsmount.admin import region_path
from fsmount.admin.region_lock import lock_region
from fsmount.admin.user_error import UserError
from fsmount.daemon.mount_request import MountRequest
from fsmount.shm import Tree


def create_region(path: str, request: MountRequest) -> int | None:
    """Creates the region; returns a descriptor that locks it, or None if another process was faster."""
    for abandoned in glob.glob(f"{glob.escape(path)}.new-*"):
        _remove_abandoned(abandoned)
    try:
        return _create(path, request)
    except (FileExistsError, BlockingIOError):
        return None
    except FileNotFoundError:
        # the next creator has removed the file, or the end of another mount the directory that was empty
        if not os.path.isdir(os.path.dirname(path)) and region_path.place(request.mountpoint) != path:
            raise UserError(
                f"the directory of the region {path} was removed: mkdir it, or name another --region"
            ) from None
        return None
    except (OSError, ValueError) as error:
        region_path.forget(request.mountpoint)
        if isinstance(error, ValueError):
            raise UserError(str(error)) from None
        where = f" ({os.fsdecode(error.filename)})" if request.config is not None and error.filename is not None else ""
        raise UserError(f"the region {path} cannot be created: {error.strerror}{where}") from None


def _create(path: str, request: MountRequest) -> int:
    new = f"{path}.new-{secrets.token_hex(8)}"
    with Tree.create(new, **request.creation()) as tree:
        lock = -1
        try:
            lock = lock_region(new)
            if request.config is not None:
                config.build(tree, request.config)
            os.link(new, path)
        except BaseException:
            if lock >= 0:
                os.close(lock)
            raise
        finally:
            os.unlink(new)
    return lock


def _remove_abandoned(path: str) -> None:
    """Removes an incomplete region, unless its creator still has the lock."""
    with contextlib.suppress(OSError, UserError):
        lock = lock_region(path)
        os.unlink(path)
        os.close(lock)

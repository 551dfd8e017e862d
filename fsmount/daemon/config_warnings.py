"""Warnings of a mount whose --config file differs from the counters that the mount adopts."""

from __future__ import annotations

import shlex
from itertools import islice

from fsmount import config
from fsmount.daemon.mount_request import MountRequest
from fsmount.shm import Tree

#: The largest number of differences that are named, and that are counted.
_NAMED = 5
_COUNTED = 1000


def config_warnings(request: MountRequest, tree: Tree) -> list[str]:
    """A line for each of the first differences, and one with advice; none if the tree is as the file says."""
    if request.config is None:
        return []
    found = list(islice(config.differences(request.config, tree, request.mountpoint), _COUNTED))
    if not found:
        return []
    number = f"{len(found)} or more differences" if len(found) == _COUNTED else f"{len(found)} differences"
    count = "one difference" if len(found) == 1 else number
    umount = f"fsmount umount {shlex.quote(request.mountpoint)}"
    return [
        *map(str, found[:_NAMED]),
        f"{request.config_path} applies to new counters only, and the existing ones stay, with {count}: "
        f"run the commands above, or remove the counters with {umount} and mount again",
    ]

"""The warning of a mount whose --config file does not describe the counters that it takes over."""

from __future__ import annotations

import shlex
from itertools import islice

from fsmount import config
from fsmount.daemon.mount_request import MountRequest
from fsmount.shm import Tree

#: How many differences are named.
_NAMED = 5
#: How many are counted.
_COUNTED = 1000


def config_warnings(request: MountRequest, tree: Tree) -> list[str]:
    """A line for each of the first differences and one that says what to do; none if nothing differs."""
    if request.config is None:
        return []
    found = list(islice(config.differences(request.config, tree, request.mountpoint), _COUNTED))
    if not found:
        return []
    number = f"{len(found)} or more differences" if len(found) == _COUNTED else f"{len(found)} differences"
    count = "one difference" if len(found) == 1 else number
    begin = f"fsmount umount {shlex.quote(request.mountpoint)}"
    return [
        *map(str, found[:_NAMED]),
        f"{request.config_path} is for new counters, and those from before stay as they are, with {count}: "
        f"change them with the commands given, or end them with {begin} and start again",
    ]

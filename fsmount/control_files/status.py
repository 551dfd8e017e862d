"""The hidden file `.fsmount.status`: who serves the mount, what it has room for, and whose share of it is used up.

Every directory has one, and no directory lists it.  Everybody may read it; status.py tells what is in it, and reads it.
It is made outside the event loop: there may be as many users as groups.
"""

import json
import os
from collections.abc import Hashable, Iterator
from typing import ClassVar

from pyfuse3 import RequestContext

from fsmount.control_files.long_file import LongFile, MakeText
from fsmount.filesystem.shares import Shares
from fsmount.shm import Group
from fsmount.version import __version__


class StatusFile(LongFile):
    """An open `.fsmount.status`, of the user who opened it.  since: when the daemon began, in seconds of the epoch."""

    timed: ClassVar[bool] = False

    __slots__ = ("_account", "_shares", "_since")

    def __init__(self, group: Group, inode: int, flags: int, ctx: RequestContext, shares: Shares, since: float) -> None:
        super().__init__(group, inode, flags)
        self._account = shares.account(group, ctx.uid)
        self._shares = shares
        self._since = since

    def key(self) -> Hashable:
        return StatusFile, self.group.id, self._account.uid, self._account.limited

    def text(self) -> bytes:
        raise MakeText

    def parts(self) -> Iterator[bytes]:
        self._shares.refresh()
        tree = self.group.tree
        region = os.fstat(tree.region.fd)
        daemon = tree.daemon
        about = {
            "daemon": {
                "pid": os.getpid(),
                "uid": os.geteuid(),
                "since": self._since,
                "version": __version__,
            },
            "mountpoint": daemon.mountpoint if daemon else "",
            "region": {"path": tree.path, "size": region.st_size, "allocated": region.st_blocks * 512},
            "resources": tree.resources,
            "capacity": {
                what: {"capacity": room, "used": used, "largest": [{"uid": uid, "used": held} for uid, held in largest]}
                for what, (room, used, largest) in self._shares.report().items()
            },
            "share": {"uid": self._account.uid, "used_up": self._used_up(len(tree.resources))},
        }
        yield json.dumps(about).encode() + b"\n"

    def _used_up(self, resources: int) -> dict[str, int]:
        """The things of which the user cannot get one more in this group."""
        return self._account.used_up({"groups": 1, "leases": 1, "cells": resources, "marks": 1, "waiters": 1})

"""The hidden file .fsmount.status: the daemon, the capacity of the mount, and used up shares (protocol/status.py).

Every directory has it, and every user may read it.  A worker thread makes the text, since there may be as many users as
groups.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import TYPE_CHECKING

from fsmount.control_files.long_file import LongFile, MakeText
from fsmount.control_files.text import Text
from fsmount.protocol.file_names import STATUS_FILE
from fsmount.version import __version__

if TYPE_CHECKING:
    from fsmount.control_files.mount import Opening


class StatusFile(LongFile):
    number = 17
    name = STATUS_FILE[1:]
    scope = "group"
    mode = 0o444
    hidden = True
    timed = False
    manual = """\
In every group, but not listed: the daemon that serves the mount, its capacity, and the shares that are used up. It is a
JSON object that every user may read; see fsmount status."""

    __slots__ = ("_account",)

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._account = opening.mount.account(opening)

    def key(self) -> Hashable:
        return StatusFile, self.group.id, self._account.uid, self._account.limited

    def text(self) -> bytes:
        raise MakeText

    def make(self) -> Text:
        import json

        mount = self.opening.mount
        mount.count_again()
        tree = self.group.tree
        region = tree.file_status()
        units = self.group.units
        about = {
            "daemon": {
                "pid": os.getpid(),
                "uid": os.geteuid(),
                "since": mount.since,
                "version": __version__,
            },
            "mountpoint": tree.mountpoint or "",
            "region": {"path": tree.path, "size": region.st_size, "allocated": region.st_blocks * 512},
            "resources": units,
            "capacity": {
                what: {"capacity": room, "used": used, "largest": [{"uid": uid, "used": held} for uid, held in largest]}
                for what, (room, used, largest) in mount.capacity().items()
            },
            "share": {"uid": self._account.uid, "used_up": self._used_up(len(units))},
        }
        return Text([json.dumps(about).encode() + b"\n"])

    def _used_up(self, resources: int) -> dict[str, int]:
        """The kinds of things of which the user cannot get another one in this group."""
        return self._account.used_up({"groups": 1, "leases": 1, "cells": resources, "marks": 1, "waiters": 1})

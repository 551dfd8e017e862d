"""The region that this daemon serves, with its lock, until the daemon gives it up."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from fsmount.admin import region_path
from fsmount.shm import Holder, Tree

log = logging.getLogger(__name__)


@dataclass
class ServedRegion:
    tree: Tree
    path: str
    mountpoint: str
    adopted: bool  # an earlier mount made it
    lock: int  # a descriptor that holds the flock
    leases: list[Holder]  # the leases that were open when the previous daemon died
    warnings: list[str]  # differences between an adopted region and the request's config

    def abandon(self) -> None:
        """Leaves an adopted region as it was, and removes a new one: the mount failed."""
        if self.adopted:
            self.tree.serve(None)
        else:
            self.remove()

    def release(self, *, keep: bool) -> None:
        """Ends the service cleanly.  Removes the region, unless it is kept or has live holders."""
        self.tree.serve(None)
        self.tree.reap()
        holders = len(self.tree.holders())
        if keep:
            log.info("the counters stay in %s, for the next mount", self.path)
        elif holders:
            log.warning("the counters stay in %s, for %d live holders and the next mount", self.path, holders)
        else:
            self.remove()
        self.tree.close()
        os.close(self.lock)

    def remove(self) -> None:
        """Removes the region's file, unless another file has taken its name."""
        try:
            is_own = os.path.samestat(os.lstat(self.path), os.fstat(self.lock))
        except FileNotFoundError:
            is_own = False
        else:
            if not is_own:
                log.warning("another file replaced %s while it was served: that file stays", self.path)
        if is_own:
            os.unlink(self.path)
        region_path.forget(self.mountpoint)

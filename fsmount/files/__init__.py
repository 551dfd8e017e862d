"""Charging through files alone: the same face as fsmount.shm, for where the region is out of reach.

Another user's tree whose lease files were delegated to us, or a mount seen from inside a container:
there a group is what its files say, and who charges holds an open lease.  An attachment has one, for
all resources, opened with the first charge; or one for each resource it charges, if only these may be
opened.  The kernel closes it for any death of the process, and its last close gives back what it holds.

An errno does not name the ancestor that refused.  The error reads its usage and limit
afterwards.  Others may have charged or uncharged in between, so these are of a moment later
than the refusal; the refusal itself is exact.

A lease is bound to the daemon it was opened with.  Of one whose daemon died, the next keeps the
charges until this process ends; here every operation raises TreeGone, until one attaches again.
"""

from __future__ import annotations

from fsmount.files.counter import LeaseCounter
from fsmount.files.group import LeaseGroup, attach_files, group_at
from fsmount.protocol.listings import HolderLine

__all__ = ["HolderLine", "LeaseCounter", "LeaseGroup", "attach_files", "group_at"]

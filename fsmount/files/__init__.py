"""Groups and counters through the files of a mount: the transport "files", with the interface of fsmount.shm.

It is for processes that cannot reach the region: in a container, or in a tree of another user who delegated lease files
to them.  The first charge of an attachment opens a lease file for all resources.  If this user may not open it, the
attachment opens one lease file for each resource that it charges.  The lease is the holder.  At any death of the
process the kernel closes the file, and the last close releases the charges.

The errno of a refusal does not name the ancestor that refused.  So the error gets the usage and limit from files that
are read after the refusal, when other processes may have charged or uncharged.  The refusal itself is exact.

A lease is bound to the daemon that it was opened with.  If that daemon dies, the next one keeps the charges until this
process ends.  Here every operation raises TreeGone until the process attaches again.
"""

from __future__ import annotations

from fsmount.files.counter import LeaseCounter
from fsmount.files.group import LeaseGroup, attach_files, group_at
from fsmount.protocol.listings import HolderLine

__all__ = ["HolderLine", "LeaseCounter", "LeaseGroup", "attach_files", "group_at"]

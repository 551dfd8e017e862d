"""The tree as Python sees it: groups and their counters, in one shared region.

A Tree, Group or Counter is a name for something in the region, no copy of it: it keeps the engine's
id and asks when it is asked.  So a rename is seen at once, and a group that is gone raises
GroupRemoved.  The engine's errors become those of errors.py, or else plain OSErrors with the
group's path.

Who builds on the tree (the file system, the daemon) finds here all there is to use of it.
"""

from __future__ import annotations

from fsmount.engine import (
    DEPTH_MAX,
    LEASE,
    MODE_UNSET,
    NAME_MAX,
    PROCESS,
    RESOURCES_MAX,
    ROOT,
    SET_ATIME,
    SET_GID,
    SET_MODE,
    SET_MTIME,
    SET_UID,
    SLOTS,
    UNLIMITED,
    Hold,
    Snapshot,
    process_alive,
    process_start_time,
    set_patience,
)
from fsmount.shm.counter import Counter
from fsmount.shm.group import Attributes, Group
from fsmount.shm.holder import Holder
from fsmount.shm.lease_holder import Lease
from fsmount.shm.tree import CAPACITY_MAX, DEFAULT_CAPACITY, DaemonRecord, Tree, parse_resource

__all__ = [
    "CAPACITY_MAX",
    "DEFAULT_CAPACITY",
    "DEPTH_MAX",
    "LEASE",
    "MODE_UNSET",
    "NAME_MAX",
    "PROCESS",
    "RESOURCES_MAX",
    "ROOT",
    "SET_ATIME",
    "SET_GID",
    "SET_MODE",
    "SET_MTIME",
    "SET_UID",
    "SLOTS",
    "UNLIMITED",
    "Attributes",
    "Counter",
    "DaemonRecord",
    "Group",
    "Hold",
    "Holder",
    "Lease",
    "Snapshot",
    "Tree",
    "parse_resource",
    "process_alive",
    "process_start_time",
    "set_patience",
]

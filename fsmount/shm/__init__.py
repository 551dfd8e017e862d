"""Groups and counters in a shared region: the transport "memory", and the tree for the file system and the daemon.

A Tree, Group or Counter holds no copy of its values: it keeps the engine's id and reads the region at each call.  A
rename is visible at once, and a removed group raises GroupRemoved.  The engine's errors become those of errors.py, or
plain OSErrors with the group's path.
"""

from __future__ import annotations

from fsmount.engine import (
    DEPTH_MAX,
    LEASE,
    MODE_UNSET,
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
from fsmount.shm.attachment import Attributes
from fsmount.shm.groups import Counter, Group
from fsmount.shm.holder import Holder
from fsmount.shm.lease_holder import Lease
from fsmount.shm.open_region import DaemonRecord
from fsmount.shm.resources import parse_resource
from fsmount.shm.tree import CAPACITY_MAX, DEFAULT_CAPACITY, Tree

__all__ = [
    "CAPACITY_MAX",
    "DEFAULT_CAPACITY",
    "DEPTH_MAX",
    "LEASE",
    "MODE_UNSET",
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

"""Hierarchical resource counters as files: one shared region, charged by parallel processes.

    with fsmount.attach("/run/counters/web") as group:
        group["memory"].charge(4096)

attach() finds a tree through its mount; Tree.create() and Tree.open() work without one.
"""

from fsmount.attach import attach
from fsmount.engine import UNLIMITED
from fsmount.errors import GroupRemoved, LimitExceeded, LockTimeout, NotHeld, RegionCorrupt, TreeGone
from fsmount.protocol.refusals import LargeHolder, Probe, Refusal
from fsmount.quantities import format_quantity, parse_quantity
from fsmount.shm import Counter, Group, Holder, Tree
from fsmount.version import __version__

__all__ = [
    "UNLIMITED",
    "Counter",
    "Group",
    "GroupRemoved",
    "Holder",
    "LargeHolder",
    "LimitExceeded",
    "LockTimeout",
    "NotHeld",
    "Probe",
    "Refusal",
    "RegionCorrupt",
    "Tree",
    "TreeGone",
    "__version__",
    "attach",
    "format_quantity",
    "parse_quantity",
]

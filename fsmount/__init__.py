"""Hierarchical resource counters as files: one shared region, charged by parallel processes.

    with fsmount.attach("/run/counters/web") as group:
        group["memory"].charge(4096)

attach() finds a tree through its mount; Tree.create() and Tree.open() work without one.
"""

from .attach import attach
from .engine import UNLIMITED
from .errors import GroupRemoved, LimitExceeded, LockTimeout, NotHeld, RegionCorrupt, TreeGone
from .quantities import format_quantity, parse_quantity
from .refusals import LargeHolder, Probe, Refusal
from .tree import Counter, Group, Holder, Tree
from .version import __version__

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

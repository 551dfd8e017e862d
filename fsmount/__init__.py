"""Hierarchical resource counters as files: one shared region, charged by parallel processes.

    with fsmount.attach("/run/counters/web") as group:
        group["memory"].charge(4096)

attach() finds a tree through its mount; Tree.create() and Tree.open() work without one.
"""

from typing import TYPE_CHECKING

from .attach import attach
from .engine import UNLIMITED
from .errors import GroupRemoved, LimitExceeded, LockTimeout, NotHeld, RegionCorrupt, TreeGone

if TYPE_CHECKING:
    from .counter import Counter, Holder
    from .group import Group
    from .tree import Tree

__all__ = [
    "UNLIMITED",
    "Counter",
    "Group",
    "GroupRemoved",
    "Holder",
    "LimitExceeded",
    "LockTimeout",
    "NotHeld",
    "RegionCorrupt",
    "Tree",
    "TreeGone",
    "attach",
]

# Imported when they are first asked for: a command that goes through the files starts without the tree.
_LATER = {"Counter": ".counter", "Group": ".group", "Holder": ".counter", "Tree": ".tree"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LATER[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__

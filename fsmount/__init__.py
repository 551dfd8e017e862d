"""Hierarchical resource counters as files: one shared region, charged by parallel processes.

    with fsmount.attach("/run/counters/web") as group:
        group["memory"].charge(4096)

attach() finds a tree through its mount; Tree.create() and Tree.open() work without one.

Each name is imported on first use, so that a command starts without the parts that it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsmount.attachment import attach as attach
    from fsmount.errors import GroupRemoved as GroupRemoved
    from fsmount.errors import LimitExceeded as LimitExceeded
    from fsmount.errors import LockTimeout as LockTimeout
    from fsmount.errors import NotHeld as NotHeld
    from fsmount.errors import RegionCorrupt as RegionCorrupt
    from fsmount.errors import TreeGone as TreeGone
    from fsmount.interface import Counter as Counter
    from fsmount.interface import Group as Group
    from fsmount.interface import OnExit as OnExit
    from fsmount.interface import Transport as Transport
    from fsmount.protocol.listings import CounterSnapshot as CounterSnapshot
    from fsmount.protocol.listings import HolderLine as HolderLine
    from fsmount.protocol.refusals import LargeHolder as LargeHolder
    from fsmount.protocol.refusals import Probe as Probe
    from fsmount.protocol.refusals import Refusal as Refusal
    from fsmount.quantities import UNLIMITED as UNLIMITED
    from fsmount.quantities import format_quantity as format_quantity
    from fsmount.quantities import parse_quantity as parse_quantity
    from fsmount.shm import Holder as Holder
    from fsmount.shm import Tree as Tree
    from fsmount.version import __version__ as __version__

#: Name -> the module that defines it.
_MODULES = {
    "UNLIMITED": "fsmount.quantities",
    "Counter": "fsmount.interface",
    "CounterSnapshot": "fsmount.protocol.listings",
    "Group": "fsmount.interface",
    "GroupRemoved": "fsmount.errors",
    "Holder": "fsmount.shm",
    "HolderLine": "fsmount.protocol.listings",
    "LargeHolder": "fsmount.protocol.refusals",
    "LimitExceeded": "fsmount.errors",
    "LockTimeout": "fsmount.errors",
    "NotHeld": "fsmount.errors",
    "OnExit": "fsmount.interface",
    "Probe": "fsmount.protocol.refusals",
    "Refusal": "fsmount.protocol.refusals",
    "RegionCorrupt": "fsmount.errors",
    "Transport": "fsmount.interface",
    "Tree": "fsmount.shm",
    "TreeGone": "fsmount.errors",
    "__version__": "fsmount.version",
    "attach": "fsmount.attachment",
    "format_quantity": "fsmount.quantities",
    "parse_quantity": "fsmount.quantities",
}

#: The names that the distribution fsmount-client does not have.
_OF_THE_ENGINE = {name for name, module in _MODULES.items() if module == "fsmount.shm"}

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in _OF_THE_ENGINE and (why := _missing_engine()):
        raise ModuleNotFoundError(f"fsmount.{name}: {why}", name=_MODULES[name])

    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    missing = _OF_THE_ENGINE if _missing_engine() else set()
    return [name for name in __all__ if name not in missing]


def _missing_engine() -> str:
    from fsmount.installation import missing_engine

    return missing_engine()

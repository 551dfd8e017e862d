"""The files of a group: which there are, how they are called, what their modes are.

This table is the one place that knows.  A file's number within its resource never changes: inode
numbers and the attributes kept in a region are made from it.
"""

from collections.abc import Mapping

#: In every directory, but listed in none: the daemon's own file, see control.py.
CONTROL_FILE = ".fsmount"

#: Likewise: who serves the mount, what it has room for, and whose share of it is used up; see status.py.
STATUS_FILE = ".fsmount.status"

#: In the root directory alone: every counter, for a monitoring system.  No file of a resource is called so: they have a
#: dot in their names.
METRICS_FILE = "metrics"

#: How many files a resource can have in one group (the engine's attribute slots for each resource).
KINDS_MAX = 16


class Kind:
    """One kind of file: `name` follows the resource's name, and `quantity` says that it names the unit bytes too."""

    __slots__ = ("index", "name", "mode", "quantity")

    def __init__(self, index: int, name: str, mode: int, quantity: bool = False) -> None:
        self.index = index
        self.name = name
        self.mode = mode
        self.quantity = quantity


USAGE = Kind(0, "usage", 0o444, quantity=True)
LIMIT = Kind(1, "limit", 0o644, quantity=True)
SOFT_LIMIT = Kind(2, "soft_limit", 0o644, quantity=True)
MAX_USAGE = Kind(3, "max_usage", 0o644, quantity=True)
FAILCNT = Kind(4, "failcnt", 0o644)
STAT = Kind(5, "stat", 0o444)
CHARGE = Kind(6, "charge", 0o200)
UNCHARGE = Kind(7, "uncharge", 0o200)
FORCE_EMPTY = Kind(8, "force_empty", 0o200)
LEASE = Kind(9, "lease", 0o600)
HOLDERS = Kind(10, "holders", 0o444)
EVENTS = Kind(11, "events", 0o444)
THRESHOLD = Kind(12, "threshold", 0o644)
WHY = Kind(13, "why", 0o444)
PROBE = Kind(14, "probe", 0o666)

#: Of the group and no resource; kept where the first resource has room.  No other file has a name without a dot, but
#: for METRICS_FILE.
GROUP_LEASE = Kind(15, "lease", 0o600)

#: Of each resource, in the order a directory lists them.
KINDS = (
    USAGE,
    LIMIT,
    SOFT_LIMIT,
    MAX_USAGE,
    FAILCNT,
    STAT,
    CHARGE,
    UNCHARGE,
    FORCE_EMPTY,
    LEASE,
    HOLDERS,
    EVENTS,
    THRESHOLD,
    WHY,
    PROBE,
)


#: Of the group, listed after those.
GROUP_KINDS = (GROUP_LEASE,)


#: How the files of quantities end where the unit is bytes.
BYTES_ENDING = "_in_bytes"


def file_name(resource: str, unit: str, kind: Kind) -> str:
    """The name of a resource's file: `memory.limit_in_bytes`, or `tokens.limit` with the unit count."""
    return f"{resource}.{kind.name}{BYTES_ENDING if kind.quantity and unit == 'bytes' else ''}"


def files(resources: Mapping[str, str]) -> dict[str, tuple[int, Kind]]:
    """Name -> (resource's index, kind) of every listed file, in listing order; `resources` maps name to unit."""
    of_resources = {
        file_name(resource, unit, kind): (index, kind)
        for index, (resource, unit) in enumerate(resources.items())
        for kind in KINDS
    }
    return of_resources | {kind.name: (0, kind) for kind in GROUP_KINDS}


def snapshot_name(resource: str) -> str:
    """In every directory, but listed in none: all groups from it down, see filesystem/snapshot_file.py."""
    return f".{resource}.groups"


def reserved_names(resources: Mapping[str, str]) -> frozenset[str]:
    """The names that no group can have, wherever it is; in the root METRICS_FILE is one too."""
    return frozenset(files(resources)) | {CONTROL_FILE, STATUS_FILE, *map(snapshot_name, resources)}


def slot(resource: int, kind: Kind) -> int:
    """Where the engine keeps this file's attributes; slot 0 is the directory's own."""
    return 1 + resource * KINDS_MAX + kind.index

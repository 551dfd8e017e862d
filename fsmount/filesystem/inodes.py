"""Inode numbers, made of a group's id and the slot of a file.

Since a number can be taken apart again, there is no table of inodes, and a tree of any size costs the daemon nothing.
From the highest bit: 28 bits of the group's generation, 24 of its index, 12 of the slot.  The numbers of a removed
group never name a later group at its place.
"""

from fsmount.protocol.file_table import KINDS_MAX, Kind

DIRECTORY = 1
CONTROL = 2
METRICS = 3  # of the root alone
STATUS = 4
FIRST_FILE = KINDS_MAX
_FIRST_SURVEY = 1 << 11  # above all files

_SLOT_BITS = 12
_INDEX_BITS = 24
#: A group's id is below this: its generation has 28 bits, and 32 more are its index.
IDS = 1 << 60
_SLOT = (1 << _SLOT_BITS) - 1
_INDEX = (1 << _INDEX_BITS) - 1


def number(group: int, slot: int) -> int:
    """The inode number of a slot of a group, which is given by its id."""
    return group >> 32 << _INDEX_BITS + _SLOT_BITS | (group & _INDEX) << _SLOT_BITS | slot


def group_of(inode: int) -> int:
    """The id of the group an inode belongs to."""
    return inode >> _INDEX_BITS + _SLOT_BITS << 32 | inode >> _SLOT_BITS & _INDEX


def slot_of(inode: int) -> int:
    """DIRECTORY, CONTROL, METRICS, STATUS, a file's slot, or that of a snapshot."""
    return inode & _SLOT


def file_slot(resource: int, kind: Kind) -> int:
    """The slot of a resource's file."""
    return FIRST_FILE + resource * KINDS_MAX + kind.index


def snapshot_slot(resource: int) -> int:
    """The slot of the file that snapshots a resource."""
    return _FIRST_SURVEY + resource

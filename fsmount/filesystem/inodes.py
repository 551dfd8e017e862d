"""Inode numbers, made of a group's id and the slot of a file.

The number contains its parts, so there is no table of inodes, and a tree of any size costs the daemon nothing.
From the highest bit: 28 bits of the group's generation, 24 of its index, 12 of the slot.  A later group with the index
of a removed group has another generation, and so other numbers.

A slot has a row of KINDS_MAX for the group itself, and one for each resource.
"""

from fsmount.control_files.table import Place
from fsmount.protocol.file_names import KINDS_MAX
from fsmount.shm import RESOURCES_MAX

#: The number that FUSE gives the root directory; no file has it.
DIRECTORY = 1

_SLOT_BITS = 12
_INDEX_BITS = 24
_SLOT = (1 << _SLOT_BITS) - 1
_INDEX = (1 << _INDEX_BITS) - 1

if (1 + RESOURCES_MAX) * KINDS_MAX > 1 << _SLOT_BITS:
    raise ImportError("inode numbers have no room for the files of all resources")


def number(group: int, slot: int) -> int:
    """The inode number of a slot of a group; `group` is its id."""
    return group >> 32 << _INDEX_BITS + _SLOT_BITS | (group & _INDEX) << _SLOT_BITS | slot


def group_of(inode: int) -> int:
    """The id of the group an inode belongs to."""
    return inode >> _INDEX_BITS + _SLOT_BITS << 32 | inode >> _SLOT_BITS & _INDEX


def slot_of(inode: int) -> int:
    """DIRECTORY, or the slot of a file."""
    return inode & _SLOT


def file_slot(place: Place) -> int:
    """The slot of a file."""
    row = 1 + place.resource if place.kind.scope == "resource" else 0
    return row * KINDS_MAX + place.kind.number

"""Groups and control files by their inodes, and the names of the control files in a directory."""

import functools
import os

from fsmount.control_files import table
from fsmount.control_files.table import Place
from fsmount.filesystem import inodes
from fsmount.filesystem.directory import Listed
from fsmount.shm import ROOT, Group, Tree

#: The number of inodes that are kept with their groups.
_CACHED = 8192


class MountedFile:
    """A control file, as each group of this mount has it."""

    __slots__ = ("kind", "owned", "resource", "slot")

    def __init__(self, place: Place, resource: str) -> None:
        self.kind = place.kind
        #: Whether the file has an owner and a mode of its own.
        self.owned = place.kind.is_owned()
        #: The engine's slot for its attributes.
        self.slot = place.slot
        #: Empty for a file of the group.
        self.resource = resource if place.kind.scope == "resource" else ""


class Lookup:
    """The control files of a tree by name and by slot.  For any thread."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        resources = list(tree.resources)
        names = {os.fsencode(name): place for name, place in table.files(tree.resources).items()}
        self._files = {
            inodes.file_slot(place): MountedFile(place, resources[place.resource]) for place in names.values()
        }
        self._slots_in_root = {name: inodes.file_slot(place) for name, place in names.items()}
        self._slots = {name: self._slots_in_root[name] for name, place in names.items() if place.kind.scope != "root"}
        self._listed_in_root = [
            (name, slot) for name, slot in self._slots_in_root.items() if not names[name].kind.hidden
        ]
        self._listed = [(name, slot) for name, slot in self._listed_in_root if name in self._slots]
        #: find(inode): its group, and its file, or None for the directory.  GroupRemoved.
        self.find = functools.lru_cache(_CACHED)(self._find)

    def _find(self, inode: int) -> tuple[Group, MountedFile | None]:
        return self._tree.group(inodes.group_of(inode)), self._files.get(inodes.slot_of(inode))

    def slots_in(self, directory: int) -> dict[bytes, int]:
        """The control files of a directory, also hidden ones, by name."""
        return self._slots_in_root if inodes.group_of(directory) == ROOT else self._slots

    def listed_in(self, group: Group) -> Listed:
        """The control files that the directory of a group lists."""
        return self._listed_in_root if group.id == ROOT else self._listed

    def owned_slots(self) -> dict[int, int]:
        """The files with attributes of their own: slot -> the engine's slot."""
        return {slot: file.slot for slot, file in self._files.items() if file.owned}

"""Names that the kernel caches, and how they stay true.

The kernel may keep names forever, and notices changes through the mount by itself.  But a process that has the region
can make, rename and remove groups without the kernel.  It reports that through the control channel, and the daemon
takes back the names that are no longer true.  The kernel never keeps a missing name, so a new group needs nothing.
Until the report comes, an inode of a removed group answers ESTALE, and the kernel looks again.
"""

import pyfuse3

from fsmount.errors import GroupRemoved
from fsmount.filesystem import inodes
from fsmount.filesystem.kernel_cache.attributes import invalidate_attributes
from fsmount.shm import Group, Tree


def invalidate_name(directory: int, name: bytes) -> None:
    """Makes the kernel forget a name in a directory.

    It waits for the kernel's requests under way there, so the event loop's thread must not call it.
    """
    try:
        pyfuse3.invalidate_entry(directory, name)
    except FileNotFoundError:
        pass  # the kernel does not have this name


class KnownNames:
    """The names of groups that the kernel was given and may still have.

    The event loop's thread and worker threads change it; each step is one operation on a dict.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._names: dict[int, dict[bytes, int]] = {}
        #: Whether the kernel can be asked to forget anything: between init() and close() of the mount.
        self.serving = False

    def add(self, parent: int, name: bytes, child: int) -> None:
        """Notes that the kernel learns this name of the group with id `child`."""
        self._names.setdefault(parent, {})[name] = child

    def drop(self, parent: int, name: bytes, child: int) -> None:
        """Notes that the name no longer belongs to this child."""
        names = self._names.get(parent, {})
        if names.get(name) == child:
            names.pop(name, None)

    def forget(self, group: int) -> None:
        """Forgets the names in a removed group, and below."""
        pending = [group]
        while pending:
            pending += self._names.pop(pending.pop(), {}).values()

    def invalidate(self, group: int) -> None:
        """Makes the kernel forget the attributes of a group's directory."""
        if self.serving:
            invalidate_attributes(inodes.number(group, inodes.DIRECTORY))

    def correct(self, parent: int) -> list[int]:
        """Makes the kernel forget the children that have changed in the region; returns the removed ones.  May wait."""
        group = self._tree.group(parent)
        removed = []
        for name, child in list(self._names.get(parent, {}).items()):
            if _child(group, name) == child:
                continue
            renamed = self._tree.group(child).exists
            self.drop(parent, name, child)
            if not renamed:
                self.forget(child)
                removed.append(child)
            self.invalidate(child)
            invalidate_name(inodes.number(parent, inodes.DIRECTORY), name)
        self.invalidate(parent)
        return removed


def _child(group: Group, name: bytes) -> int | None:
    try:
        found = group.find(name)
    except GroupRemoved:
        return None
    return found.id if found else None

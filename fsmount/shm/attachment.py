"""A group by its id: its names, its attributes, and this process's attachment to it."""

from __future__ import annotations

import errno
import os
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Self

from fsmount.engine import ROOT, Charger, EngineError
from fsmount.interface import Group
from fsmount.interface.region import RegionGroup
from fsmount.shm.answers import in_public, public_error
from fsmount.shm.membership import JoinedRegion, locked

# The attachment of every group that is charged without attach().
_IMPLICIT = object()


class Attributes(NamedTuple):
    """The attributes of a directory or a file; times are nanoseconds since the epoch, mode has only permission bits."""

    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    ctime: int


class AttachedGroup(RegionGroup):
    """A group of the region.  This process is attached to it, or attaches itself with its first charge."""

    __slots__ = ("_closed", "_found", "_keep", "_last_path", "_token", "_used", "id", "tree")

    tree: JoinedRegion
    id: int

    def __init__(self, tree: JoinedRegion, id: int, found: tuple[Group, str] | None = None) -> None:
        self.tree = tree
        self.id = id
        self._found = found  # its parent, and its name there
        self._last_path: str | None = None
        self._token: object = _IMPLICIT
        self._keep = False
        self._used = False  # whether the token may be among the attachments
        self._closed = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttachedGroup) and self.tree is other.tree and self.id == other.id

    def __hash__(self) -> int:
        return hash((id(self.tree), self.id))

    # ---- its names

    @property
    @in_public
    def name(self) -> str:
        return "" if self.id == ROOT else os.fsdecode(self.tree.region.name(self.id))

    @property
    @in_public
    def path(self) -> str:
        self._last_path = self.tree.engine_path(self.id)
        return self._last_path

    def last_path(self) -> str:
        try:
            return self.tree.engine_path(self.id)
        except OSError:
            pass
        if self._last_path is not None:
            return self._last_path
        if self._found is None:
            return self.tree.path_or_id(self.id)
        parent, name = self._found
        return f"{parent.last_path().rstrip('/')}/{name}"

    @property
    def units(self) -> Mapping[str, str]:
        return self.tree.resources

    @property
    @in_public
    def exists(self) -> bool:
        try:
            self.tree.region.child_count(self.id)
        except EngineError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    @property
    @in_public
    def parent(self) -> Self | None:
        return None if self.id == ROOT else type(self)(self.tree, self.tree.region.parent(self.id))

    @in_public
    def child_ids(self) -> bytes:
        """The ids of the children, in the order of children(), 8 bytes each in the byte order of the machine."""
        return self.tree.region.child_ids(self.id)

    @property
    @in_public
    def child_count(self) -> int:
        """The number of children."""
        return self.tree.region.child_count(self.id)

    # ---- attributes

    @in_public
    def attributes(self, slot: int) -> Attributes:
        """The attributes of the directory (slot 0) or a file (1 + resource * SLOTS + kind).

        MODE_UNSET: no mode was ever set.
        """
        return Attributes(*self.tree.region.get_attr(self.id, slot))

    @in_public
    def set_attributes(
        self,
        slot: int,
        mask: int,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        atime: int = 0,
        mtime: int = 0,
        now: int | None = None,
    ) -> None:
        """Sets the attributes that the mask names (SET_MODE, ...), and ctime to now."""
        when = time.time_ns() if now is None else now
        self.tree.region.set_attr(self.id, slot, mask, mode, uid, gid, atime, mtime, when)

    # ---- its attachment

    @property
    def closed(self) -> bool:
        return self._closed

    def join(self, keep: bool, control: int) -> None:
        """Makes this object an attachment; control: an open control channel of the mount, or -1."""
        self._keep = keep
        self._token = object()
        self._used = True
        try:
            self.tree.membership(keep).attach(self.id, self._token, control)
            self._last_path = self.tree.engine_path(self.id)
        except EngineError as error:
            raise self.public_error(error) from None

    @in_public
    def close(self) -> None:
        with locked():
            if self._closed:
                return
            if self._used and not self.tree.region.closed:
                self.tree.membership(self._keep).detach(self.id, self._token)
            self._closed = True
            for charger in self.chargers():  # another attachment may still use its cell
                charger.unbind()

    @abstractmethod
    def chargers(self) -> list[Charger]:
        """The counters of this object."""

    def bind(self, charger: Charger, resource: int) -> None:
        """Makes a counter of this group chargeable, and attaches to the group first if necessary."""
        with locked():
            self.refuse_closed()
            self._used = True
            self.tree.membership(self._keep).bind(charger, self.id, resource, self._token)

    def bind_if_joined(self, charger: Charger, resource: int) -> bool:
        """As bind(), but attaches to nothing.  False: this process is no holder here, or the attachment is closed."""
        with locked():
            if self._closed:
                return False
            return self.tree.membership(self._keep).bind_if_joined(charger, self.id, resource)

    def refuse_closed(self) -> None:
        """ValueError: the attachment was closed, or another thread is closing it."""
        with locked():
            if self._closed:
                raise ValueError(f"{self.last_path()} was closed here: attach to it again to charge it")

    def lost(self) -> bool:
        """Whether another process ended this process's holder while the group is still there."""
        return self.exists and self.tree.membership(self._keep).lost()

    def public_error(self, error: EngineError) -> OSError:
        if error.errno == errno.ENOSPC:
            return OSError(errno.ENOSPC, "the region has no room for another holder", self.last_path())
        return public_error(error, self.tree.path, self.last_path)

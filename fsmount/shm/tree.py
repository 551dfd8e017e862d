"""Makes, opens and closes trees."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from fsmount.engine import CELLS_MAX, GROUPS_MAX, HOLDERS_MAX, ROOT, EngineError, Region
from fsmount.errors import RegionCorrupt
from fsmount.protocol.listings import CounterSnapshot
from fsmount.protocol.names import path_text
from fsmount.shm.groups import Group
from fsmount.shm.lease_holder import Account, Lease
from fsmount.shm.membership import JoinedRegion, locked
from fsmount.shm.open_region import batch_number
from fsmount.shm.resources import parse_resource

#: The default numbers of groups, holders and cells that a tree has room for.
DEFAULT_CAPACITY = (65536, 4096, 1 << 20)
#: The largest possible capacities.
CAPACITY_MAX = (GROUPS_MAX, HOLDERS_MAX, CELLS_MAX)


class Tree(JoinedRegion):
    """A hierarchy of groups, whose state is in one shared region that several processes may have open.

    A context manager that closes itself.
    """

    __slots__ = ()

    @classmethod
    def create(
        cls,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
        resources: Iterable[str] = ("memory",),
        *,
        batch: int | str = "auto",
        groups: int = DEFAULT_CAPACITY[0],
        holders: int = DEFAULT_CAPACITY[1],
        cells: int = DEFAULT_CAPACITY[2],
    ) -> Tree:
        """Makes a tree that has no group except the root.

        path: the region is a new file there, which stays until it is removed.  Without a path the region ends with the
        last process that has it open; until this process ends, other processes find the region by `tree.path`.
        resources: "NAME", "NAME:bytes" or "NAME:count".  batch: the largest amount that a holder reserves ahead, or
        "auto"; with 0 every value is exact.  groups, holders, cells ((holder, counter) pairs): capacities; the unused
        part costs nothing.

        FileExistsError: the path is taken.  ValueError: a bad resource, batch or capacity.  TypeError: an argument of
        a wrong type.
        """
        if isinstance(resources, str | bytes) or not isinstance(resources, Iterable):
            raise TypeError(f'resources are a list, such as ["memory", "tokens:count"], not {resources!r}')
        wanted = [parse_resource(text) for text in resources]
        where = None if path is None else path_text(path)
        for name, capacity in (("groups", groups), ("holders", holders), ("cells", cells)):
            _refuse_no_capacity(name, capacity)
        try:
            region = Region.create(
                where,
                [(name, unit == "count") for name, unit in wanted],
                batch=batch_number(batch),
                groups=groups,
                holders=holders,
                cells=cells,
                uid=os.geteuid(),
                gid=os.getegid(),
            )
        except EngineError as error:
            if error.errno == errno.EINVAL:
                raise ValueError(error.text) from None
            raise OSError(error.errno, error.strerror, where) from None
        return cls(region, f"/proc/{os.getpid()}/fd/{region.fd}" if where is None else os.path.abspath(where))

    @classmethod
    def open(cls, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Tree:
        """Opens the tree whose region is at a path: text, bytes or an os.PathLike.

        FileNotFoundError.  PermissionError: it belongs to another user.  EPROTO: it is no region, or another version
        of fsmount made it.
        """
        where = path_text(path)
        try:
            return cls(Region.open(where), os.path.abspath(where))
        except EngineError as error:
            if error.errno == errno.EUCLEAN:
                raise RegionCorrupt(error.text, where) from None
            raise OSError(error.errno, error.strerror, where) from None

    def close(self) -> None:
        """Ends the attachments of this process, each by its on_exit, and closes the region.

        From then on everything raises TreeGone.  A second close does nothing.
        """
        with locked():
            try:
                self.end_memberships()
            except EngineError as error:
                raise self.public_error(error) from None
            finally:
                self.region.close()

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def root(self) -> Group:
        """The topmost group."""
        return Group(self, ROOT)

    def group(self, id: int) -> Group:
        """The group with this id.  If there is none, the first use of the result raises GroupRemoved."""
        return Group(self, id)

    def lease(
        self, group: Group, resources: tuple[str, ...], pid: int, start_time: int, account: Account | None = None
    ) -> Lease:
        """A new holder in some counters of a group, in the name of a process, until the lease is closed.

        account: counts the room in the tree that the lease takes.
        """
        return Lease(group, resources, pid, start_time, account)

    def snapshot(self, resource: str) -> list[CounterSnapshot]:
        """Every group with its counter of a resource: Counter.snapshot() of the root.  KeyError."""
        return self.root[resource].snapshot()


def _refuse_no_capacity(name: str, capacity: object) -> None:
    if not isinstance(capacity, int) or isinstance(capacity, bool):
        raise TypeError(f"{name} is an int, not {capacity!r}")
    if not 0 <= capacity < 1 << 32:  # the engine refuses what is too few or too many
        raise ValueError(f"{name} cannot be {capacity}")

"""A tree: what there is to ask of it as a whole, and of the mount that serves it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from fsmount import engine
from fsmount.engine import (
    BATCH_AUTO,
    CELLS_MAX,
    DEPTH_MAX,
    GROUPS_MAX,
    HOLDERS_MAX,
    RESOURCE_NAME_MAX,
    ROOT,
    EngineError,
    Region,
    Snapshot,
    process_alive,
    process_start_time,
)
from fsmount.errors import GroupRemoved, RegionCorrupt
from fsmount.protocol.control_channel import tell_changed
from fsmount.protocol.listings import CounterSnapshot
from fsmount.protocol.names import path_text
from fsmount.shm.answers import in_public, public_error
from fsmount.shm.group import Group
from fsmount.shm.holder import Holder
from fsmount.shm.lease_holder import Account, Lease
from fsmount.shm.membership import Membership, locked

#: The groups of a page: it takes some 100 us to make them Python's, and nobody else has the interpreter meanwhile.
_PAGE = 64


class DaemonRecord(NamedTuple):
    """The process that serves a tree as a mount, or served it when it died."""

    pid: int
    start_time: int
    mountpoint: str

    @property
    def alive(self) -> bool:
        return process_alive(self.pid, self.start_time)


# What commands, files and options put between a resource's name and the rest.
_SEPARATORS = "/.:=,"


def parse_resource(text: str) -> tuple[str, str]:
    """The name and unit of "NAME", "NAME:bytes" or "NAME:count".  ValueError, TypeError."""
    if not isinstance(text, str):
        raise TypeError(f"a resource is given as text, NAME, NAME:bytes or NAME:count, not as {text!r}")
    name, colon, unit = text.partition(":")
    if colon and unit not in ("bytes", "count"):
        raise ValueError(f"a resource is given as NAME, NAME:bytes or NAME:count, not as {text!r}")
    if not _is_resource_name(name):
        raise ValueError(
            f"a resource's name has 1 to {RESOURCE_NAME_MAX} bytes of printable characters, without white space and "
            f"{' '.join(_SEPARATORS)}, and does not begin with -: {name!r} does not; each resource is given by itself"
        )
    return name, unit or "bytes"


def _is_resource_name(name: str) -> bool:
    """Whether files and commands can name it: R.limit, R=N, and R as an argument of its own."""
    return (
        1 <= len(os.fsencode(name)) <= RESOURCE_NAME_MAX
        and name.isprintable()
        and not name.startswith("-")
        and not any(c in _SEPARATORS or c.isspace() for c in name)
    )


#: How many groups, holders and cells a tree has room for unless it is told.
DEFAULT_CAPACITY = (65536, 4096, 1 << 20)
#: How many of each it can have room for at most.
CAPACITY_MAX = (GROUPS_MAX, HOLDERS_MAX, CELLS_MAX)


class Tree:
    """A hierarchy of groups with all its state in one shared region, which several processes may have open.

    A context manager that closes itself.
    """

    __slots__ = ("__weakref__", "_members", "_reserved", "_serving", "control_directory", "path", "region", "resources")

    def __init__(self, region: Region, path: str) -> None:
        self.region = region
        #: Where another process of this user finds the region.
        self.path = path
        #: Name -> unit ("bytes" or "count"), in the order of their indices.
        self.resources = {name: "count" if is_count else "bytes" for name, is_count in region.resources}
        #: A directory of the mount that this process came through, if it did.
        self.control_directory: str | None = None
        self._members: dict[bool, Membership] = {}
        self._reserved: dict[bool, frozenset[str]] = {}
        # The process that serves it through this object.
        self._serving = 0

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
        """Makes a tree, of root alone.

        With a path, the region is a new file there, which stays until somebody removes it.  Without one it
        goes with the last process that has it open; as long as this process lives, others find it by
        `tree.path`.  resources: "NAME", "NAME:bytes" or "NAME:count".  batch: what a holder reserves ahead
        at most, "auto", or 0 for counters that are exact in everything.  groups, holders and cells ((holder,
        counter) pairs) are capacities; what is not used costs nothing.

        FileExistsError: the path is taken.  ValueError: a bad resource, batch or capacity.  TypeError: an argument is
        of another kind.
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
                batch=_batch_number(batch),
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
        """Opens the tree whose region is at path: text, bytes or an os.PathLike.

        FileNotFoundError.  PermissionError: it is another user's.  EPROTO: it is no region, or one that
        another version of fsmount made.
        """
        where = path_text(path)
        try:
            return cls(Region.open(where), os.path.abspath(where))
        except EngineError as error:
            if error.errno == errno.EUCLEAN:
                raise RegionCorrupt(error.text, where) from None
            raise OSError(error.errno, error.strerror, where) from None

    def close(self) -> None:
        """Ends what this process holds in the tree (given back or kept, as it was attached), and lets go of it.

        After it everything raises TreeGone.  A second close does nothing.
        """
        with locked():
            try:
                for member in list(self._members.values()):
                    if not self.region.closed:
                        member.end()
            except EngineError as error:
                raise self.public_error(error) from None
            finally:
                self.region.close()

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Tree {self.path}{' (closed)' if self.region.closed else ''}>"

    @property
    @in_public
    def id(self) -> int:
        """A random number that no other tree has."""
        return self.region.tree_id

    @property
    def root(self) -> Group:
        return Group(self, ROOT)

    def group(self, id: int) -> Group:
        """The group with this id, which is not looked at: GroupRemoved comes when it is used."""
        return Group(self, id)

    @property
    @in_public
    def capacity(self) -> tuple[int, int, int]:
        """How many groups, holders and cells ((holder, counter) pairs) it has room for."""
        return self.region.capacity

    @property
    @in_public
    def owner(self) -> tuple[int, int]:
        """The user and group that its region belongs to."""
        status = os.fstat(self.region.fd)
        return status.st_uid, status.st_gid

    @property
    def may_exceed_limits(self) -> bool:
        """Whether this process may charge past limits: root and the owner of the tree may."""
        return os.geteuid() in (0, self.owner[0])

    @property
    @in_public
    def batch(self) -> int | str:
        """What a holder reserves ahead at most; "auto", or an amount."""
        batch = self.region.batch
        return "auto" if batch == BATCH_AUTO else batch

    @batch.setter
    @in_public
    def batch(self, batch: int | str) -> None:
        self.region.batch = _batch_number(batch)

    @in_public
    def snapshot(self, resource: str, top: Group | None = None) -> list[CounterSnapshot]:
        """Every group with its counter of a resource, parents before their children, the root first; or from one down.

        id and parent are the groups' (the root is its own parent); the rest are the values of R.stat in its order, but
        that `global` is called global_mode. All is of one moment, so no usage is below the sum of those of the groups
        within; names are of just after it, and a group that was removed by then is left out.

        Each group and each cell is looked at once, under the region's lock: about 10 ms for 100,000 groups with a
        million open cells. KeyError: there is no such resource. GroupRemoved: of the one.
        """
        return [row for page in self.snapshot_pages(resource, top) for row in page]

    @in_public
    def snapshot_pages(self, resource: str, top: Group | None = None) -> Iterator[list[CounterSnapshot]]:
        """The same snapshot, a list of some groups at a time: so many groups need not be Python's all at once."""
        return _never_empty(
            self.take_snapshot(resource).pages(ROOT if top is None else top.id, _PAGE), top or self.root
        )

    @in_public
    def take_snapshot(self, resource: str) -> Snapshot:
        """The same snapshot, as the engine has it."""
        return self.region.snapshot(self.root[resource].index)

    @in_public
    def count_holders(self) -> tuple[int, int]:
        """How many processes and how many leases are holders.  Takes no lock, and may miss some that come and go."""
        return self.region.count_holders()

    @property
    def group_count(self) -> int:
        """How many groups there are.  Takes no lock."""
        return self.region.use()[0][1]

    @in_public
    def reap(self) -> int:
        """Ends the holders whose processes are dead; how many there were."""
        return self.region.reap_dead()

    @in_public
    def holders(self) -> list[Holder]:
        """All holders of the tree."""
        return [Holder.of(info) for info in self.region.all_holders()]

    @in_public
    def new_holders(self, seen: int) -> list[Holder]:
        """The processes that became holders after the one with this number."""
        return [Holder.of(info) for info in self.region.new_holders(seen)]

    @in_public
    def await_arrival(self, seen: int, seconds: float) -> int:
        """Waits until another process becomes a holder, for so many seconds at most; returns the number of the newest.

        It is among new_holders() by then, even if it has died already.
        """
        return self.region.await_arrival(seen, seconds)

    @in_public
    def listen(self, on: bool) -> None:
        """The next event in the tree ends a wait for it, and events change their counters' news; or not any more.

        One process may listen to a tree at a time: the one that serves it.
        """
        self.region.listen(on)

    @in_public
    def await_event(self, seconds: float) -> bool:
        """Waits until there was an event since listen(); False: none for so many seconds."""
        return self.region.await_event(seconds)

    @in_public
    def end_holder(self, id: int) -> None:
        """Ends a holder: what it holds is given back, or kept by the groups.  One that has ended already is no error.

        Only one of this process, or of a process that has ended or unmapped the region: nobody may go on
        charging through its cells.
        """
        try:
            self.region.holder_end(id)
        except EngineError as error:
            if error.errno != errno.ENODEV:
                raise

    @in_public
    def holder(self, id: int) -> Holder | None:
        """The holder with this id, None if it has ended."""
        try:
            return Holder.of(self.region.holder_get(id))
        except EngineError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def lease(
        self, group: Group, resources: tuple[str, ...], pid: int, start_time: int, account: Account | None = None
    ) -> Lease:
        """A holder of its own for some counters, in the name of a process; it lives until it is closed.

        account: where what it takes of the tree's room is counted.
        """
        return Lease(group, resources, pid, start_time, account)

    @in_public
    def check(self) -> list[str]:
        """Recomputes what is derived from the cells, and looks for what cannot be; a line for each finding.

        Changes nothing, and keeps others waiting for no longer than it takes to copy what is used of the region.
        """
        return self.region.check()

    @in_public
    def repair(self) -> list[str]:
        """Mends what can be recomputed, and returns what check() finds then.

        RegionCorrupt: nothing can be, because what all else is computed from is damaged; then nothing has changed.
        """
        self.region.repair()
        return self.region.check()

    # ---- the mount

    @property
    @in_public
    def daemon(self) -> DaemonRecord | None:
        """The process that serves the tree as a mount, or served it when it died; None if it ended cleanly."""
        daemon = DaemonRecord(*self.region.get_daemon())
        return daemon if daemon.pid else None

    @property
    def mountpoint(self) -> str | None:
        """Where it is mounted; the paths of its groups begin there."""
        daemon = self.daemon
        return daemon.mountpoint if daemon else None

    @in_public
    def serve(self, mountpoint: str | None) -> None:
        """This process serves the tree as a mount from now on; None: nobody does."""
        if mountpoint is None:
            self.region.set_daemon(0, 0, "")
            self._serving = 0
        else:
            self.region.set_daemon(os.getpid(), process_start_time(os.getpid()), mountpoint)
            self._serving = os.getpid()

    @property
    def is_removed(self) -> bool:
        """Whether this process came through a mount that has ended since and removed the region: charges count nowhere.

        Only for who is a holder already, before whom nothing is removed.
        """
        return self.control_directory is not None and os.fstat(self.region.fd).st_nlink == 0

    def control_directories(self) -> list[str]:
        """Directories through which a daemon of this tree, that is not this process, may be spoken to."""
        pid, start_time, mountpoint = self.region.get_daemon()
        if pid == os.getpid():
            return []
        found = [] if self.control_directory is None else [self.control_directory]
        if pid and process_alive(pid, start_time):
            found.append(mountpoint)
        return found

    def tell_changed(self, group: int) -> None:
        """The children of a group were changed here; a daemon's kernel must not keep the old ones."""
        if self._serving == os.getpid():
            return
        try:
            pid, start_time, mountpoint = self.region.get_daemon()
        except EngineError:
            return  # the change itself was done
        if pid and pid != os.getpid() and process_alive(pid, start_time):
            tell_changed(mountpoint, group)

    # ---- names

    def engine_path(self, id: int) -> str:
        """The path of a group, from the mount point if there is one.  EngineError, RegionCorrupt."""
        path = self.path_below(id)
        pid, _, mountpoint = self.region.get_daemon()
        return (mountpoint.rstrip("/") if pid else "") + path.rstrip("/") or "/"

    def path_below(self, id: int, longest: int | None = None) -> str:
        """The path of a group from the root, which is "/".  EngineError, RegionCorrupt.

        longest: in bytes; of a longer path as many names from its end, after "...".
        """
        names: list[bytes] = []
        length = 0
        while id != ROOT:
            name = self.region.name(id)
            length += 1 + len(name)
            if longest is not None and length > longest:
                return os.fsdecode(b".../" + b"/".join(reversed(names)))
            names.append(name)
            if len(names) > DEPTH_MAX:
                raise RegionCorrupt("the path of a group has no end", self.path)
            id = self.region.parent(id)
        return os.fsdecode(b"/" + b"/".join(reversed(names)))

    def is_reserved(self, parent: int, name: str) -> bool:
        """Whether a control file has this name in the group `parent`, so that no group in it can have it."""
        from fsmount.control_files.table import reserved_names  # here: a process that only charges needs no names

        root = parent == ROOT
        if root not in self._reserved:
            self._reserved[root] = reserved_names(self.resources, root=root)
        return name in self._reserved[root]

    def membership(self, keep: bool) -> Membership:
        """This process's holder for attachments that end so."""
        return self._members.get(keep) or self._members.setdefault(keep, Membership(self, keep))

    def public_error(self, error: EngineError) -> OSError:
        return public_error(error, self.path)


def _never_empty(pages: Iterator[list[CounterSnapshot]], top: Group) -> Iterator[list[CounterSnapshot]]:
    first = next(pages, None)
    if first is None:
        raise GroupRemoved(top.last_path())
    return chain([first], pages)


def _refuse_no_capacity(name: str, capacity: object) -> None:
    if not isinstance(capacity, int) or isinstance(capacity, bool):
        raise TypeError(f"{name} is an int, not {capacity!r}")
    if not 0 <= capacity < 1 << 32:  # what is too few or too many, the engine says
        raise ValueError(f"{name} cannot be {capacity}")


def _batch_number(batch: int | str) -> int:
    if batch == "auto":
        return BATCH_AUTO
    if isinstance(batch, str):
        raise ValueError(f'batch is "auto" or an amount, not {batch!r}')
    return engine.amount(batch)

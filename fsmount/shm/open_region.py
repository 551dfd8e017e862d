"""A region that this process has open: its values as a whole, its paths, and the mount that serves it."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from fsmount import engine
from fsmount.engine import BATCH_AUTO, DEPTH_MAX, ROOT, EngineError, Region, process_alive, process_start_time
from fsmount.errors import RegionCorrupt
from fsmount.protocol.control_channel import tell_changed
from fsmount.shm.answers import in_public, public_error
from fsmount.shm.holder import Holder


class DaemonRecord(NamedTuple):
    """The process that serves a tree as a mount, or served it when it died."""

    pid: int
    start_time: int
    mountpoint: str

    @property
    def alive(self) -> bool:
        return process_alive(self.pid, self.start_time)


class OpenRegion:
    """An open region, whose groups have ids here."""

    __slots__ = ("__weakref__", "_reserved", "_serving", "control_directory", "path", "region", "resources")

    def __init__(self, region: Region, path: str) -> None:
        self.region = region
        #: The path by which another process of this user finds the region.
        self.path = path
        #: Name -> unit ("bytes" or "count"), in the order of their indices.
        self.resources = {name: "count" if is_count else "bytes" for name, is_count in region.resources}
        #: The directory of the mount through which this process found the region, if it did.
        self.control_directory: str | None = None
        self._reserved: dict[bool, frozenset[str]] = {}
        # The process that serves the region through this object.
        self._serving = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}{' (closed)' if self.region.closed else ''}>"

    def public_error(self, error: EngineError) -> OSError:
        return public_error(error, self.path)

    # ---- its values

    @property
    @in_public
    def id(self) -> int:
        """A random number that no other tree has."""
        return self.region.tree_id

    @property
    @in_public
    def capacity(self) -> tuple[int, int, int]:
        """The largest numbers of groups, holders and cells ((holder, counter) pairs)."""
        return self.region.capacity

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group that the region belongs to."""
        status = self.file_status()
        return status.st_uid, status.st_gid

    @in_public
    def file_status(self) -> os.stat_result:
        """The status of the region's file."""
        return os.fstat(self.region.fd)

    @property
    def may_exceed_limits(self) -> bool:
        """Whether this process may charge past limits: root and the owner of the tree may."""
        return os.geteuid() in (0, self.owner[0])

    @property
    @in_public
    def batch(self) -> int | str:
        """The largest amount that a holder reserves ahead, or "auto"."""
        batch = self.region.batch
        return "auto" if batch == BATCH_AUTO else batch

    @batch.setter
    @in_public
    def batch(self, batch: int | str) -> None:
        self.region.batch = batch_number(batch)

    @property
    def group_count(self) -> int:
        """The number of groups.  Takes no lock."""
        return self.region.use()[0][1]

    # ---- holders

    @in_public
    def count_holders(self) -> tuple[int, int]:
        """The numbers of processes and of leases that are holders.  Takes no lock, so some may be missing."""
        return self.region.count_holders()

    @in_public
    def holders(self) -> list[Holder]:
        """All holders of the tree."""
        return [Holder.of(info) for info in self.region.all_holders()]

    @in_public
    def holder(self, id: int) -> Holder | None:
        """The holder with this id; None: it has ended."""
        try:
            return Holder.of(self.region.holder_get(id))
        except EngineError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    @in_public
    def new_holders(self, seen: int) -> list[Holder]:
        """The processes that became holders after the arrival with this number."""
        return [Holder.of(info) for info in self.region.new_holders(seen)]

    @in_public
    def await_arrival(self, seen: int, seconds: float) -> int:
        """Waits until another process becomes a holder, or for `seconds`; returns the number of the newest arrival.

        From then on new_holders() includes the new process, even if it has died already.
        """
        return self.region.await_arrival(seen, seconds)

    @in_public
    def end_holder(self, id: int) -> None:
        """Ends a holder: its charges are released, or go to the groups.  No error if it has ended already.

        It must belong to this process, or to a process that has ended or unmapped the region, so that no charge
        through its cells can follow.
        """
        try:
            self.region.holder_end(id)
        except EngineError as error:
            if error.errno != errno.ENODEV:
                raise

    @in_public
    def reap(self) -> int:
        """Ends the holders whose processes are dead, and returns their number."""
        return self.region.reap_dead()

    # ---- events

    @in_public
    def listen(self, on: bool) -> None:
        """Starts or stops listening: the next event in the tree ends await_event(), and events change `news`.

        One process may listen to a tree at a time: the daemon that serves it.
        """
        self.region.listen(on)

    @in_public
    def await_event(self, seconds: float) -> bool:
        """Waits for an event since listen(); False: none came within `seconds`."""
        return self.region.await_event(seconds)

    # ---- its health

    @in_public
    def check(self) -> list[str]:
        """Recomputes every derived value, looks for impossible ones, and returns a line for each finding.

        Nothing changes.  Other processes wait no longer than a copy of the used part of the region takes.
        """
        return self.region.check()

    @in_public
    def repair(self) -> list[str]:
        """Recomputes every derived value, and returns the findings of check() after it.

        RegionCorrupt: the values that all others derive from are damaged; then nothing has changed.
        """
        self.region.repair()
        return self.region.check()

    # ---- the mount

    @property
    @in_public
    def daemon(self) -> DaemonRecord | None:
        """The process that serves the region as a mount, or served it when it died; None if it ended cleanly."""
        daemon = DaemonRecord(*self.region.get_daemon())
        return daemon if daemon.pid else None

    @property
    def mountpoint(self) -> str | None:
        """The mount point; the paths of the groups begin there."""
        daemon = self.daemon
        return daemon.mountpoint if daemon else None

    @in_public
    def serve(self, mountpoint: str | None) -> None:
        """Makes this process the one that serves the region as a mount; None: no process does."""
        if mountpoint is None:
            self.region.set_daemon(0, 0, "")
            self._serving = 0
        else:
            self.region.set_daemon(os.getpid(), process_start_time(os.getpid()), mountpoint)
            self._serving = os.getpid()

    @property
    def is_removed(self) -> bool:
        """Whether this process attached through a mount whose end has removed the region: its charges count nowhere.

        The end of a mount removes no region with holders, so only a process that is about to become one need ask.
        """
        return self.control_directory is not None and os.fstat(self.region.fd).st_nlink == 0

    def control_directories(self) -> list[str]:
        """The directories through which this process can reach a daemon of the region, if that is another process."""
        pid, start_time, mountpoint = self.region.get_daemon()
        if pid == os.getpid():
            return []
        found = [] if self.control_directory is None else [self.control_directory]
        if pid and process_alive(pid, start_time):
            found.append(mountpoint)
        return found

    def tell_changed(self, group: int) -> None:
        """Tells the daemon that the children of a group changed, so that the kernel forgets the old ones."""
        if self._serving == os.getpid():
            return
        try:
            pid, start_time, mountpoint = self.region.get_daemon()
        except EngineError:
            return  # the change itself is done
        if pid and pid != os.getpid() and process_alive(pid, start_time):
            tell_changed(mountpoint, group)

    # ---- paths

    def engine_path(self, id: int) -> str:
        """The path of a group, from the mount point if there is one.  EngineError, RegionCorrupt."""
        path = self.path_below(id)
        pid, _, mountpoint = self.region.get_daemon()
        return (mountpoint.rstrip("/") if pid else "") + path.rstrip("/") or "/"

    def path_or_id(self, id: int) -> str:
        """The path of a group, or its id if the group was removed."""
        try:
            return self.engine_path(id)
        except OSError:
            return f"(group {id:#x})"

    def path_below(self, id: int, longest: int | None = None) -> str:
        """The path of a group from the root, which is "/".  EngineError, RegionCorrupt.

        longest: the largest size in bytes; of a longer path only the last names are shown, after "...".
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


def batch_number(batch: int | str) -> int:
    """The engine's number for a batch.  ValueError, TypeError."""
    if batch == "auto":
        return BATCH_AUTO
    if isinstance(batch, str):
        raise ValueError(f'batch is "auto" or an amount, not {batch!r}')
    return engine.amount(batch)

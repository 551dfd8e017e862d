"""The mount as control files see it: accounts, leases, and requests to the daemon."""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import time

from fsmount.control_files.mount import Opening
from fsmount.filesystem.guard import in_loop, leave_loop
from fsmount.filesystem.host import Host
from fsmount.filesystem.lookup import Lookup
from fsmount.filesystem.pending_charge import PendingCharge
from fsmount.filesystem.processes import process_of
from fsmount.filesystem.request_loop import served
from fsmount.filesystem.shares import Account, Shares
from fsmount.shm import Group, Lease, process_start_time


class ServedMount:
    """Implements control_files.mount.Mount."""

    def __init__(
        self,
        lookup: Lookup,
        shares: Shares,
        host: Host,
        opened: Collection[object],
        changed: Callable[[int], None],
    ) -> None:
        """opened: the open files; changed: invalidates the names of a group's children, and may wait."""
        self.since = time()
        self._lookup = lookup
        self._shares = shares
        self._host = host
        self._opened = opened
        self._changed = changed
        self.requests_served = served
        self.process_of = process_of
        self.capacity = shares.report
        self.count_again = shares.refresh

    def account(self, opening: Opening) -> Account:
        return self._shares.account(self._group_of(opening), opening.user)

    def open_files(self) -> int:
        return len(self._opened)

    def lease(self, opening: Opening, resources: tuple[str, ...]) -> PendingCharge:
        pid = process_of(opening.thread)
        lease = Lease(self._group_of(opening), resources, pid, process_start_time(pid), self.account(opening))
        return PendingCharge(lease)

    def _group_of(self, opening: Opening) -> Group:
        group, _ = self._lookup.find(opening.inode)
        return group

    def bind_holder(self, holder: int, pid: int) -> None:
        in_loop(self._host.holder_bound, holder, pid)

    def release_holder(self, holder: int) -> None:
        in_loop(self._host.holder_released, holder)

    def unmount(self, keep: bool) -> None:
        in_loop(self._host.unmount_asked, keep)

    def children_changed(self, group: int) -> None:
        leave_loop()
        self._changed(group)

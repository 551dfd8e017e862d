"""A group as its directory shows it, and the attachment to one."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Iterator, Mapping

from fsmount.control_files.holders import HoldersFile
from fsmount.control_files.lease import GroupLeaseFile, LeaseFile
from fsmount.control_files.values import StatFile, UsageFile
from fsmount.errors import GroupRemoved, LimitExceeded, NotHeld
from fsmount.files.counter import LeaseCounter
from fsmount.files.hold import Hold, Written
from fsmount.files.mount_errors import DESCRIPTORS, says_gone, told_of
from fsmount.files.open_lease import OpenLease, no_fork
from fsmount.interface.multi_requests import WholeRequests
from fsmount.interface.on_exit import ends_with_keep
from fsmount.protocol.suggestions import no_group, no_resource


class _Directory:
    """A descriptor of a directory, closed when nobody has it any more: who looks through it keeps it meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.path = f"{DESCRIPTORS}{descriptor}"

    def __del__(self) -> None:
        os.close(self.descriptor)


def attach_files(directory: str, on_exit: str) -> LeaseGroup:
    """An attachment to the group at this real path.

    FileNotFoundError, NotADirectoryError; EINVAL: no directory of an fsmount tree; TreeGone: its daemon is
    gone; PermissionError: none of its lease files may be opened.
    """
    group = group_at(directory, keep=ends_with_keep(on_exit))
    if _is_read_only(directory):  # it can be asked all the same
        return group
    files = [GroupLeaseFile.name, *(LeaseFile.file_name(name, unit) for name, unit in group.units.items())]
    leases = [os.path.join(directory, file) for file in files]
    if not any(os.access(lease, os.R_OK | os.W_OK, effective_ids=True) for lease in leases):
        raise PermissionError(
            errno.EACCES, "no lease file of this group is ours to open; its owner can change that", leases[0]
        )
    group.pin()
    return group


def _is_read_only(directory: str) -> bool:
    with told_of(directory):
        return os.statvfs(directory).f_flag & os.ST_RDONLY != 0


def group_at(directory: str, *, keep: bool = False) -> LeaseGroup:
    """The group at this real path, to be asked, and attached when it is first charged.

    FileNotFoundError, NotADirectoryError, PermissionError; EINVAL: no directory of an fsmount tree; TreeGone.
    """
    try:
        resources = _resources(directory)
    except OSError as error:
        if says_gone(error):
            raise no_group(directory) from None
        with told_of(directory):
            raise
    if not resources:
        raise OSError(errno.EINVAL, "this directory is in no fsmount tree", directory)
    return LeaseGroup(directory, resources, keep)


def _resources(directory: str) -> dict[str, str]:
    """Name -> unit of what the group at this path counts; empty if it is none."""
    with os.scandir(directory) as entries:
        files = [entry.name for entry in entries if not entry.is_dir()]
    names = set(files)
    found = {}
    for file in files:
        name, _, ending = file.rpartition(".")
        if ending == StatFile.name and f"{name}.{HoldersFile.name}" in names:
            found[name] = "bytes" if UsageFile.file_name(name, "bytes") in names else "count"
    return found


class LeaseGroup(WholeRequests):
    """A group as its directory shows it.

    One that came from attach() is an attachment: close() ends it, and so does the end of a `with`.  Any
    other attaches itself when it is first charged.  Attachments hold their own: what one of them charged
    another does not give back.
    """

    def __init__(self, path: str, units: Mapping[str, str], keep: bool = False) -> None:
        self._path = path
        #: Name -> unit ("bytes" or "count").
        self.units = dict(units)
        #: Whether the group keeps what is held at the end.
        self.keep = keep
        self._counters: dict[str, LeaseCounter] = {}
        self._leases: dict[str | None, OpenLease] = {}
        self._directory: _Directory | None = None
        self._closed = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeaseGroup) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"<LeaseGroup {self.path}>"

    # ---- what it is

    @functools.cached_property
    def identity(self) -> tuple[int, int]:
        """Device and inode of its directory: never those of another group of the mount."""
        with told_of(self.path), self.where() as where:
            status = os.stat(where)
        return status.st_dev, status.st_ino

    @property
    def path(self) -> str:
        """Its path; of an attachment also after somebody renamed it."""
        if (directory := self._directory) is not None:
            path = os.readlink(directory.path)
            if path != self._path and _is_at(directory, path):
                self._path = path
        return self._path

    @property
    def name(self) -> str:
        """Its name; the root's is empty."""
        return "" if self.parent is None else os.path.basename(self.path)

    @property
    def parent(self) -> LeaseGroup | None:
        """None for the root, or for the topmost group that can be seen from here."""
        path = self.path
        above = os.path.dirname(path)
        with told_of(path):
            device = os.stat(path).st_dev
        first = next(iter(self.units))
        try:
            inside = os.stat(os.path.join(above, StatFile.file_name(first, self.units[first]))).st_dev == device
        except OSError:
            inside = False
        return LeaseGroup(above, self.units) if inside and above != path else None

    @property
    def resources(self) -> tuple[str, ...]:
        return tuple(self.units)

    @property
    def exists(self) -> bool:
        """Whether it has not been removed."""
        try:
            self[self.resources[0]].stat()  # to be read it must be asked for; a stat() the kernel may answer itself
        except GroupRemoved:
            return False
        return True

    def children(self) -> list[LeaseGroup]:
        """The groups in it."""
        path = self.path
        with told_of(path), self.where() as where, os.scandir(where) as listing:
            entries = list(listing)
        if not entries:  # a group has files; what is removed while it is open reads as empty
            raise GroupRemoved(path)
        return [LeaseGroup(os.path.join(path, entry.name), self.units) for entry in entries if entry.is_dir()]

    def __getitem__(self, resource: str) -> LeaseCounter:
        """The counter of a resource.  KeyError."""
        if resource not in self.units:
            raise no_resource(resource, self.units)
        return self._counters.get(resource) or self._counters.setdefault(resource, LeaseCounter(self, resource))

    def __iter__(self) -> Iterator[str]:
        return iter(self.units)

    # ---- whole requests; charge, uncharge and hold are WholeRequests'

    # `written` is not empty once the amounts are charged, even if a signal's handler raises right after

    def change(self, amounts: Mapping[str, int], written: Written | None = None) -> None:
        self._change(self.lease_for(amounts), amounts, written)

    def hold_requested(self, amounts: dict[str, int], wait: bool, timeout: float | None) -> Hold:
        return Hold(self, amounts, wait, timeout)

    def charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None, written: Written | None = None) -> bool:
        return self.lease_for(amounts).charge_in_turn(amounts, timeout, written)

    async def charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        await self.lease_for(amounts).charge_in_turn_async(amounts)

    def lease_for(self, amounts: Mapping[str, int]) -> OpenLease:
        """The lease that charges these amounts."""
        if len(amounts) > 1:  # that resource's own lease may be the only one that is ours to open
            return self.lease()
        (resource,) = amounts
        return self[resource].lease()

    def charge_common(self, amounts: Mapping[str, int]) -> None:
        """Charges the group itself, all at once or nothing: it stays until it is uncharged.  LimitExceeded."""
        if len(amounts) == 1:
            for resource, amount in amounts.items():
                self[resource].charge_common(amount)
        else:
            with self._lease_of_this_call() as lease:
                self._change(lease, amounts)
                lease.tell("give")

    def charge_common_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> None:
        """The same when it is their turn; LimitExceeded if that takes longer than so many seconds."""
        wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
        with self._lease_of_this_call() as lease:
            if wanted and not lease.charge_in_turn(wanted, timeout):
                self._change(lease, wanted)
            lease.tell("give")

    def uncharge_common(self, amounts: Mapping[str, int]) -> None:
        """Gives back of what the group itself holds, all at once or nothing.  NotHeld."""
        if len(amounts) == 1:
            for resource, amount in amounts.items():
                self[resource].uncharge_common(amount)
        else:
            with self._lease_of_this_call() as lease:
                if lease.tell("take", {resource: f"{amount}" for resource, amount in amounts.items()}):
                    raise self._not_held(amounts, {resource: self[resource].stat()["common"] for resource in amounts})

    @contextlib.contextmanager
    def _lease_of_this_call(self) -> Iterator[OpenLease]:
        lease = OpenLease(self, None, keep=False)
        try:
            yield lease
        finally:
            lease.end()

    def _change(self, lease: OpenLease, amounts: Mapping[str, int], written: Written | None = None) -> None:
        refusal = lease.tell("", {resource: f"{amount:+d}" for resource, amount in amounts.items()}, written)
        if refusal == errno.ENOMEM:
            raise self._limit_exceeded(amounts)
        if refusal == errno.ERANGE:
            raise self._not_held({resource: -amount for resource, amount in amounts.items()}, lease.held())

    def _limit_exceeded(self, amounts: Mapping[str, int]) -> LimitExceeded:
        """Names the first resource of which there is not enough now, else the one with the least to spare."""
        found = [self[resource].limit_exceeded(amount) for resource, amount in amounts.items() if amount > 0]
        return min(found, key=lambda refused: max(refused.limit - refused.usage - refused.requested, -1))

    def _not_held(self, amounts: Mapping[str, int], held: Mapping[str, int]) -> NotHeld:
        """Likewise."""
        resource = min(amounts, key=lambda resource: max(held[resource] - amounts[resource], -1))
        return NotHeld(resource, amounts[resource], held[resource], self.path)

    # ---- the attachment

    def lease(self, resource: str | None = None) -> OpenLease:
        """The lease of one resource, or of all of them."""
        return self._leases.get(resource) or self._leases.setdefault(resource, OpenLease(self, resource, self.keep))

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Ends the attachment: what it holds is given back, or kept by the group, when this returns.

        The group can still be asked, but no more be charged through this object.
        """
        self._closed = True
        for lease in list(self._leases.values()):
            lease.end()
        self._unpin()

    detach = close

    def __enter__(self) -> LeaseGroup:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def pin(self) -> None:
        """Holds on to the directory itself rather than to its path: it may be renamed."""
        with no_fork(), told_of(self._path):
            if self._directory is None:
                self._directory = _Directory(os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def _unpin(self) -> None:
        self._path = self.path
        self._directory = None

    @contextlib.contextmanager
    def where(self) -> Iterator[str]:
        """A path that leads to its files in the block, also if another thread closes it meanwhile."""
        directory = self._directory
        try:
            yield self._path if directory is None else directory.path
        finally:
            del directory  # or the traceback of an error would keep it


def _is_at(directory: _Directory, path: str) -> bool:
    """Whether a path of the kernel's leads there: not so if the group was removed, or its mount is gone."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(directory.descriptor))
    return False

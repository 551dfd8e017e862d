"""Groups through their files: found at a path, with counters, children and multi-resource requests."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from fsmount.control_files.holders import HoldersFile
from fsmount.control_files.lease import GroupLeaseFile, LeaseFile
from fsmount.control_files.values import StatFile, UsageFile
from fsmount.errors import GroupRemoved, LimitExceeded, NotHeld
from fsmount.files.attachment import AttachedGroup
from fsmount.files.counter import LeaseCounter
from fsmount.files.directory import GroupDirectory, Identity, identity_of
from fsmount.files.hold import Hold, Written
from fsmount.files.mount_errors import public_errors, says_gone
from fsmount.files.open_lease import OpenLease
from fsmount.interface import OnExit, busy
from fsmount.interface.options import ends_with_keep
from fsmount.protocol.names import BAD_NAME, NAME_MAX, NAME_OF_A_FILE, NAME_OF_A_GROUP, is_group_name
from fsmount.protocol.suggestions import no_group, no_resource


def attach_files(directory: str, on_exit: OnExit) -> LeaseGroup:
    """An attachment to the group at this real path.

    FileNotFoundError, NotADirectoryError; EINVAL: the directory is in no fsmount tree; TreeGone: its daemon is gone;
    PermissionError: this user may open none of its lease files.
    """
    group = group_at(directory, keep=ends_with_keep(on_exit))
    if _is_read_only(directory):  # the group can be read, though not charged
        return group
    files = [GroupLeaseFile.name, *(LeaseFile.file_name(name, unit) for name, unit in group.units.items())]
    leases = [os.path.join(directory, file) for file in files]
    if not any(os.access(lease, os.R_OK | os.W_OK, effective_ids=True) for lease in leases):
        raise PermissionError(
            errno.EACCES, "you may open no lease file of this group: ask its owner for chmod or chown", leases[0]
        )
    group.directory.pin()
    return group


def _is_read_only(directory: str) -> bool:
    with public_errors(directory):
        return os.statvfs(directory).f_flag & os.ST_RDONLY != 0


def group_at(directory: str, *, keep: bool = False) -> LeaseGroup:
    """The group at this real path, which is not attached before its first charge.

    FileNotFoundError, NotADirectoryError, PermissionError; EINVAL: the directory is in no fsmount tree; TreeGone.
    """
    try:
        resources = _resources(directory)
    except OSError as error:
        if says_gone(error):
            raise no_group(directory) from None
        with public_errors(directory):
            raise
    if not resources:
        raise OSError(errno.EINVAL, "this directory is in no fsmount tree", directory)
    return LeaseGroup.at(directory, resources, keep)


def _resources(directory: str) -> dict[str, str]:
    """Resource -> unit of the group at this path; empty if it is no group."""
    with os.scandir(directory) as entries:
        files = [entry.name for entry in entries if not entry.is_dir()]
    names = set(files)
    found = {}
    for file in files:
        name, _, ending = file.rpartition(".")
        if ending == StatFile.name and f"{name}.{HoldersFile.name}" in names:
            found[name] = "bytes" if UsageFile.file_name(name, "bytes") in names else "count"
    return found


def _status(path: str) -> os.stat_result | None:
    """The status of a file or directory, or None without one."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _name_is_taken(path: str) -> FileExistsError:
    text = NAME_OF_A_GROUP if os.path.isdir(path) else NAME_OF_A_FILE
    return FileExistsError(errno.EEXIST, text, path)


class LeaseGroup(AttachedGroup):
    """A group through its files, with its counters and its children."""

    def __init__(self, directory: GroupDirectory, units: Mapping[str, str], keep: bool = False) -> None:
        super().__init__(directory, units, keep)
        self._counters: dict[str, LeaseCounter] = {}

    @classmethod
    def at(cls, path: str, units: Mapping[str, str], keep: bool = False) -> LeaseGroup:
        """The group at this path."""
        with public_errors(path):
            return cls(GroupDirectory(path, identity_of(os.stat(path))), units, keep)

    @property
    def parent(self) -> LeaseGroup | None:
        if not self._is_below_a_group():
            return None
        path = os.path.dirname(self.path)
        with public_errors(path):
            identity = identity_of(os.stat(path))
        return LeaseGroup(GroupDirectory(path, identity, below=self.directory), self.units)

    def _child(self, path: str, identity: Identity) -> LeaseGroup:
        return LeaseGroup(GroupDirectory(path, identity, above=self.directory), self.units)

    def __getitem__(self, resource: str, /) -> LeaseCounter:
        if resource not in self.units:
            raise no_resource(resource, self.units)
        return self._counters.get(resource) or self._counters.setdefault(resource, LeaseCounter(self, resource))

    # ---- children

    def children(self) -> list[LeaseGroup]:
        path = self.path
        with public_errors(path), self.directory.where() as where, os.scandir(where) as listing:
            entries = list(listing)
        if not entries:  # every group has files, but a removed directory that is still open reads as empty
            raise GroupRemoved(path)
        device, _ = self.directory.identity
        return [
            self._child(f"{path.rstrip('/')}/{entry.name}", (device, entry.inode()))
            for entry in entries
            if entry.is_dir()
        ]

    def child(self, name: str | bytes) -> LeaseGroup:
        path = self._path_of_child(name)
        if is_group_name(name):
            with public_errors(self.path), self.directory.where() as where:
                status = _status(os.path.join(where, os.fsdecode(name)))
            if status is not None and stat.S_ISDIR(status.st_mode):
                return self._child(path, identity_of(status))
        if not self.exists:
            raise GroupRemoved(self.last_path())
        raise FileNotFoundError(errno.ENOENT, "there is no group of this name", path)

    def mkdir(self, name: str | bytes, mode: int = 0o755) -> LeaseGroup:
        path = self._path_of_new_child(name)
        with public_errors(self.path), self.directory.where() as where:
            made = os.path.join(where, os.fsdecode(name))
            try:
                os.mkdir(made, mode)
            except FileExistsError:
                raise _name_is_taken(path) from None
            status = os.stat(made)
            given = stat.S_IMODE(status.st_mode)
            if given | mode != given:  # the umask took rights away
                os.chmod(made, given | mode)
        return self._child(path, identity_of(status))

    def rmdir(self, name: str | bytes) -> None:
        child = self.child(name)
        path = child.last_path()
        with public_errors(path), self.directory.where() as where:
            try:
                os.rmdir(os.path.join(where, os.path.basename(path)))
            except OSError as error:
                is_busy = error.errno == errno.EBUSY
                text = f"the group cannot be removed: {child._why_busy()}" if is_busy else error.strerror
                raise OSError(error.errno, text, path) from None

    def rename(self, old: str | bytes, new: str | bytes) -> None:
        child = self.child(old)
        path = self._path_of_new_child(new)
        if path == child.path:
            return
        with public_errors(self.path), self.directory.where() as where:
            target = os.path.join(where, os.fsdecode(new))
            if os.path.lexists(target):
                raise _name_is_taken(path)
            os.rename(os.path.join(where, child.name), target)

    def _path_of_child(self, name: str | bytes) -> str:
        return f"{self.path.rstrip('/')}/{os.fsdecode(name)}"

    def _path_of_new_child(self, name: str | bytes) -> str:
        path = self._path_of_child(name)
        if not is_group_name(name):
            too_long = len(os.fsencode(name)) > NAME_MAX
            raise OSError(errno.ENAMETOOLONG if too_long else errno.EINVAL, BAD_NAME, path)
        return path

    def _why_busy(self) -> str:
        try:
            return self._reason_to_stay()
        except OSError:  # this user may not read the group's files
            return "it is in use"

    def _reason_to_stay(self) -> str:
        children = len(self.children())
        if children:
            return busy.with_groups(children)
        for counter in map(self.__getitem__, self.units):
            pids = {holder.pid for holder in counter.holders() if holder.pid}
            if pids:
                return busy.with_holders(sorted(pids), counter.resource)
            usage = counter.usage
            if usage:
                return busy.with_usage(usage, counter.resource)
        return "it was in use"

    # ---- attaching

    def attach(self, *, on_exit: OnExit = "release") -> LeaseGroup:
        ends_with_keep(on_exit)
        if not self.exists:
            raise GroupRemoved(self.last_path())
        return attach_files(self.path, on_exit)

    # ---- multi-resource requests

    # `written` is not empty once the amounts are charged, even if a signal's handler raises right after

    def _change(self, amounts: Mapping[str, int], written: Written | None = None) -> None:
        self._change_in(self.lease_for(amounts), amounts, written)

    def _hold(self, amounts: dict[str, int], wait: bool, timeout: float | None) -> Hold:
        return Hold(self, amounts, wait, timeout)

    def charge_common(self, amounts: Mapping[str, int]) -> None:
        """Charges the group itself, all amounts at once or nothing, until uncharge_common().  LimitExceeded."""
        if len(amounts) == 1:
            for resource, amount in amounts.items():
                self[resource].charge_common(amount)
        else:
            with self.lease_of_this_call() as lease:
                self._change_in(lease, amounts)
                lease.tell("give")

    def charge_common_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> None:
        """As charge_common(), in the queue.  LimitExceeded: the turn did not come within `timeout` seconds."""
        wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
        with self.lease_of_this_call() as lease:
            if wanted and not lease.charge_in_turn(wanted, timeout):
                self._change_in(lease, wanted)
            lease.tell("give")

    def uncharge_common(self, amounts: Mapping[str, int]) -> None:
        """Uncharges the group itself, all amounts at once or nothing.  NotHeld."""
        if len(amounts) == 1:
            for resource, amount in amounts.items():
                self[resource].uncharge_common(amount)
        else:
            with self.lease_of_this_call() as lease:
                if lease.tell("take", {resource: f"{amount}" for resource, amount in amounts.items()}):
                    raise self._not_held(amounts, {resource: self[resource].stat()["common"] for resource in amounts})

    def _change_in(self, lease: OpenLease, amounts: Mapping[str, int], written: Written | None = None) -> None:
        refusal = lease.tell("", {resource: f"{amount:+d}" for resource, amount in amounts.items()}, written)
        if refusal == errno.ENOMEM:
            raise self._limit_exceeded(amounts)
        if refusal == errno.ERANGE:
            raise self._not_held({resource: -amount for resource, amount in amounts.items()}, lease.held())

    def _limit_exceeded(self, amounts: Mapping[str, int]) -> LimitExceeded:
        """The error for the first resource without room for its amount, or for the one with the least room left."""
        found = [self[resource].limit_exceeded(amount) for resource, amount in amounts.items() if amount > 0]
        return min(found, key=lambda refused: max(refused.limit - refused.usage - refused.requested, -1))

    def _not_held(self, amounts: Mapping[str, int], held: Mapping[str, int]) -> NotHeld:
        """The error for the first resource of which too little is held, or for the one with the least left."""
        resource = min(amounts, key=lambda resource: max(held[resource] - amounts[resource], -1))
        return NotHeld(resource, amounts[resource], held[resource], self.path)

"""A group by its directory, and this process's attachment to it: the leases that it holds open."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import IO

from fsmount.control_files.values import StatFile
from fsmount.errors import GroupRemoved
from fsmount.files.directory import GroupDirectory
from fsmount.files.hold import Written
from fsmount.files.mount_errors import public_errors
from fsmount.files.open_lease import OpenLease
from fsmount.interface import Group
from fsmount.protocol.group_file import opened_group_file

_FLAGS = {"rb": os.O_RDONLY, "wb": os.O_WRONLY, "r+b": os.O_RDWR}


class AttachedGroup(Group):
    """A group that is read through its files, and attaches itself with its first charge.

    Each attachment holds its own charges, and no other attachment can release them.
    """

    def __init__(self, directory: GroupDirectory, units: Mapping[str, str], keep: bool = False) -> None:
        #: The directory of the group.
        self.directory = directory
        self._units = dict(units)
        self._keep = keep
        self._leases: dict[str | None, OpenLease] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttachedGroup) and self.directory.identity == other.directory.identity

    def __hash__(self) -> int:
        return hash(self.directory.identity)

    # ---- the group

    @property
    def path(self) -> str:
        path = self.last_path()
        if not self.directory.is_at(path) and self._is_removed():
            raise GroupRemoved(path)
        return path

    def last_path(self) -> str:
        return self.directory.last_path

    @property
    def name(self) -> str:
        return os.path.basename(self.path) if self._is_below_a_group() else ""

    @property
    def units(self) -> Mapping[str, str]:
        return self._units

    @property
    def exists(self) -> bool:
        try:
            self.read(StatFile.file_name(*next(iter(self._units.items()))))  # the kernel may answer a stat() itself
        except GroupRemoved:
            return False
        return True

    def _is_removed(self) -> bool:
        try:
            return not self.exists
        except OSError:  # nothing is known of a group whose files cannot be read
            return False

    def read(self, name: str) -> bytes:
        """The text of one of its files."""
        with self.opened(name, "rb") as file:
            return file.read()

    @contextlib.contextmanager
    def opened(self, name: str, mode: str) -> Iterator[IO[bytes]]:
        """One of its files, opened; no file is made or truncated."""
        with (
            public_errors(self.last_path()),
            self.directory.where() as where,
            opened_group_file(os.path.join(where, name), _FLAGS[mode] | os.O_NONBLOCK) as descriptor,
            open(descriptor, mode, buffering=0, closefd=False) as file,
        ):
            yield file

    def _is_below_a_group(self) -> bool:
        path = self.path
        above = os.path.dirname(path)
        with public_errors(path):
            device = os.stat(path).st_dev
        stat = StatFile.file_name(*next(iter(self._units.items())))
        try:
            return above != path and os.stat(os.path.join(above, stat)).st_dev == device
        except OSError:
            return False

    # ---- the attachment

    @property
    def closed(self) -> bool:
        return self.directory.closed

    def close(self) -> None:
        self.directory.closed = True
        for lease in list(self._leases.values()):
            lease.end()
        self.directory.unpin()

    def lease(self, resource: str | None = None) -> OpenLease:
        """The lease of one resource, or of all."""
        found = self._leases.get(resource)
        return found or self._leases.setdefault(resource, OpenLease(self.directory, self._units, resource, self._keep))

    def lease_for(self, amounts: Mapping[str, int]) -> OpenLease:
        """The lease that charges these amounts."""
        if len(amounts) > 1:
            return self.lease()
        (resource,) = amounts
        return self.lease_of(resource)

    def lease_of(self, resource: str) -> OpenLease:
        """The lease that charges one resource: the lease of all, or the resource's own if only that may be opened."""
        lease = self.lease(resource)
        if not lease.is_open:
            with contextlib.suppress(PermissionError):
                self.lease().open()
                return self.lease()
        return lease

    @contextlib.contextmanager
    def lease_of_this_call(self) -> Iterator[OpenLease]:
        """A lease for the block alone."""
        lease = OpenLease(self.directory, self._units, None, keep=False)
        try:
            yield lease
        finally:
            lease.end()

    @abstractmethod
    def _change(self, amounts: Mapping[str, int], written: Written | None = None) -> None: ...

    def _charge_in_turn(
        self, amounts: Mapping[str, int], timeout: float | None, written: Written | None = None
    ) -> bool:
        return self.lease_for(amounts).charge_in_turn(amounts, timeout, written)

    async def _charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        await self.lease_for(amounts).charge_in_turn_async(amounts)

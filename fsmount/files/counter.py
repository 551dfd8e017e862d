"""The counter of a group as its files show it."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from fsmount.control_files.control_file import ControlFile
from fsmount.control_files.events import EventsFile
from fsmount.control_files.holders import HoldersFile
from fsmount.control_files.probe import ProbeFile
from fsmount.control_files.snapshot import SnapshotFile
from fsmount.control_files.values import (
    ChargeFile,
    FailcntFile,
    LimitFile,
    MaxUsageFile,
    SoftLimitFile,
    StatFile,
    UnchargeFile,
    UsageFile,
)
from fsmount.control_files.why import WhyFile
from fsmount.errors import NOFAIL_IS_RESERVED, LimitExceeded, NotHeld
from fsmount.files.hold import Hold
from fsmount.files.mount_errors import told_of
from fsmount.interface.arguments import checked_amount, checked_timeout
from fsmount.protocol.group_file import opened_group_file
from fsmount.protocol.listings import CounterSnapshot, HolderLine, parse_groups, parse_holders

if TYPE_CHECKING:
    from fsmount.files.group import LeaseGroup
    from fsmount.files.open_lease import OpenLease
    from fsmount.protocol.refusals import Probe, Refusal

# What is read at once of a file that may be long, in bytes.
_LARGE = 1 << 20

_FLAGS = {"rb": os.O_RDONLY, "wb": os.O_WRONLY, "r+b": os.O_RDWR}


class LeaseCounter:
    """The counter of one resource in a group.  Charging it charges every ancestor too.

    Amounts are ints from 0 to UNLIMITED: anything else is a TypeError, ValueError (below 0) or
    OverflowError.  Safe to use from several threads.
    """

    def __init__(self, group: LeaseGroup, resource: str) -> None:
        self.group = group
        self.resource = resource

    def __repr__(self) -> str:
        return f"<LeaseCounter {self.resource} of {self.group.path}>"

    @property
    def unit(self) -> str:
        """ "bytes" or "count"."""
        return self.group.units[self.resource]

    # ---- charging

    def charge(self, amount: int, /, *, wait: bool = False, timeout: float | None = None) -> None:
        """Charges, or raises LimitExceeded and changes nothing.

        wait: if there is no room, it waits in line until there is; for so many seconds, or with None for ever.
        """
        timeout = checked_timeout(wait, timeout)
        amount = checked_amount(amount)
        if wait and amount > 0 and self.group.charge_in_turn({self.resource: amount}, timeout):
            return
        if not self.try_charge(amount):
            raise self.limit_exceeded(amount)

    async def wait_charge(self, amount: int) -> None:
        """Charges as soon as there is room and it is its turn, in a task of trio or asyncio.

        Cancelled, it has charged nothing.
        """
        await self.group.wait_charge({self.resource: amount})

    def try_charge(self, amount: int) -> bool:
        """Charges; False, with nothing changed, if a limit would be passed."""
        return not self._tell("", f"+{checked_amount(amount)}")

    def charge_nofail(self, amount: int) -> bool:
        """Always charges; False if a limit on the way up is exceeded after it.

        PermissionError: for root and the owner of the mount alone.
        """
        try:
            self._tell("nofail", f"{checked_amount(amount)}")
        except PermissionError as error:
            if error.errno == errno.EPERM:  # and not EACCES, of a lease that may not be opened
                raise PermissionError(errno.EPERM, NOFAIL_IS_RESERVED, self.group.path) from None
            raise
        return all(stat["usage"] <= stat["limit"] for _, stat in self._upwards())

    def uncharge(self, amount: int) -> None:
        """Gives back of what this attachment holds, or raises NotHeld and changes nothing."""
        if self._tell("", f"-{checked_amount(amount)}"):
            raise NotHeld(self.resource, amount, self.held, self.group.path)

    def give(self, amount: int) -> None:
        """What this attachment holds becomes the group's own.  NotHeld."""
        if self._tell("give", f"{checked_amount(amount)}"):
            raise NotHeld(self.resource, amount, self.held, self.group.path)

    def take(self, amount: int) -> None:
        """What the group itself holds becomes this attachment's.  NotHeld."""
        if self._tell("take", f"{checked_amount(amount)}"):
            raise NotHeld(self.resource, amount, self.stat()["common"], self.group.path)

    def hold(self, amount: int, *, wait: bool = False, timeout: float | None = None) -> Hold:
        """A context manager: charged inside, uncharged after; wait and timeout as those of charge()."""
        return Hold(self.group, {self.resource: checked_amount(amount)}, wait, checked_timeout(wait, timeout))

    @property
    def held(self) -> int:
        """What this attachment holds here."""
        return sum(self.group.lease(which).held().get(self.resource, 0) for which in (None, self.resource))

    def lease(self) -> OpenLease:
        """The group's lease, or one of this resource alone if that one may not be opened."""
        lease = self.group.lease(self.resource)
        if not lease.is_open:
            try:
                self.group.lease().open()
                lease = self.group.lease()
            except PermissionError:
                pass
        return lease

    def _tell(self, word: str, number: str) -> int:
        return self.lease().tell(word, {self.resource: number})

    # ---- what it says

    @property
    def usage(self) -> int:
        """What is charged in the subtree, precisely: stock is not usage."""
        return int(self._read(UsageFile))

    @property
    def limit(self) -> int:
        """The limit.  Set to less than the usage it raises OSError(EBUSY) and stays as it is."""
        return int(self._read(LimitFile))

    @limit.setter
    def limit(self, limit: int) -> None:
        limit = checked_amount(limit)
        try:
            write_amount(self, LimitFile, limit)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise OSError(
                errno.EBUSY,
                f"the limit of {self.resource} cannot be {limit}: the usage is {self.usage}; uncharge first, "
                "or set no less than that",
                self.group.path,
            ) from None

    @property
    def soft_limit(self) -> int:
        return int(self._read(SoftLimitFile))

    @soft_limit.setter
    def soft_limit(self, limit: int) -> None:
        write_amount(self, SoftLimitFile, checked_amount(limit))

    @property
    def max_usage(self) -> int:
        """The peak of the usage since it was reset; stat()["error_bound"] tells how far it may be off."""
        return int(self._read(MaxUsageFile))

    @property
    def failcnt(self) -> int:
        """How many charges this counter refused, since it was reset."""
        return int(self._read(FailcntFile))

    @property
    def margin(self) -> int:
        """What may still be charged before this limit: limit - usage, 0 at least."""
        return self.stat()["margin"]

    @property
    def soft_limit_excess(self) -> int:
        """By how much the usage is above the soft limit."""
        return self.stat()["soft_limit_excess"]

    def stat(self) -> dict[str, int]:
        """All there is to know of it, of one moment; the keys of R.stat in their order."""
        return _parse_counts(self._read(StatFile))

    def events(self) -> dict[str, int]:
        """What happened in the subtree, ever; the keys of R.events in their order."""
        return _parse_counts(self._read(EventsFile))

    def holders(self) -> list[HolderLine]:
        """Who holds something here, or may; the common pot too."""
        return parse_holders(self._read(HoldersFile))

    def snapshot(self) -> list[CounterSnapshot]:
        """Every group from this one down, parents before their children, all of one moment; see Tree.snapshot()."""
        with self._opened(SnapshotFile.file_name(self.resource), "rb") as file:
            return parse_groups(b"".join(iter(functools.partial(file.read, _LARGE), b"")))

    def why(self) -> list[Refusal]:
        """The last refusals of charges that were asked for in the subtree, or refused by a limit in it, newest first.

        A tree keeps the last 256 of different processes, counters or limits.
        """
        from fsmount.protocol.refusals import Refusal

        return [Refusal.parse(line) for line in os.fsdecode(self._read(WhyFile)).split("\n")[:-1]]

    def probe(self, amount: int) -> Probe:
        """What a charge of so much would meet now, without charging, and without taking anybody's stock.

        It is one that does not wait: who stands in line takes no room from it.
        """
        from fsmount.protocol.refusals import Probe

        amount = checked_amount(amount)
        with self._opened(self._name(ProbeFile), "r+b") as file:
            file.write(b"%d" % amount)
            return Probe.parse(os.fsdecode(file.read()))

    # ---- what it can be told

    def reset_max_usage(self) -> None:
        """Sets max_usage, and min_usage, to the usage of now."""
        self._write(MaxUsageFile, b"0")

    def reset_failcnt(self) -> None:
        self._write(FailcntFile, b"0")

    def charge_common(self, amount: int) -> None:
        """Charges the group itself: it stays until it is uncharged, whoever lives or dies.  LimitExceeded."""
        amount = checked_amount(amount)
        try:
            self._write(ChargeFile, b"%d" % amount)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise self.limit_exceeded(amount) from None

    def uncharge_common(self, amount: int) -> None:
        """Gives back of what the group itself holds.  NotHeld."""
        amount = checked_amount(amount)
        try:
            self._write(UnchargeFile, b"%d" % amount)
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
            raise NotHeld(self.resource, amount, self.stat()["common"], self.group.path) from None

    # ---- files

    def _name(self, kind: type[ControlFile]) -> str:
        return kind.file_name(self.resource, self.unit)

    @contextlib.contextmanager
    def _opened(self, name: str, mode: str) -> Iterator[IO[bytes]]:
        """Opens a file of the group; nothing is made or truncated where there is none."""
        group = self.group
        with (
            told_of(group.path),
            group.where() as where,
            opened_group_file(os.path.join(where, name), _FLAGS[mode] | os.O_NONBLOCK) as descriptor,
            open(descriptor, mode, buffering=0, closefd=False) as file,
        ):
            yield file

    def _read(self, kind: type[ControlFile]) -> bytes:
        with self._opened(self._name(kind), "rb") as file:
            return file.read()

    def _write(self, kind: type[ControlFile], text: bytes) -> None:
        with self._opened(self._name(kind), "wb") as file:
            file.write(text)

    # ---- who refused

    def _upwards(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Path and stat of the group and its ancestors."""
        group: LeaseGroup | None = self.group
        while group is not None:
            yield group.path, group[self.resource].stat()
            group = group.parent

    def limit_exceeded(self, requested: int) -> LimitExceeded:
        """Names the first on the way up that has no room for it now, else the one with the least."""
        found: tuple[str, dict[str, int]] | None = None
        for path, stat in self._upwards():
            if found is None or stat["margin"] < found[1]["margin"]:
                found = path, stat
            if stat["margin"] < requested:
                break
        assert found is not None
        path, stat = found
        return LimitExceeded(path, self.resource, requested, stat["usage"], stat["limit"])


def write_amount(counter: LeaseCounter, kind: type[ControlFile], amount: int) -> None:
    """Writes an amount into a control file of the counter."""
    counter._write(kind, b"%d" % amount)


def _parse_counts(text: bytes) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in text.decode().splitlines())}

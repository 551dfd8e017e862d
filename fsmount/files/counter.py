"""The counter of a group through the group's files."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from fsmount.control_files.control_file import ControlFile
from fsmount.control_files.events import EventsFile
from fsmount.control_files.holders import HoldersFile
from fsmount.control_files.probe import ProbeFile
from fsmount.control_files.snapshot import SnapshotFile
from fsmount.control_files.values import (
    ChargeFile,
    FailcntFile,
    ForceEmptyFile,
    LimitFile,
    MaxUsageFile,
    SoftLimitFile,
    StatFile,
    UnchargeFile,
    UsageFile,
)
from fsmount.control_files.why import WhyFile
from fsmount.errors import LimitExceeded, NotHeld
from fsmount.files.attachment import AttachedGroup
from fsmount.files.hold import Hold
from fsmount.interface import Counter
from fsmount.interface.arguments import checked_amount, checked_timeout
from fsmount.protocol.listings import CounterSnapshot, HolderLine, parse_groups, parse_holders

if TYPE_CHECKING:
    from fsmount.protocol.refusals import Probe, Refusal

T = TypeVar("T")

# The size of one read of a long file, in bytes.
_LARGE = 1 << 20


class LeaseCounter(Counter):
    """The counter of one resource in a group that is charged through a lease file."""

    def __init__(self, group: AttachedGroup, resource: str) -> None:
        self._group = group
        self._resource = resource

    @property
    def group(self) -> AttachedGroup:
        return self._group

    @property
    def resource(self) -> str:
        return self._resource

    # ---- charging

    def charge(self, amount: int, /, *, wait: bool = False, timeout: float | None = None) -> None:
        timeout = checked_timeout(wait, timeout)
        amount = checked_amount(amount)
        if wait and amount > 0 and self._group._charge_in_turn({self._resource: amount}, timeout):
            return
        if not self.try_charge(amount):
            raise self.limit_exceeded(amount)

    def try_charge(self, amount: int, /) -> bool:
        return not self._tell("", f"+{checked_amount(amount)}")

    def charge_nofail(self, amount: int, /) -> bool:
        try:
            self._tell("nofail", f"{checked_amount(amount)}")
        except PermissionError as error:
            if error.errno == errno.EPERM:  # EACCES is for a lease that may not be opened
                raise self._nofail_is_reserved() from None
            raise
        return self._is_within_limits()

    def uncharge(self, amount: int, /) -> None:
        if self._tell("", f"-{checked_amount(amount)}"):
            raise NotHeld(self._resource, amount, self.held, self._group.path)

    def give(self, amount: int, /) -> None:
        if self._tell("give", f"{checked_amount(amount)}"):
            raise NotHeld(self._resource, amount, self.held, self._group.path)

    def take(self, amount: int, /) -> None:
        if self._tell("take", f"{checked_amount(amount)}"):
            raise self._not_held_by_the_group(amount)

    def hold(self, amount: int, *, wait: bool = False, timeout: float | None = None) -> Hold:
        return Hold(self._group, {self._resource: checked_amount(amount)}, wait, checked_timeout(wait, timeout))

    @property
    def held(self) -> int:
        return sum(self._group.lease(which).held().get(self._resource, 0) for which in (None, self._resource))

    def charge_common(self, amount: int) -> None:
        amount = checked_amount(amount)
        try:
            self._write(ChargeFile, b"%d" % amount)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise self.limit_exceeded(amount) from None

    def uncharge_common(self, amount: int) -> None:
        amount = checked_amount(amount)
        try:
            self._write(UnchargeFile, b"%d" % amount)
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
            raise self._not_held_by_the_group(amount) from None

    def force_empty(self) -> None:
        self._write(ForceEmptyFile, b"1")

    def _tell(self, word: str, number: str) -> int:
        return self._group.lease_of(self._resource).tell(word, {self._resource: number})

    # ---- reading

    @property
    def usage(self) -> int:
        return self._parsed(UsageFile, int)

    @property
    def limit(self) -> int:
        return self._parsed(LimitFile, int)

    @limit.setter
    def limit(self, limit: int) -> None:
        limit = checked_amount(limit)
        try:
            self._write(LimitFile, b"%d" % limit)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise self._limit_below_usage(limit, self.usage) from None

    @property
    def soft_limit(self) -> int:
        return self._parsed(SoftLimitFile, int)

    @soft_limit.setter
    def soft_limit(self, limit: int) -> None:
        self._write(SoftLimitFile, b"%d" % checked_amount(limit))

    @property
    def max_usage(self) -> int:
        return self._parsed(MaxUsageFile, int)

    @property
    def failcnt(self) -> int:
        return self._parsed(FailcntFile, int)

    def stat(self) -> dict[str, int]:
        return self._parsed(StatFile, _parse_counts)

    def events(self) -> dict[str, int]:
        return self._parsed(EventsFile, _parse_counts)

    def holders(self) -> list[HolderLine]:
        return self._parsed(HoldersFile, parse_holders)

    def snapshot(self) -> list[CounterSnapshot]:
        with self._group.opened(SnapshotFile.file_name(self._resource), "rb") as file:
            text = b"".join(iter(functools.partial(file.read, _LARGE), b""))
        return self._parsed(SnapshotFile, parse_groups, text)

    def why(self, max_records: int = 256) -> list[Refusal]:
        from fsmount.protocol.refusals import Refusal

        def parse(text: bytes) -> list[Refusal]:
            return [Refusal.parse(line) for line in os.fsdecode(text).split("\n")[:-1][:max_records]]

        return self._parsed(WhyFile, parse)

    def probe(self, amount: int) -> Probe:
        from fsmount.protocol.refusals import Probe

        amount = checked_amount(amount)
        with self._group.opened(self._name(ProbeFile), "r+b") as file:
            file.write(b"%d" % amount)
            text = file.read()
        return self._parsed(ProbeFile, lambda text: Probe.parse(os.fsdecode(text)), text)

    # ---- resets

    def reset_max_usage(self) -> None:
        self._write(MaxUsageFile, b"0")

    def reset_failcnt(self) -> None:
        self._write(FailcntFile, b"0")

    # ---- files

    def _name(self, kind: type[ControlFile]) -> str:
        return kind.file_name(self._resource, self.unit)

    def _parsed(self, kind: type[ControlFile], parse: Callable[[bytes], T], text: bytes | None = None) -> T:
        """The content of a file.  OSError(EINVAL): no daemon of fsmount has written this text."""
        name = self._name(kind)
        try:
            return parse(self._group.read(name) if text is None else text)
        except (ValueError, TypeError, KeyError):
            path = os.path.join(self._group.path, name)
            raise OSError(
                errno.EINVAL, "the text is not that of a control file: is this a mount of fsmount?", path
            ) from None

    def _write(self, kind: type[ControlFile], text: bytes) -> None:
        with self._group.opened(self._name(kind), "wb") as file:
            file.write(text)

    # ---- errors: the daemon's errno names no group and no amounts, so they are read after it

    def limit_exceeded(self, requested: int) -> LimitExceeded:
        """The error for the first group on the way up without room for the amount, or with the least margin."""
        found: tuple[str, dict[str, int]] | None = None
        for counter in self._upwards():
            path, stat = counter.group.path, counter.stat()
            if found is None or stat["margin"] < found[1]["margin"]:
                found = path, stat
            if stat["margin"] < requested:
                break
        assert found is not None
        path, stat = found
        return LimitExceeded(path, self._resource, requested, stat["usage"], stat["limit"])

    def _not_held_by_the_group(self, requested: int) -> NotHeld:
        return NotHeld(self._resource, requested, self.stat()["common"], self._group.path)


def write_amount(counter: LeaseCounter, kind: type[ControlFile], amount: int) -> None:
    """Writes an amount into a control file of the counter."""
    counter._write(kind, b"%d" % amount)


def _parse_counts(text: bytes) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in text.decode().splitlines())}

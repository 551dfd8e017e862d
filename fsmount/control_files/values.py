"""A class for each kind of file that shows or changes counters, and the tables that find it."""

from typing import ClassVar

from pyfuse3 import RequestContext

from fsmount.control_files.control_file import CounterFile
from fsmount.control_files.events import EventsFile
from fsmount.control_files.holders import HoldersFile
from fsmount.control_files.lease import GroupLeaseFile, LeaseFile
from fsmount.control_files.probe import ProbeFile
from fsmount.control_files.threshold import ThresholdFile
from fsmount.control_files.why import WhyFile
from fsmount.protocol import file_table
from fsmount.protocol.file_table import Kind
from fsmount.quantities import parse
from fsmount.shm import Counter


class UsageFile(CounterFile):
    kind: ClassVar[Kind] = file_table.USAGE
    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.usage


class LimitFile(CounterFile):
    kind: ClassVar[Kind] = file_table.LIMIT
    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.limit

    def command(self, text: bytes) -> None:
        self.counter.limit = parse(text, limit=True)


class SoftLimitFile(CounterFile):
    kind: ClassVar[Kind] = file_table.SOFT_LIMIT
    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.soft_limit

    def command(self, text: bytes) -> None:
        self.counter.soft_limit = parse(text, limit=True)


class MaxUsageFile(CounterFile):
    kind: ClassVar[Kind] = file_table.MAX_USAGE
    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.max_usage

    def command(self, text: bytes) -> None:
        self.counter.reset_max_usage()


class FailcntFile(CounterFile):
    kind: ClassVar[Kind] = file_table.FAILCNT
    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.failcnt

    def command(self, text: bytes) -> None:
        self.counter.reset_failcnt()


class StatFile(CounterFile):
    kind: ClassVar[Kind] = file_table.STAT
    __slots__ = ()

    def text(self) -> bytes:
        return "".join(f"{key} {value}\n" for key, value in self.counter.stat().items()).encode()


class ChargeFile(CounterFile):
    kind: ClassVar[Kind] = file_table.CHARGE
    __slots__ = ("_thread",)

    def __init__(self, counter: Counter, inode: int, flags: int, ctx: RequestContext) -> None:
        super().__init__(counter, inode, flags, ctx)
        self._thread = ctx.pid or -1  # 0: its number means nothing here

    def command(self, text: bytes) -> None:
        self.counter.charge_common(parse(text), thread=self._thread)


class UnchargeFile(CounterFile):
    kind: ClassVar[Kind] = file_table.UNCHARGE
    __slots__ = ()

    def command(self, text: bytes) -> None:
        self.counter.uncharge_common(parse(text))


class ForceEmptyFile(CounterFile):
    kind: ClassVar[Kind] = file_table.FORCE_EMPTY
    __slots__ = ()

    def command(self, text: bytes) -> None:
        self.counter.force_empty()


#: A class for each kind of file of a resource.
CLASSES: tuple[type[CounterFile], ...] = (
    UsageFile,
    LimitFile,
    SoftLimitFile,
    MaxUsageFile,
    FailcntFile,
    StatFile,
    ChargeFile,
    UnchargeFile,
    ForceEmptyFile,
    HoldersFile,
    EventsFile,
    WhyFile,
    ProbeFile,
)

#: Those whose open files take of a user's share.
SHARING_CLASSES = (LeaseFile, ThresholdFile)

#: A class for each kind of file of the group; they do so too.
GROUP_CLASSES = (GroupLeaseFile,)

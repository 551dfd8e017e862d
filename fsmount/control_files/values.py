"""The control files of single numbers, and of operations on what the group itself holds."""

from __future__ import annotations

from fsmount.control_files.control_file import CounterFile, Figure
from fsmount.protocol.listings import STAT_KEYS
from fsmount.quantities import parse


class UsageFile(CounterFile):
    number = 0
    name = "usage"
    mode = 0o444
    quantity = True
    manual = "The exact usage of the group and all groups below it."
    figures = (Figure("usage", "The usage of the group and all groups below it."),)

    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.usage


class LimitFile(CounterFile):
    number = 1
    name = "limit"
    mode = 0o644
    quantity = True
    settable = saved = True
    manual = "The limit. A write sets it. EBUSY: the usage is above N."
    figures = (Figure("limit", "The hard limit."),)

    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.limit

    def command(self, text: bytes) -> None:
        self.counter.limit = parse(text, limit=True)


class SoftLimitFile(CounterFile):
    number = 2
    name = "soft_limit"
    mode = 0o644
    quantity = True
    settable = saved = True
    manual = "The soft limit. A write always sets it."
    figures = (Figure("soft_limit", "The soft limit."),)

    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.soft_limit

    def command(self, text: bytes) -> None:
        self.counter.soft_limit = parse(text, limit=True)


class MaxUsageFile(CounterFile):
    number = 3
    name = "max_usage"
    mode = 0o644
    quantity = True
    manual = "The peak of the usage since the last reset. A write of any text resets it to the current usage."
    figures = (Figure("max_usage", "The peak of the usage since the last reset."),)

    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.max_usage

    def command(self, text: bytes) -> None:
        self.counter.reset_max_usage()


class FailcntFile(CounterFile):
    number = 4
    name = "failcnt"
    mode = 0o644
    manual = "The number of charges that this very group refused. A write of any text resets it to 0."
    figures = (
        Figure("failcnt", "Charges that this very group refused since the last reset.", quantity=False, total=True),
    )

    __slots__ = ()

    def text(self) -> bytes:
        return b"%d\n" % self.counter.failcnt

    def command(self, text: bytes) -> None:
        self.counter.reset_failcnt()


class StatFile(CounterFile):
    number = 5
    name = "stat"
    mode = 0o444
    manual = 'All values of the counter, one "key value" a line; see below.'
    sections = (
        (
            "Keys of R.stat",
            f"""
{", ".join(STAT_KEYS)}.

usage_local leaves out the groups below. common is the amount that the group itself holds. reserved is usage plus stock.
hierarchical_limit is the lowest limit on the way up, and hierarchical_margin the least room. global is 1 while stock is
switched off near a limit. error_bound is the most by which max_usage may be below the true peak.
""",
        ),
    )
    figures = (Figure("stock", "The stock of the subtree: reserved, and not used."),)

    __slots__ = ()

    def text(self) -> bytes:
        return "".join(f"{key} {value}\n" for key, value in self.counter.stat().items()).encode()


class ChargeFile(CounterFile):
    number = 6
    name = "charge"
    mode = 0o200
    manual = "A write of N charges N to the group itself, until a write to R.uncharge. ENOMEM: a limit refuses."

    __slots__ = ()

    def command(self, text: bytes) -> None:
        thread = self.opening.thread or -1  # 0: the thread is in another pid namespace
        self.counter.charge_common_for(parse(text), thread)


class UnchargeFile(CounterFile):
    number = 7
    name = "uncharge"
    mode = 0o200
    manual = "A write of N uncharges N of the amount that the group itself holds. ERANGE: it holds less."

    __slots__ = ()

    def command(self, text: bytes) -> None:
        self.counter.uncharge_common(parse(text))


class ForceEmptyFile(CounterFile):
    number = 8
    name = "force_empty"
    mode = 0o200
    manual = "A write of any text uncharges all that the group itself holds. Holders keep their charges."

    __slots__ = ()

    def command(self, text: bytes) -> None:
        self.counter.force_empty()

"""What R.why and R.probe say: refusals and answers as values, and as the text of the files.

A line of R.why is `key=value` pairs with a space between two.  So that no value ends early, what is not printed as
itself in a group's name or a command, and a space, comma or backslash, is written as /proc/mounts does it: `\\040`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NamedTuple

#: A time in a line: UTC, to the millisecond.
_TIME = "%Y-%m-%dT%H:%M:%S"

_ESCAPE = re.compile(rb"\\([0-7]{3})")


class LargeHolder(NamedTuple):
    """Who held much below the counter that refused, at that moment."""

    held: int
    #: 0: the group itself.
    pid: int
    #: "process", "lease", or "group" for what the group itself holds.
    by: str
    #: Where: a path below the mount; None: the group has been removed since.
    group: str | None
    command: str


class Refusal(NamedTuple):
    """A charge that a limit refused, or was passed by; those that repeat are one.

    Times are in seconds since the epoch, to the millisecond; paths are below the mount, "/" is the root, and None a
    group that has been removed since.
    """

    #: When it was refused the last time, and first.
    last: float
    first: float
    #: How often.
    times: int
    #: Who asked; 0: not known.
    pid: int
    #: "process", "lease", or "group" where the group itself was to be charged.
    by: str
    command: str
    #: Where the charge was asked for, and which group's limit refused it.
    asked: str | None
    refused: str | None
    #: Whether charge_nofail charged it all the same.
    charged: bool
    #: What was asked for, the last time, and what the usage and the limit were then.
    amount: int
    usage: int
    limit: int
    #: Whether "all" holders were looked at for the largest, or for want of time "some" or "none", and when that was.
    looked: str
    looked_at: float | None
    #: The largest holders below the group that refused, at the most three, the largest first.
    largest: tuple[LargeHolder, ...]

    @property
    def short(self) -> int:
        """How much there was too little of."""
        return self.amount + self.usage - self.limit

    def __str__(self) -> str:
        """The line of R.why."""
        pairs = {
            "time": _time_text(self.last),
            "since": _time_text(self.first),
            "times": self.times,
            "pid": self.pid,
            "by": self.by,
            "command": _escaped(self.command),
            "asked": _escaped(self.asked),
            "refused": _escaped(self.refused),
            "charged": int(self.charged),
            "amount": self.amount,
            "usage": self.usage,
            "limit": self.limit,
            "short": self.short,
            "looked": self.looked,
            "looked_at": "-" if self.looked_at is None else _time_text(self.looked_at),
        }
        for number, holder in enumerate(self.largest, 1):
            names = _escaped(holder.group), _escaped(holder.command)
            pairs[f"largest{number}"] = ",".join((str(holder.held), str(holder.pid), holder.by, *names))
        return " ".join(f"{key}={value}" for key, value in pairs.items())

    @classmethod
    def parse(cls, line: str) -> Refusal:
        """The refusal of a line of R.why."""
        pairs = dict(pair.split("=", 1) for pair in line.split(" "))
        return cls(
            last=_time(pairs["time"]),
            first=_time(pairs["since"]),
            times=int(pairs["times"]),
            pid=int(pairs["pid"]),
            by=pairs["by"],
            command=_unescaped(pairs["command"]) or "",
            asked=_unescaped(pairs["asked"]),
            refused=_unescaped(pairs["refused"]),
            charged=pairs["charged"] == "1",
            amount=int(pairs["amount"]),
            usage=int(pairs["usage"]),
            limit=int(pairs["limit"]),
            looked=pairs["looked"],
            looked_at=None if pairs["looked_at"] == "-" else _time(pairs["looked_at"]),
            largest=tuple(_large_holder(value) for key, value in pairs.items() if key.startswith("largest")),
        )


class Probe(NamedTuple):
    """What a charge would meet now."""

    amount: int
    fits: bool
    #: The first group on the way up whose limit would refuse it, or, if it fits, the one with the least room: a path
    #: below the mount.
    group: str
    #: Of that group.
    usage: int
    limit: int
    #: How much there is too little of; 0 if it fits.
    short: int
    #: The most that would fit.
    margin: int

    def __str__(self) -> str:
        """The text of R.probe."""
        values = self._asdict() | {"fits": int(self.fits), "group": _escaped(self.group)}
        return "".join(f"{key} {value}\n" for key, value in values.items())

    @classmethod
    def parse(cls, text: str) -> Probe:
        """What the text of R.probe says."""
        read: dict[str, Callable[[str], object]] = {"fits": lambda value: value == "1", "group": _unescaped}
        pairs = dict(line.split(" ", 1) for line in text.splitlines())
        return cls(**{key: read.get(key, int)(pairs[key]) for key in cls._fields})  # type: ignore[arg-type]


def to_the_millisecond(nanoseconds: int) -> float:
    """Seconds."""
    return nanoseconds // 1_000_000 / 1000


def _large_holder(text: str) -> LargeHolder:
    held, pid, by, group, command = text.split(",")
    return LargeHolder(int(held), int(pid), by, _unescaped(group), _unescaped(command) or "")


def _time_text(seconds: float) -> str:
    from datetime import UTC, datetime

    milliseconds = round(seconds * 1000)
    return f"{datetime.fromtimestamp(milliseconds // 1000, UTC):{_TIME}}.{milliseconds % 1000:03}Z"


def _time(text: str) -> float:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp(), 3)


def _escaped(text: str | None) -> str:
    """Fit for a value of a line; "?" for what is not known."""
    if not text:
        return "?"
    if text.isprintable() and not set(text) & set(" ,\\"):
        return text
    return "".join(
        c if c.isprintable() and c not in " ,\\" else "".join(f"\\{byte:03o}" for byte in os.fsencode(c)) for c in text
    )


def _unescaped(text: str) -> str | None:
    if text == "?":
        return None
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), os.fsencode(text)))

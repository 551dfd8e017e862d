"""Refusals and probes, as values and as the text of R.why and R.probe.

A line of R.why is `key=value` pairs with a space between two.  In the names of groups and commands, a character that
cannot be printed, a space, a comma or a backslash is written as in /proc/mounts: `\\040`.  So no value ends early.
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
    """One of the largest holders below the counter that refused, at that moment."""

    held: int
    #: 0: the group itself.
    pid: int
    #: "process", "lease", or "group" for the amount that the group itself holds.
    by: str
    #: A path below the mount; None: the group was removed since.
    group: str | None
    command: str


class Refusal(NamedTuple):
    """A charge that a limit refused, or that nofail took past a limit.  It stands for all repetitions.

    Times are in seconds since the epoch, to the millisecond.  Paths are below the mount; "/" is the root, and None a
    group that was removed since.
    """

    #: The time of the last refusal, and of the first.
    last: float
    first: float
    #: The number of refusals.
    times: int
    #: The process that asked; 0: not known.
    pid: int
    #: "process", "lease", or "group" if the group itself was to be charged.
    by: str
    command: str
    #: The group of the request, and the group whose limit refused it.
    asked: str | None
    refused: str | None
    #: Whether charge_nofail charged it nevertheless.
    charged: bool
    #: The amount of the last request, and the usage and the limit at that time.
    amount: int
    usage: int
    limit: int
    #: Whether "all", "some" or "none" of the holders were looked at for the largest, and when.
    looked: str
    looked_at: float | None
    #: At most three of the largest holders below the group that refused, the largest first.
    largest: tuple[LargeHolder, ...]

    @property
    def short(self) -> int:
        """The amount of room that was missing."""
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
        """The refusal that a line of R.why shows."""
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
    """The answer to the question whether a charge would fit now."""

    amount: int
    fits: bool
    #: The first group on the way up whose limit would refuse it, or, if it fits, the group with the least room: a path
    #: below the mount.
    group: str
    #: The usage and the limit of that group.
    usage: int
    limit: int
    #: The amount of room that is missing; 0 if it fits.
    short: int
    #: The largest amount that would fit.
    margin: int

    def __str__(self) -> str:
        """The text of R.probe."""
        values = self._asdict() | {"fits": int(self.fits), "group": _escaped(self.group)}
        return "".join(f"{key} {value}\n" for key, value in values.items())

    @classmethod
    def parse(cls, text: str) -> Probe:
        """The answer that the text of R.probe shows."""
        read: dict[str, Callable[[str], object]] = {"fits": lambda value: value == "1", "group": _unescaped}
        pairs = dict(line.split(" ", 1) for line in text.splitlines())
        return cls(**{key: read.get(key, int)(pairs[key]) for key in cls._fields})  # type: ignore[arg-type]


def to_the_millisecond(nanoseconds: int) -> float:
    """The time in seconds, to the millisecond."""
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
    """The text as the value of a pair; "?" if it is not known."""
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

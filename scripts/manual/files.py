"""fsmount(5), and the same as a page of the documentation, from the table of the files."""

from __future__ import annotations

from collections.abc import Iterator

from fsmount.control_files import GROUP_KINDS, KINDS, METRICS_FILE, file_name
from fsmount.counter import STAT_KEYS

from .roff import head, item, paragraphs, title

_FILES = {
    "usage": "What the group and all below it use, exactly.",
    "limit": "The limit. A write sets it; EBUSY if the usage is above it.",
    "soft_limit": "The soft limit. A write sets it, always.",
    "max_usage": "The peak since the last reset. A write of any text resets it to the usage of now.",
    "failcnt": "How many charges this very group refused. A write of any text resets it to 0.",
    "stat": 'Everything about the counter, one "key value" a line; see below.',
    "charge": "A write of N charges N to the group itself; it stays until it is uncharged. ENOMEM if a limit refuses.",
    "uncharge": "A write of N gives back N of what the group itself holds. ERANGE if it holds less.",
    "force_empty": "A write of any text has the group forget what it itself holds; holders keep theirs.",
    "lease": "What this open file holds. A write of N, +N or -N makes it so much, more, less.\n"
    "The last close gives it back. Other writes: give N and take N (to the group itself, and back), nofail N (always\n"
    "charges), keep and release (what the last close does with it), and wait N; see Waiting.",
    "holders": 'Who holds what, one "pid start_time held stock command" a line.',
    "events": "How often in the group and below it a charge was refused (limit), or a soft limit (soft_limit) or\n"
    "a mark of somebody's threshold file (threshold) crossed. poll(2) reports POLLPRI when a count has changed.",
    "threshold": 'A list of marks, a line "above N", "below N", "above P%" or "below P%" each, of this open file\n'
    "alone. A read shows how often each was crossed since it was written, and poll(2) reports POLLPRI when one is.",
    "why": "The last refusals in the group and below it, a line for each, the newest first; see below.\n"
    "poll(2) reports POLLPRI when there is another.",
    "probe": "A write of N asks what a charge of N would meet, and a read on the same open file shows it, one\n"
    '"key value" a line: amount, fits (1 or 0), group (the first on the way up that would refuse it, or, if it fits,\n'
    "the one with the least room), its usage and limit, short (how much there is too little of) and margin (the most\n"
    "that would fit). Nothing is charged.",
}

_GROUP_FILES = {
    "lease": "What this open file holds of all resources, as in memory=4096 tokens=3. A write of one or several of\n"
    "R=N, R=+N and R=-N makes it so much, more, less of each: all at once, or nothing. The last close gives it back.\n"
    "Other writes: give (all of it), give R=N... and take R=N..., nofail R=N, keep and release, and wait R=N...; see\n"
    "Waiting.",
}

_ROOT = "In the root alone: every counter, and the daemon's own figures, as OpenMetrics text."

_DESCRIPTION = """
A directory of a mounted tree is a group; mkdir makes one, without limits, and rmdir removes it, with EBUSY while it has
groups below, usage or live holders. A charge counts in the group and in every group above it, and is refused if it
would pass the limit of one of them.

A group has the files below for each resource. The names are those of the resource memory, which is counted in bytes;
those of a resource that is a plain count do not end in _in_bytes. The file lease is of all resources.
"""

_PERMISSIONS = """
Files belong to who made the group, with the modes above; chmod and chown hand a group or one of its files on, and last
as long as the counters. What counts is the permission of whoever opened the file, for that file and for no other. Other
users see into a mount only if it was made with -o allow_other.
"""

_REFUSALS = """
A line is key=value pairs with a space between two: time and since (the last time and the first, UTC), times (how
often), pid, by (process, lease, or group where the group itself was to be charged), command, asked (for which group)
and refused (by whose limit), charged (1 where it was charged all the same), amount, usage, limit, short (how much
there was too little of), looked (whether all, some or none of the holders were looked at for the largest) and
looked_at (when), and largest1 to largest3: HELD,PID,BY,GROUP,COMMAND of the largest holders below that limit. Paths
are below the mount; of a group that was removed since it is "?". In names a space, a comma, a backslash and what
cannot be printed is a backslash and three octal digits.
"""

_WAITING = """
A lease that was refused and is polled becomes writable (POLLOUT) when there is room for what was refused and it is its
turn: whoever waited before is served before. The same command then succeeds, if it is written within a second. wait N,
or wait R=N... of the file lease, charges N more when it is its turn and stands in line at once, polled or not: EAGAIN
until then, when it is to be written again. wait alone gives up.
"""

_NUMBERS = """
From 0 to 2^63-1, decimal or hexadecimal with 0x, then at most one of K M G T P E in either case, powers of 1024. White
space around it does not matter. Where a limit is set, -1 and max mean none, which reads as 9223372036854775807. One
write is one command.
"""

_SECTIONS = {
    "Keys of R.stat": ", ".join(STAT_KEYS) + ".",
    "Lines of R.why": _REFUSALS,
    "Waiting": _WAITING,
    "Permissions": _PERMISSIONS,
    "Numbers": _NUMBERS,
}

_ERRORS = {
    "ENOMEM": "A limit on the way up would be passed.",
    "ERANGE": "Less is held than is to be given back, or the number is above 2^63-1.",
    "EINVAL": "Not a number, no such resource, or nothing that can be written or read there.",
    "EBUSY": "The limit would be below the usage, or the group is in use.",
    "EAGAIN": "It is not its turn yet; poll(2) tells when.",
    "ENODEV": "The group was removed.",
    "EPERM": "Files cannot be made, linked or removed, and a group is not moved to another directory.",
    "ENOSPC": "The capacity of the tree is used up: groups, holders, or cells and marks.",
    "EIO": "The region is damaged, or fsmount is at fault; the log says more.",
    "ENOTCONN": "The daemon has ended; fsmount mount takes the counters over.",
}
_HARMLESS = "What fails has changed nothing but a failcnt."


def _all() -> Iterator[tuple[str, int, str]]:
    """Each file: its name, its mode, and what it is."""
    for kind in KINDS:
        yield file_name("memory", "bytes", kind), kind.mode, _FILES[kind.name]
    for kind in GROUP_KINDS:
        yield kind.name, kind.mode, _GROUP_FILES[kind.name]
    yield METRICS_FILE, 0o444, _ROOT


def page() -> str:
    """The text of the manual page."""
    lines = head("fsmount", 5, "the files of a group")
    lines += [*title("DESCRIPTION"), *paragraphs(_DESCRIPTION), *title("FILES")]
    for name, mode, text in _all():
        lines += item(f"{name} ({mode:04o})", text)
    for name, text in _SECTIONS.items():
        lines += [*title(name.upper()), *paragraphs(text)]
    lines += [*title("ERRORS"), *paragraphs(_HARMLESS)]
    for name, text in _ERRORS.items():
        lines += item(name, text)
    return "\n".join([*lines, *title("SEE ALSO"), ".BR fsmount (1)"]) + "\n"


def markdown() -> str:
    """The same as Markdown."""
    parts = [
        "<!-- Written by scripts/man: change what it is made from, and run that. -->",
        "# The files of a group",
        _DESCRIPTION.strip(),
        "\n".join(["| file | mode | |", "|---|---|---|", *(_row(name, mode, text) for name, mode, text in _all())]),
        *(f"## {name}\n\n{text.strip()}" for name, text in _SECTIONS.items()),
        "## Errors",
        _HARMLESS,
        "\n".join(f"- {name}: {text}" for name, text in _ERRORS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _row(name: str, mode: int, text: str) -> str:
    return f"| `{name}` | {mode:04o} | {' '.join(text.splitlines())} |"

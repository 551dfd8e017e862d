"""fsmount(5), and the same as a page of the documentation, from the table of the files."""

from __future__ import annotations

from collections.abc import Iterator

from fsmount.protocol.file_table import GROUP_KINDS, KINDS, METRICS_FILE, STATUS_FILE, file_name, snapshot_name
from fsmount.protocol.listings import STAT_KEYS

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
    "lease": "What this open file holds. A write of N sets it, +N and -N adjust it.\n"
    "The last close gives it back. Other writes: give N and take N (to the group itself, and back), nofail N (always\n"
    "charges; EPERM except for root and the owner of the mount), keep and release (what the last close does with it),\n"
    "and wait N; see Waiting.",
    "holders": 'Who holds what, one "pid start_time held stock command" a line; of a lease, who opened it, as\n'
    "lease:COMMAND. What the group itself holds, if it does, is 0 0 HELD 0 common.",
    "events": 'What happened in the group and below it, one "key count" a line; see below. poll(2) reports POLLPRI\n'
    "when a count has changed.",
    "threshold": 'A list of marks, a line "above N", "below N", "above P%" or "below P%" each, of this open file\n'
    "alone; see below. A read shows how often each was crossed since it was written, and poll(2) reports POLLPRI when\n"
    "one is.",
    "why": "The last refusals in the group and below it, a line for each, the newest first; see below.\n"
    "poll(2) reports POLLPRI when there is another.",
    "probe": "A write of N asks what a charge of N would meet, and a read on the same open file shows it, one\n"
    '"key value" a line: amount, fits (1 or 0), group (the first on the way up that would refuse it, or, if it fits,\n'
    "the one with the least room), its usage and limit, short (how much there is too little of) and margin (the most\n"
    "that would fit). Nothing is charged, and stock that lies idle counts as room, but is taken from nobody.\n"
    "It tells of a charge that does not wait: one that does may have to stand in line though it would fit.",
}

_GROUP_FILES = {
    "lease": "What this open file holds of all resources, as in memory=4096 tokens=3. A write of one or several of\n"
    "R=N, R=+N and R=-N sets or adjusts each: all at once, or nothing. The last close gives it back.\n"
    "Other writes: give (all of it), give R=N... and take R=N..., nofail R=N, keep and release, and wait R=N...; see\n"
    "Waiting.",
}

_HIDDEN = (
    "In every group, and listed in none: all groups from there down, at one moment, a line each: its id, its parent's, "
    "the values of R.stat in its order, and the name. Who may list the directory may read it."
)

_STATUS = (
    "In every group, and listed in none: who serves the mount, what it has room for, and whose share of it is used up. "
    "It is a JSON object, which everybody may read; see fsmount status."
)

_ROOT = "In the root alone: every counter, and the daemon's own figures, as OpenMetrics text."

_DESCRIPTION = """
A directory of a mounted tree is a group; mkdir makes one, without limits, and rmdir removes it, with EBUSY while it has
groups below, usage or live holders. A charge counts in the group and in every group above it, and is refused if it
would pass the limit of one of them.

A group has the files below for each resource. The names are those of the resource memory, which is counted in bytes;
those of a resource that is a plain count do not end in _in_bytes. The file lease is of all resources.
"""

_PERMISSIONS = """
Files belong to the user who made the group, with the modes above. A set-group-ID directory passes on its group and that
bit to the groups that are made in it. chmod and chown hand a group or one of its files on, and last as long as the
counters. What counts is the permission of whoever opened the file, for that file and for no other. Other
users see into a mount only if it was made with -o allow_other.
"""

_KEYS = """
usage_local is without the groups below, common is what the group itself holds, and reserved is usage and stock.
hierarchical_limit is the least limit on the way up, and hierarchical_margin the least room. global is 1 while stock is
switched off near a limit, and error_bound is how far max_usage may be below the true peak.
"""

_EVENTS = """
The keys are limit (charges refused, or taken past a limit by nofail), soft_limit (how often a usage came above its
group's soft limit, or back; setting it can do that too) and threshold (how often one crossed a mark that somebody has
in R.threshold). No count ever falls: they are not reset, and those of a removed group stay in the groups above.

poll(2), epoll and select (exceptional conditions) report POLLPRI as soon as a count is another than this open file last
showed, or than it was when it was opened, and POLLERR when the group is removed. Whoever polls is woken by the very
charge, also by one that is made in the region; of several that come at once, by one wake-up.
"""

_MARKS = """
A mark is at a number, or at a whole part of the limit of now, 0% to 100%. It is crossed when the usage comes above it
(or below it; equal is neither), or when the limit is set so that it is: not by where the usage is already when the list
is written. One write is the whole list, white space alone is an empty one, and anything else is EINVAL and leaves the
list as it was. A list ends with its open file, or when another daemon takes the mount over. It reads as a line for each
mark with how often it was crossed, as in "above 80% 3".
"""

_REFUSALS = """
A line is key=value pairs with a space between two: time and since (the last time and the first, UTC), times (how
often), pid, by (process, lease, or group where the group itself was to be charged), command, asked (for which group)
and refused (by whose limit), charged (1 where it was charged all the same), amount, usage, limit, short (how much
there was too little of), looked (whether all, some or none of the holders were looked at for the largest) and
looked_at (when), and largest1 to largest3: HELD,PID,BY,GROUP,COMMAND of the largest holders below that limit. Paths
are below the mount; of a group that was removed since it is "?". In names a space, a comma, a backslash and what
cannot be printed is a backslash and three octal digits. New keys go at the end.

Refusals of one process, in one group by one limit, are one line: a loop pushes nobody out. A tree keeps the last 256,
also for the next daemon; those within 10 ms of one that is shown may be missing from times until the process is refused
again.
"""

_LEASES = """
A lease belongs to the open file: exec 3<>R.lease in a shell, and all who inherit the descriptor share it. It becomes a
holder at its first write. The last close, however it comes, gives all of it back. If the daemon is killed meanwhile,
closes are seen no more: what was open then counts until the process that opened it ends.

The file lease is a lease of all resources, and one holder: it is in the R.holders of each. A command names those that
it changes, each once, and is obeyed as a whole or fails as a whole, also when somebody is killed in the middle.
"""

_WAITING = """
A lease that was refused and is polled becomes writable (POLLOUT) when there is room for what was refused and it is its
turn: whoever waited before is served before. The same command then succeeds, if it is written within a second. wait N,
or wait R=N... of the file lease, charges N more when it is its turn and stands in line at once, polled or not: EAGAIN
until then, when it is to be written again. wait alone gives up.

Lines for different limits do not hold each other up, and who charges without waiting takes what there is. A request
above the limit itself waits until that is raised.
"""

_NUMBERS = """
From 0 to 2^63-1, decimal or hexadecimal with 0x, then at most one of K M G T P E in either case, powers of 1024. White
space around it does not matter. Where a limit is set, -1 and max mean none, which reads as 9223372036854775807.
"""

_READING = """
One write is one command, wherever in the file it goes. A read from the start shows what is so now, and reads that go
on from there show the rest of the same text. Of a file whose text is the open file's own (lease, R.lease, R.threshold
and R.probe) the first read after a write begins the text, so that a shell can write and read through one descriptor:
exec 3<>memory.lease; echo 4K >&3; cat <&3.

st_size is above the length of the text, as in sysfs: 4096 where the text is short, a power of two from 65536 where it
can be long, and 0 where nothing can be read. So sendfile(2) and splice(2) copy the whole text. While a file is copied
that way, and until it is opened again, st_size can be the length of the text. If several programs do so with one file
at the same moment, a call may fail with EINVAL; read(2) always works. copy_file_range(2) is EXDEV.

R.holders, R.why, .R.groups and metrics can be long. Such a text is made while other requests are served, and readers
that ask at the same moment get the same text, made after they asked. Users take turns, and root and the owner of the
mount wait for no other user's texts; of readers that wait a user other than these has at most half of the places that
are free. The texts that somebody is reading take at most 32 MB in the daemon, and equal parts of them are kept once.
Beyond that the user whose readers keep most loses the text of the first of them, and a read that goes on in it is
ESTALE: read from the start again. An open directory of many groups is such a text, too.

metrics leaves out groups whose paths are longer than 4095 bytes, which no system call takes, and beyond 64 MB of text
the deepest groups; fsmount_groups_omitted counts them. R.why shows of such a path the end, after "...". R.holders is
of one moment only up to 256 holders; a holder that is there all the while is always listed once.
"""

_SECTIONS = {
    "Keys of R.stat": ", ".join(STAT_KEYS) + ".\n" + _KEYS,
    "Keys of R.events": _EVENTS,
    "Marks of R.threshold": _MARKS,
    "Lines of R.why": _REFUSALS,
    "Leases": _LEASES,
    "Waiting": _WAITING,
    "Reading and writing": _READING,
    "Permissions": _PERMISSIONS,
    "Numbers": _NUMBERS,
}

_ERRORS = {
    "ENOMEM": "A limit on the way up would be passed.",
    "ERANGE": "Less is held than is to be given back, or the number is above 2^63-1.",
    "EINVAL": "Not a number, no such resource, or nothing that can be written or read there.",
    "EBUSY": "The limit would be below the usage, or the group is in use.",
    "EAGAIN": "It is not its turn yet; poll(2) tells when. Or a read: too many of the user's readers wait already.",
    "ENODEV": "The group was removed.",
    "EPERM": "Files cannot be made, linked or removed, a group is not moved to another directory, and nofail is for\n"
    "root and the owner of the mount.",
    "ENOSPC": "No room in the tree for more groups, leases, marks or waiting requests, or the user's share is used up.",
    "ENFILE": "The user's share of the open files of the mount is used up.",
    "ESTALE": "The text that was being read was given up for others: read from the start.",
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
    yield snapshot_name("memory"), 0o444, _HIDDEN
    yield STATUS_FILE, 0o444, _STATUS
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

"""fsmount(5), and the same as a page of the documentation, from the table of the files."""

from __future__ import annotations

from collections.abc import Iterator

from fsmount.control_files.table import KINDS, files

from .roff import head, item, paragraphs, title

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

_SECTIONS = (
    *(section for kind in KINDS for section in kind.sections),
    ("Reading and writing", _READING),
    ("Permissions", _PERMISSIONS),
    ("Numbers", _NUMBERS),
)

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
    """The name, mode and text of each file."""
    for name, place in files({"memory": "bytes"}).items():
        yield name, place.kind.mode, place.kind.manual


def page() -> str:
    """The text of the manual page."""
    lines = head("fsmount", 5, "the files of a group")
    lines += [*title("DESCRIPTION"), *paragraphs(_DESCRIPTION), *title("FILES")]
    for name, mode, text in _all():
        lines += item(f"{name} ({mode:04o})", text)
    for name, text in _SECTIONS:
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
        *(f"## {name}\n\n{text.strip()}" for name, text in _SECTIONS),
        "## Errors",
        _HARMLESS,
        "\n".join(f"- {name}: {text}" for name, text in _ERRORS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _row(name: str, mode: int, text: str) -> str:
    return f"| `{name}` | {mode:04o} | {' '.join(text.splitlines())} |"

"""The manual page fsmount(5) and the page fsmount/docs/files.md, from the table of control files."""

from __future__ import annotations

from collections.abc import Iterator

from fsmount.control_files.table import KINDS, files

from .roff import head, item, paragraphs, title

_DESCRIPTION = """
A directory of a mounted tree is a group. mkdir makes one without limits. rmdir removes it, with EBUSY while it has
groups below, usage or live holders. A charge counts in the group and in every group above it. It is refused if it would
pass the limit of one of them.

A group has the files below for each resource. The names are for the resource memory, which is counted in bytes. For a
resource that is a plain count they do not end in _in_bytes. The file lease is for all resources.
"""

_PERMISSIONS = """
Files belong to the user who made the group, with the modes above. A set-group-ID directory passes on its group and that
bit to the groups that are made in it. chmod and chown delegate a group or one of its files, and last as long as the
counters. The permissions of the process that opened a file count, for that file alone. Other users see into a mount
only with -o allow_other.
"""

_NUMBERS = """
From 0 to 2^63-1, decimal or hexadecimal with 0x, then at most one of K M G T P E in either case, powers of 1024. White
space around a number does not matter. Where a limit is set, -1 and max mean none, which reads as 9223372036854775807.
"""

_READING = """
One write is one command, at any offset. A read from the start shows the current text, and later reads show the rest of
the same text. For lease, R.lease, R.threshold and R.probe, which have a text for each open file, the first read after a
write starts a new text. So a shell can write and read through one descriptor:
exec 3<>memory.lease; echo 4K >&3; cat <&3.

st_size is above the length of the text, as in sysfs: 4096 if the text is short, a power of two from 65536 if it can be
long, and 0 if nothing can be read. So sendfile(2) and splice(2) copy the whole text. During such a copy, and until the
next open(2), st_size can be the length of the text. If several programs copy one file in this way at the same moment, a
call may fail with EINVAL; read(2) always works. copy_file_range(2) fails with EXDEV.

R.holders, R.why, .R.groups, metrics and listings of directories can be long. They delay no other request. Users take
turns, and root and the owner of the mount wait for no other user. Texts that are being read take at most 32 MB. Beyond
that, the user whose readers keep most loses the oldest text. A read that continues in it fails with ESTALE: read from
the start again. A user with too many waiting readers gets EAGAIN.

metrics leaves out groups whose paths are longer than 4095 bytes, and beyond 64 MB of text the deepest groups.
fsmount_groups_omitted counts them. R.why shows the end of such a path, after "...". R.holders lists each holder that is
there throughout once; with more than 256 holders its lines are of different moments.
"""

_SECTIONS = (
    *(section for kind in KINDS for section in kind.sections),
    ("Reading and writing", _READING),
    ("Permissions", _PERMISSIONS),
    ("Numbers", _NUMBERS),
)

_ERRORS = {
    "ENOMEM": "The charge would pass a limit on the way up.",
    "ERANGE": "The holder holds less than the amount, or the number is above 2^63-1.",
    "EINVAL": "The text is no number, resource or command, or the file cannot be read or written.",
    "EBUSY": "The limit would be below the usage, or the group is in use.",
    "EAGAIN": "The request still waits; poll(2) tells when to write it again. Or too many readers of the user wait.",
    "E2BIG": "The text has more than 4096 bytes.",
    "ENODEV": "The group was removed.",
    "EPERM": "Files cannot be made, linked or removed, a group cannot move to another directory, and nofail is for\n"
    "root and the owner of the mount.",
    "ENOSPC": "The tree has no room for more groups, leases, marks or requests, or the user's share is used up.",
    "ENFILE": "The user's share of the open files of the mount is used up.",
    "ESTALE": "The daemon gave up the text for other readers: read from the start.",
    "ETIMEDOUT": "A stopped process holds the lock of the region; the log names it.",
    "EIO": "The region is damaged, or fsmount has a fault; the log says more.",
    "ENOTCONN": "The daemon has ended; fsmount mount takes the counters over.",
}
#: Sections of the manual page that are on another page of Markdown.
_ELSEWHERE = {
    "Numbers": "set-limits.md#numbers",
    "Errors": "errors.md#files-errno",
}
_HARMLESS = "A request that fails changes nothing except failcnt and R.why."


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
    """The text of fsmount/docs/files.md, without the sections that another page has."""
    parts = [
        "<!-- Written by scripts/man: change what it is made from, and run that. -->",
        "# The files of a group",
        _DESCRIPTION.strip(),
        "\n".join(["| file | mode | |", "|---|---|---|", *(_row(name, mode, text) for name, mode, text in _all())]),
        *(f"## {name}\n\n{text.strip()}" for name, text in _SECTIONS if name not in _ELSEWHERE),
        "## See also",
        "\n".join(f"- [{name}]({link})" for name, link in _ELSEWHERE.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _row(name: str, mode: int, text: str) -> str:
    return f"| `{name}` | {mode:04o} | {' '.join(text.splitlines())} |"

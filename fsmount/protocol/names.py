"""Paths and names as text.

The text of a name can be read back, even if the name is not UTF-8: %XX stands for a byte, and %25 for a percent sign.
"""

import os
import re

#: No system call takes a longer path, in bytes.
PATH_MAX = 4095

#: The longest name of a group, in bytes.
NAME_MAX = 255

BAD_NAME = f"a group's name has 1 to {NAME_MAX} bytes, is neither '.' nor '..', and holds no '/', newline or NUL"
NAME_OF_A_GROUP = "there is a group of this name"
NAME_OF_A_FILE = "a control file has this name"


def path_text(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """A path of any type as text.  TypeError; ValueError: no file can have this path."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"a path is a str, bytes or os.PathLike, not {type(path).__name__}")
    text = os.fsdecode(path)
    if "\0" in text:
        raise ValueError(f"a path has no NUL in it: {text!r}")
    return text


def is_group_name(name: str | bytes) -> bool:
    """Whether a group can have this name."""
    raw = os.fsencode(name)
    return 0 < len(raw) <= NAME_MAX and raw not in (b".", b"..") and not re.search(rb"[/\n\0]", raw)


def escape(name: str) -> str:
    """The text of a name.  Different names have different texts."""
    text = os.fsencode(name).decode(errors="surrogateescape").replace("%", "%25")
    return re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)


def unescape(text: str) -> str:
    """The name that a text stands for.  ValueError: a percent sign has no two hexadecimal digits behind it."""
    raw = text.encode()
    if re.search(rb"%(?![0-9A-Fa-f]{2})", raw):
        raise ValueError("a percent sign is written %25")
    return os.fsdecode(re.sub(rb"%(..)", lambda found: bytes([int(found[1], 16)]), raw))

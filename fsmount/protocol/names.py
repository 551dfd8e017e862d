"""Paths and names as text.

A name that is any bytes is shown so that it can be read back: %XX is a byte that is not UTF-8, and %25 a percent sign.
"""

import os
import re

#: No system call takes a longer path, in bytes.
PATH_MAX = 4095


def path_text(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """A path, in whichever way it is given, as text.  TypeError; ValueError: no file can have it."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"a path is a str, bytes or os.PathLike, not {type(path).__name__}")
    text = os.fsdecode(path)
    if "\0" in text:
        raise ValueError(f"a path has no NUL in it: {text!r}")
    return text


def escape(name: str) -> str:
    """A name as such text; two names never become the same."""
    text = os.fsencode(name).decode(errors="surrogateescape").replace("%", "%25")
    return re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)


def unescape(text: str) -> str:
    """The name that was escaped.  ValueError: a percent sign that stands for nothing."""
    raw = text.encode()
    if re.search(rb"%(?![0-9A-Fa-f]{2})", raw):
        raise ValueError("a percent sign is written %25")
    return os.fsdecode(re.sub(rb"%(..)", lambda found: bytes([int(found[1], 16)]), raw))

"""The name of a group or file, any bytes, as text: %XX is a byte that is not UTF-8, and %25 a percent sign."""

import os
import re


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

"""Names made safe for a terminal: any user who may make a group may put control characters into its name."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with an escape such as `\\x1b` for each character that cannot be printed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

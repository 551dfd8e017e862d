"""Names made fit for a terminal: whoever may make a group may call it anything."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with `\\x1b` and the like for each character that is not printed as itself."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

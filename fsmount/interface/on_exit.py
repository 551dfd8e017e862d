"""What becomes of what a process still holds when it ends: the argument of both ways to attach."""

from __future__ import annotations


def ends_with_keep(on_exit: str) -> bool:
    """Reads an on_exit argument; whether it is "keep".  ValueError."""
    if on_exit not in ("release", "keep"):
        raise ValueError(f'on_exit is "release" or "keep", not {on_exit!r}')
    return on_exit == "keep"

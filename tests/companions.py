"""Programs that end with the tests, however the tests end: they would keep a core busy forever."""

from __future__ import annotations


def companion(*command: object) -> list[str]:
    """A command that runs the given one; the kernel kills it when the thread that started it ends."""
    return ["setpriv", "--pdeathsig", "KILL", *map(str, command)]

"""Programs that end with the tests, however those end: such as would keep a core busy for ever."""

from __future__ import annotations


def companion(*command: object) -> list[str]:
    """The command that runs this one, and has the kernel kill it when the thread that started it ends."""
    return ["setpriv", "--pdeathsig", "KILL", *map(str, command)]

"""A mount namespace of the test's own, in which it can install what would be the whole machine's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What others have mounted would live on in here when they unmount it.
_ENTER = """
set -e
umount --lazy --all --types fuse.fsmount
{}
echo ready
exec cat
"""


class Namespace:
    """Lives as long as its keeper, a process in it."""

    def __init__(self, keeper: int) -> None:
        self._keeper = keeper

    def inside(self, *command: object) -> list[str]:
        """The command that runs the command in it, with the same pid."""
        return ["nsenter", "--mount", f"--target={self._keeper}", "--", *map(str, command)]

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=60, check=False)

    def does(self, *command: object) -> str:
        """What a command prints that succeeds and has nothing to complain of."""
        done = self.run(*command)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def path(self, path: Path | str) -> Path:
        """Where that path is, seen from outside."""
        return Path(f"/proc/{self._keeper}/root{path}")


@contextmanager
def namespace(prepare: str, *arguments: object) -> Iterator[Namespace]:
    """One that a shell has prepared; the script finds the arguments in $1 and so on.  Takes root."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER.format(prepare), "sh"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdout is not None and keeper.stdout.readline() == "ready\n"
        yield Namespace(keeper.pid)

"""A mount namespace for one test, which can change directories of the whole machine in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The namespace starts with copies of all mounts. A copy would keep a mount of another test alive.
_ENTER = """
set -e
umount --lazy --all --types fuse.fsmount
{}
echo ready
exec cat
"""


class Namespace:
    """A namespace that lasts as long as its keeper, a process inside."""

    def __init__(self, keeper: int) -> None:
        self._keeper = keeper

    def inside(self, *command: object) -> list[str]:
        """The command line that runs a command inside; the pid stays the same."""
        return ["nsenter", "--mount", f"--target={self._keeper}", "--", *map(str, command)]

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=60, check=False)

    def does(self, *command: object) -> str:
        """The output of a command, which must succeed and print no error."""
        done = self.run(*command)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def path(self, path: Path | str) -> Path:
        """The path of a file inside, as seen from outside."""
        return Path(f"/proc/{self._keeper}/root{path}")


@contextmanager
def namespace(prepare: str, *arguments: object) -> Iterator[Namespace]:
    """A namespace that a shell script prepares; the script gets the arguments in $1 and so on. Needs root."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER.format(prepare), "sh"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdout is not None and keeper.stdout.readline() == "ready\n"
        yield Namespace(keeper.pid)

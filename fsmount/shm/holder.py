"""Holders as they were at one moment."""

from __future__ import annotations

from typing import NamedTuple

from fsmount.engine import KEEP, LEASE, PROCESS, HolderInfo, process_alive
from fsmount.protocol.listings import HolderLine


class Holder(NamedTuple):
    """An attached process or an open lease (kind PROCESS or LEASE)."""

    id: int
    kind: int
    pid: int
    start_time: int
    #: Whether the pid is from the pid namespace of this process.
    here: bool
    #: The holder's charges and its stock in one counter; 0 in a list of the holders of a tree.
    held: int
    stock: int
    #: Whether the holder's charges go to the group at its end.
    keep: bool
    #: The id of a group that the holder has joined; the root's if there is none.
    group: int
    #: The number of counters that the holder may charge.
    cells: int

    @classmethod
    def of(cls, info: HolderInfo) -> Holder:
        return cls(
            info.id,
            info.kind,
            info.pid,
            info.start_time,
            info.here,
            info.held,
            info.stock,
            bool(info.flags & KEEP),
            info.group,
            info.cells,
        )

    @property
    def is_process(self) -> bool:
        return self.kind == PROCESS

    @property
    def is_lease(self) -> bool:
        return self.kind == LEASE

    @property
    def alive(self) -> bool:
        """Whether its process lives; a process of another pid namespace counts as alive."""
        return not self.here or process_alive(self.pid, self.start_time)

    @property
    def command(self) -> str:
        """The name of its process, as `ps` shows it; empty if it is gone."""
        try:
            with open(f"/proc/{self.pid}/comm", "rb") as comm:
                return command_name(comm.read()[:-1])
        except OSError:
            return ""

    def line(self, commands: dict[int, str]) -> HolderLine:
        """The holder's line in R.holders; commands: pid -> names of processes that were read already.

        The command is `?` if the process is gone.  A lease's command has a mark: another process may have the file now.
        """
        command = commands.get(self.pid)
        if command is None:
            command = commands[self.pid] = self.command or "?"
        named = f"lease:{command}" if self.is_lease else command
        return HolderLine(self.pid, self.start_time, self.held, self.stock, named)


def command_name(comm: bytes) -> str:
    """The name of a process in /proc/PID/comm, with a question mark for each character that cannot be printed."""
    return "".join(c if c.isprintable() else "?" for c in comm.decode(errors="replace"))

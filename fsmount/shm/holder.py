"""Holders: who holds charges, as they were at one moment."""

from __future__ import annotations

from typing import NamedTuple

from fsmount.engine import KEEP, LEASE, PROCESS, HolderInfo, process_alive


class Holder(NamedTuple):
    """Who holds charges: an attached process or an open lease (kind PROCESS or LEASE)."""

    id: int
    kind: int
    pid: int
    start_time: int
    #: Whether the pid means something in our pid namespace.
    here: bool
    #: What it holds and has reserved in the counter that was asked; 0 when the whole tree was.
    held: int
    stock: int
    #: Whether what it holds goes to the group when it ends.
    keep: bool
    #: A group that it has joined, by its id; the root's if there is none.
    group: int
    #: How many counters it may charge.
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
        """Whether its process lives; what cannot be told counts as alive."""
        return not self.here or process_alive(self.pid, self.start_time)

    @property
    def command(self) -> str:
        """The name of its process, as `ps` shows it; empty if it is gone."""
        try:
            with open(f"/proc/{self.pid}/comm", "rb") as comm:
                return command_name(comm.read()[:-1])
        except OSError:
            return ""


def command_name(comm: bytes) -> str:
    """The name of a process in /proc/PID/comm, made fit to be shown."""
    return "".join(c if c.isprintable() else "?" for c in comm.decode(errors="replace"))

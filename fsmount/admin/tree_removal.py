"""Before a tree and its region are removed: its live holders, and the groups and limits that end with it."""

from __future__ import annotations

from fsmount.admin.user_error import UserError
from fsmount.errors import LockTimeout
from fsmount.quantities import UNLIMITED
from fsmount.shm import Tree

_NAMED = 5


def check_holders(tree: Tree) -> None:
    """UserError if the tree has live holders.  A damaged region passes: it must be possible to unmount it."""
    try:
        holders = [holder for holder in tree.holders() if holder.alive]
    except LockTimeout as error:
        advice = "continue or end it and unmount again, or leave the counters to the next mount with --keep"
        raise UserError(f"{error.strerror}: {advice}") from None
    except OSError:
        return
    processes = {holder.pid: holder.command for holder in holders}
    if processes:
        named = ", ".join(f"{command} (pid {pid})" for pid, command in sorted(processes.items())[:_NAMED])
        more = f" and {len(processes) - _NAMED} more" if len(processes) > _NAMED else ""
        raise UserError(
            f"busy: charged by {named}{more}; end them, or leave the counters to the next mount with --keep"
        )


def losses(tree: Tree) -> str:
    """The groups, limits and group charges of the tree, such as "12 groups and 3 limits"; empty if there are none."""
    groups = limits = 0
    charged: set[int] = set()
    try:
        for resource in tree.resources:
            rows = tree.snapshot(resource)
            groups = len(rows) - 1
            limits += sum((row.limit != UNLIMITED) + (row.soft_limit != UNLIMITED) for row in rows)
            charged.update(row.id for row in rows if row.common)
    except OSError:
        return ""  # a damaged region
    parts = [_counted(groups, "group"), _counted(limits, "limit")]
    if charged:
        parts.append(f"the charges of {_counted(len(charged), 'group')}")
    parts = [part for part in parts if part]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}" if number else ""

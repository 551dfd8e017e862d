"""Groups, limits and charges that end with a tree that is unmounted and not kept."""

from __future__ import annotations

from fsmount.quantities import UNLIMITED
from fsmount.shm import Tree


def losses(tree: Tree) -> str:
    """The groups, limits and charges of groups, such as "12 groups and 3 limits"; empty if there are none.

    Charges of holders are no part of it: a tree with live holders is not unmounted.
    """
    groups = limits = 0
    charged: set[int] = set()
    try:
        for resource in tree.resources:
            rows = tree.snapshot(resource)
            groups = len(rows) - 1
            limits += sum((row.limit != UNLIMITED) + (row.soft_limit != UNLIMITED) for row in rows)
            charged.update(row.id for row in rows if row.common)
    except OSError:
        return ""  # a damaged region can be unmounted all the same
    parts = [_counted(groups, "group"), _counted(limits, "limit")]
    if charged:
        parts.append(f"the charges of {_counted(len(charged), 'group')}")
    parts = [part for part in parts if part]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}" if number else ""

"""The reasons why a group cannot be removed, for the errors of both transports."""

from __future__ import annotations

from collections.abc import Sequence

#: The largest number of processes that an error names.
NAMED_MAX = 16


def with_groups(count: int) -> str:
    return f"it has {count} groups in it"


def with_holders(pids: Sequence[int], resource: str, *, more: bool = False) -> str:
    """The live holders of one resource; more: there are others besides these processes."""
    if not more and len(pids) <= NAMED_MAX:
        return f"it has live holders, processes {', '.join(map(str, pids))}"
    some = "".join(f", process {pid} among them" for pid in pids[:1])
    return f"it has many live holders{some}; its {resource}.holders lists them"


def with_usage(usage: int, resource: str) -> str:
    return f"{usage} of {resource} are charged to it"

"""The interface that both transports implement: groups, counters and everything that they return."""

from __future__ import annotations

from fsmount.interface.groups import Counter, Group
from fsmount.interface.options import OnExit, Transport

__all__ = ["Counter", "Group", "OnExit", "Transport"]

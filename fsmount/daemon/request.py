"""What the user asked to be mounted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MountRequest:
    """None, or no resource: not said, so that a region from before may have its own."""

    mountpoint: str  # the real path
    resources: tuple[str, ...] = ()  # NAME[:bytes|:count]
    batch: str | int | None = None
    region: str | None = None
    groups: int | None = None
    holders: int | None = None
    cells: int | None = None
    options: tuple[str, ...] = ()  # FUSE's
    debug: bool = False
    watchdog: float = 30.0  # after how many seconds a daemon that stands still is ended; 0: never

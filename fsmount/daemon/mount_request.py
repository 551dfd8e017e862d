"""What the user asked to be mounted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fsmount.admin.user_error import UserError
from fsmount.config import TreeDescription
from fsmount.shm import parse_resource


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
    config: TreeDescription | None = None  # what a new region is made as; the options must agree with it
    config_path: str = ""
    options: tuple[str, ...] = ()  # FUSE's
    debug: bool = False
    watchdog: float = 30.0  # after how many seconds a daemon that stands still is ended; 0: never

    def creation(self) -> dict[str, Any]:
        """What a new region is made with, for Tree.create().  UserError if the options contradict the file."""
        config = self.config or TreeDescription()
        given: dict[str, Any] = {"resources": dict(map(parse_resource, self.resources)) or None}
        given |= {name: getattr(self, name) for name in ("batch", "groups", "holders", "cells")}
        made: dict[str, Any] = {}
        for name, value in given.items():
            said = getattr(config, name)
            if None not in (value, said) and value != said:
                option = f"--{name.removesuffix('s')}" if name == "resources" else f"--{name}"
                text = f"{option} says {_shown(value)} and {self.config_path} says {_shown(said)}"
                raise UserError(f"{text}: change one, or leave {option} out")
            if value is not None or said is not None:
                made[name] = said if value is None else value
        if "resources" in made:
            made["resources"] = [f"{name}:{unit}" for name, unit in made["resources"].items()]
        return made


def _shown(value: Any) -> str:
    return ", ".join(map(":".join, value.items())) if isinstance(value, dict) else str(value)

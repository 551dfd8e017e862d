"""The mount that a user asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fsmount.admin.user_error import UserError
from fsmount.config import TreeDescription
from fsmount.shm import parse_resource


@dataclass(frozen=True)
class MountRequest:
    """The arguments of a mount.  None, or no resources: the default, or the value of an existing region."""

    mountpoint: str  # the real path
    resources: tuple[str, ...] = ()  # NAME[:bytes|:count]
    batch: str | int | None = None
    region: str | None = None
    groups: int | None = None
    holders: int | None = None
    cells: int | None = None
    config: TreeDescription | None = None  # the content of a new region; the options must agree with it
    config_path: str = ""
    options: tuple[str, ...] = ()  # for FUSE
    debug: bool = False
    watchdog: float = 30.0  # seconds without a heartbeat after which the watchdog ends the daemon; 0: never

    def creation(self) -> dict[str, Any]:
        """The arguments of Tree.create() for a new region.  UserError if an option contradicts the config file."""
        config = self.config or TreeDescription()
        options: dict[str, Any] = {"resources": dict(map(parse_resource, self.resources)) or None}
        options |= {name: getattr(self, name) for name in ("batch", "groups", "holders", "cells")}
        arguments: dict[str, Any] = {}
        for name, value in options.items():
            configured = getattr(config, name)
            if None not in (value, configured) and value != configured:
                option = f"--{name.removesuffix('s')}" if name == "resources" else f"--{name}"
                text = f"{option} says {_shown(value)} and {self.config_path} says {_shown(configured)}"
                raise UserError(f"{text}: change one, or leave {option} out")
            if value is not None or configured is not None:
                arguments[name] = configured if value is None else value
        if "resources" in arguments:
            arguments["resources"] = [f"{name}:{unit}" for name, unit in arguments["resources"].items()]
        return arguments


def _shown(value: Any) -> str:
    return ", ".join(map(":".join, value.items())) if isinstance(value, dict) else str(value)

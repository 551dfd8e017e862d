"""The names and units of resources, as users write them."""

from __future__ import annotations

import os

from fsmount.engine import RESOURCE_NAME_MAX

# Separators that commands, files and options put after the name of a resource.
_SEPARATORS = "/.:=,"


def parse_resource(text: str) -> tuple[str, str]:
    """The name and unit of "NAME", "NAME:bytes" or "NAME:count".  ValueError, TypeError."""
    if not isinstance(text, str):
        raise TypeError(f"a resource is given as text, NAME, NAME:bytes or NAME:count, not as {text!r}")
    name, colon, unit = text.partition(":")
    if colon and unit not in ("bytes", "count"):
        raise ValueError(f"a resource is given as NAME, NAME:bytes or NAME:count, not as {text!r}")
    if not _is_resource_name(name):
        raise ValueError(
            f"a resource's name has 1 to {RESOURCE_NAME_MAX} bytes of printable characters, without white space and "
            f"{' '.join(_SEPARATORS)}, and does not begin with -: {name!r} does not; each resource is given by itself"
        )
    return name, unit or "bytes"


def _is_resource_name(name: str) -> bool:
    """Whether a resource can have this name in files and commands: R.limit, R=N, and R as an argument."""
    return (
        1 <= len(os.fsencode(name)) <= RESOURCE_NAME_MAX
        and name.isprintable()
        and not name.startswith("-")
        and not any(c in _SEPARATORS or c.isspace() for c in name)
    )

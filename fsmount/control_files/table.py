"""The table of control files: every class, and what follows from the set of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fsmount.control_files import (  # noqa: F401  (each import adds classes to the table)
    control_channel,
    events,
    holders,
    lease,
    metrics,
    probe,
    snapshot,
    status,
    threshold,
    values,
    why,
)
from fsmount.control_files.control_file import ControlFile, kinds
from fsmount.protocol.file_names import KINDS_MAX

Kind = type[ControlFile]

#: All control files, by number: the order in which a directory lists them.
KINDS: tuple[Kind, ...] = kinds()

#: The files that `fsmount set` writes, and those that `fsmount save` and `--config` keep, by their names.
SETTABLE = {kind.name: kind for kind in KINDS if kind.settable}
SAVED = {kind.name: kind for kind in KINDS if kind.saved}


class Place(NamedTuple):
    """A control file of a group: the index of its resource, and its class.  A file of the group has resource 0."""

    resource: int
    kind: Kind

    @property
    def slot(self) -> int:
        """The engine's slot for the attributes; slot 0 is that of the directory."""
        return 1 + self.resource * KINDS_MAX + self.kind.number


def files(resources: Mapping[str, str]) -> dict[str, Place]:
    """Every control file of the root group by its name, in listing order; `resources` maps names to units."""
    found = {
        kind.file_name(resource, unit): Place(index, kind)
        for index, (resource, unit) in enumerate(resources.items())
        for kind in KINDS
        if kind.scope == "resource"
    }
    return found | {kind.file_name(): Place(0, kind) for kind in KINDS if kind.scope != "resource"}


def owned_files(resources: Mapping[str, str]) -> dict[str, Place]:
    """The files of a group that chmod and chown apply to, in listing order."""
    return {name: place for name, place in files(resources).items() if place.kind.is_owned()}


def reserved_names(resources: Mapping[str, str], *, root: bool = False) -> frozenset[str]:
    """The names that no child of a group can have; the root group has more files."""
    return frozenset(name for name, place in files(resources).items() if root or place.kind.scope != "root")

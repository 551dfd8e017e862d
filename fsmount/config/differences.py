"""The differences between a running tree and a description, each with the command that removes it.

Only groups and settings that the description names are compared: users may have made others since.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from fsmount.config.description import DIRECTORY_MODE, Access, GroupDescription, TreeDescription
from fsmount.config.user_names import group_name, user_name
from fsmount.control_files import table
from fsmount.protocol.names import escape
from fsmount.quantities import format_quantity
from fsmount.shm import MODE_UNSET, Attributes, Group, Tree


class Difference(NamedTuple):
    text: str
    command: str  # removes the difference; empty if only a new tree can be without it

    def __str__(self) -> str:
        return f"{self.text}: {self.command}" if self.command else self.text


def differences(description: TreeDescription, tree: Tree, mountpoint: str) -> Iterator[Difference]:
    """The differences of a tree that is mounted at a path."""
    yield from _of_creation(description, tree)
    for described in description.tree:
        group = _find(tree, described.path)
        path = os.path.join(mountpoint, *described.path)
        if group is None:
            yield _missing(described, path)
        else:
            yield from _of_limits(described, group, path)
            yield from _of_access(described, group, path)


def _of_creation(description: TreeDescription, tree: Tree) -> Iterator[Difference]:
    if description.resources is not None and description.resources != tree.resources:
        there, wanted = (", ".join(map(":".join, some.items())) for some in (tree.resources, description.resources))
        yield Difference(f"the resources are {there}, not {wanted}", "")
    if description.batch not in (None, tree.batch):
        yield Difference(f"batch is {tree.batch}, not {description.batch}", "")
    for name, capacity in zip(("groups", "holders", "cells"), tree.capacity, strict=True):
        if (wanted := getattr(description, name)) not in (None, capacity):
            yield Difference(f"there is room for {capacity} {name}, not {wanted}", "")


def _missing(described: GroupDescription, path: str) -> Difference:
    place = shlex.quote(path)
    settings = " ".join(
        _setting(resource, setting, amount)
        for setting, amounts in described.settings.items()
        for resource, amount in amounts.items()
    )
    command = f"mkdir -p {place} && fsmount set {place} {settings}" if settings else f"mkdir -p {place}"
    return Difference(f"the group {_shown(described.path)} is not there", command)


def _setting(resource: str, key: str, limit: int) -> str:
    return f"{resource}.{key}={format_quantity(limit)}"


def _find(tree: Tree, path: tuple[str, ...]) -> Group | None:
    group: Group | None = tree.root
    for name in path:
        group = group and group.find(name)
    return group


def _of_limits(described: GroupDescription, group: Group, path: str) -> Iterator[Difference]:
    for key, amounts in described.settings.items():
        for resource, wanted in amounts.items():
            there = getattr(group[resource], key) if resource in group.resources else wanted
            if there != wanted:
                text = f"{resource}.{key} of {_shown(described.path)} is {format_quantity(there)}"
                command = f"fsmount set {shlex.quote(path)} {_setting(resource, key, wanted)}"
                yield Difference(f"{text}, not {format_quantity(wanted)}", command)


def _of_access(described: GroupDescription, group: Group, path: str) -> Iterator[Difference]:
    directory = described.access
    yield from _between(_shown(described.path), path, group.attributes(0), DIRECTORY_MODE, directory)
    files = described.all_files
    for name, place in table.owned_files(group.tree.resources).items():
        own = described.files.get(name, Access())
        wanted = Access(
            next((uid for uid in (own.uid, files.uid, directory.uid) if uid is not None), None),
            next((gid for gid in (own.gid, files.gid, directory.gid) if gid is not None), None),
            own.mode,
        )
        there = group.attributes(place.slot)
        yield from _between(_shown((*described.path, name)), os.path.join(path, name), there, place.kind.mode, wanted)


def _between(name: str, path: str, there: Attributes, usual_mode: int, wanted: Access) -> Iterator[Difference]:
    mode = usual_mode if there.mode == MODE_UNSET else there.mode
    place = shlex.quote(path)
    if wanted.uid is not None and wanted.uid != there.uid:
        user = user_name(wanted.uid)
        yield Difference(f"the owner of {name} is {user_name(there.uid)}, not {user}", f"chown {user} {place}")
    if wanted.gid is not None and wanted.gid != there.gid:
        group = group_name(wanted.gid)
        yield Difference(f"the group of {name} is {group_name(there.gid)}, not {group}", f"chgrp {group} {place}")
    if wanted.mode not in (None, mode):
        text = f"the mode of {name} is {mode:04o}, not {wanted.mode:04o}"
        yield Difference(text, f"chmod {wanted.mode:04o} {place}")


def _shown(path: tuple[str, ...]) -> str:
    return "/" + "/".join(map(escape, path))

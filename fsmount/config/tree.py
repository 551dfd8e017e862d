"""Tree to description, and description to tree."""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Iterable, Mapping

from fsmount.config.description import DIRECTORY_MODE, UNSET, Access, GroupDescription, TreeDescription
from fsmount.control_files import table
from fsmount.control_files.table import Place
from fsmount.errors import GroupRemoved
from fsmount.quantities import UNLIMITED
from fsmount.shm import DEFAULT_CAPACITY, MODE_UNSET, SET_GID, SET_MODE, SET_UID, Attributes, Group, Tree

Path = tuple[str, ...]
Owners = tuple[int, int]  # user and group
Files = Mapping[str, Place]


# ---- a tree as it is --------------------------------------------------------------------------------------------


def describe(tree: Tree) -> TreeDescription:
    """The settings that differ from the defaults, from which build() makes the same tree for its owner."""
    groups, holders, cells = map(_unless, tree.capacity, DEFAULT_CAPACITY)
    found = TreeDescription(
        resources=dict(tree.resources),
        batch=None if tree.batch == "auto" else tree.batch,
        groups=groups,
        holders=holders,
        cells=cells,
    )
    files = table.owned_files(tree.resources)
    owner = tree.owner
    pending: list[tuple[Path, Group]] = [((), tree.root)]
    while pending:
        path, group = pending.pop()
        try:
            described = _describe_group(path, group, files, owner)
            pending += [((*path, child.name), child) for child in group.children()]
        except GroupRemoved:
            continue
        if described != GroupDescription(()):  # a root without any setting
            found.tree.append(described)
    found.tree.sort(key=lambda described: described.path)
    return found


def _describe_group(path: Path, group: Group, files: Files, owner: Owners) -> GroupDescription:
    found = GroupDescription(path)
    directory = group.attributes(0)
    of_files = {name: group.attributes(place.slot) for name, place in files.items()}
    common = _most_common(directory, of_files.values())
    found.access = Access(
        _unless(directory.uid, owner[0]), _unless(directory.gid, owner[1]), _unless(directory.mode, DIRECTORY_MODE)
    )
    found.all_files = Access(_unless(common[0], directory.uid), _unless(common[1], directory.gid))
    for name, place in files.items():
        kind, one = place.kind, of_files[name]
        mode = kind.mode if one.mode == MODE_UNSET else one.mode
        access = Access(_unless(one.uid, common[0]), _unless(one.gid, common[1]), _unless(mode, kind.mode))
        if access != UNSET:
            found.files[name] = access
    for resource in group.resources:
        counter = group[resource]
        for setting, amounts in found.settings.items():
            if (amount := getattr(counter, setting)) != UNLIMITED:
                amounts[resource] = amount
    return found


def _most_common(directory: Attributes, files: Iterable[Attributes]) -> Owners:
    """The user and group of most files; in a tie those of the directory."""
    files = list(files)
    uids = Tally(file.uid for file in files)
    gids = Tally(file.gid for file in files)
    return (
        max(uids, key=lambda uid: (uids[uid], uid == directory.uid, uid)),
        max(gids, key=lambda gid: (gids[gid], gid == directory.gid, gid)),
    )


def _unless(value: int, default: int) -> int | None:
    return None if value == default else value


# ---- a tree as described ----------------------------------------------------------------------------------------


def build(tree: Tree, description: TreeDescription) -> None:
    """Makes the groups, in a tree with only a root and with the described resources.  OSError: they do not fit."""
    files = table.owned_files(tree.resources)
    us = os.geteuid(), os.getegid()
    groups: dict[Path, Group] = {(): tree.root}
    for described in description.tree:
        owner = _owners(described.access, us)
        owner_of_files = _owners(described.all_files, owner)
        maker = owner_of_files if described.path else us  # the root exists already
        group = _make(groups, described.path, maker, us)
        _set_access(group, 0, maker, owner, described.access.mode)
        for name, place in files.items():
            access = described.files.get(name, UNSET)
            _set_access(group, place.slot, maker, _owners(access, owner_of_files), access.mode)
        for setting, amounts in described.settings.items():
            for resource, amount in amounts.items():
                setattr(group[resource], setting, amount)


def _owners(access: Access, default: Owners) -> Owners:
    return (
        default[0] if access.uid is None else access.uid,
        default[1] if access.gid is None else access.gid,
    )


def _make(groups: dict[Path, Group], path: Path, maker: Owners, us: Owners) -> Group:
    """Makes the group at the path for `maker`, and missing groups above it for this process's user."""
    known = next(depth for depth in range(len(path), -1, -1) if path[:depth] in groups)
    for depth in range(known, len(path)):
        owners = (
            maker if depth + 1 == len(path) else us
        )  # explicit, so that no set-group-ID directory passes on its group
        groups[path[: depth + 1]] = groups[path[:depth]].mkdir_for(path[depth], DIRECTORY_MODE, *owners)
    return groups[path]


def _set_access(group: Group, slot: int, maker: Owners, owners: Owners, mode: int | None) -> None:
    """Sets the mode, and the owners that differ from `maker`."""
    mask = 0 if mode is None else SET_MODE
    for bit, ours, wanted in zip((SET_UID, SET_GID), maker, owners, strict=True):
        mask |= bit if ours != wanted else 0
    if mask:
        group.set_attributes(slot, mask, mode=mode or 0, uid=owners[0], gid=owners[1])

"""Text to description.  The whole text is checked before anything is made from it."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fsmount.config.description import (
    ALL_FILES,
    FILES,
    GROUP,
    GROUP_KEYS,
    MODE,
    OWNER,
    Access,
    GroupDescription,
    TreeDescription,
)
from fsmount.config.toml_document import ConfigError, Document, Keys
from fsmount.control_files import table
from fsmount.protocol.names import NAME_MAX, is_group_name, unescape
from fsmount.protocol.suggestions import did_you_mean
from fsmount.quantities import UNLIMITED, parse
from fsmount.shm import CAPACITY_MAX, DEPTH_MAX, RESOURCES_MAX, parse_resource

#: The maximum of each capacity.
_CAPACITIES = dict(zip(("groups", "holders", "cells"), CAPACITY_MAX, strict=True))
_ID_MAX = 2**32 - 2  # for chown() the next number means "unchanged"


class _Wrong(Exception):
    """The value of these keys is wrong.  The message names the keys below their group."""

    def __init__(self, keys: Keys, text: str) -> None:
        named = keys[1:] if keys[0].startswith("/") and len(keys) > 1 else keys
        self.keys = keys
        self.text = f"{_shown_keys(named)}: {text}"


def read(text: bytes) -> TreeDescription:
    """Parses a description.  ConfigError is the only exception, whatever the bytes are.

    Looks up the names of users and groups.  This process must be able to give files to them.
    """
    document = Document(text)
    try:
        return _tree(document.content)
    except _Wrong as wrong:
        raise ConfigError(wrong.text, document.line_of(wrong.keys)) from None


# ---- tables and values ------------------------------------------------------------------------------------------


def _tree(document: dict[str, Any]) -> TreeDescription:
    found = TreeDescription()
    groups = {}
    for key, value in document.items():
        if key == "resources":
            found.resources = _resources(value)
        elif key == "capacity":
            for name, number in _table((key,), value, _CAPACITIES).items():
                setattr(found, name, _capacity((key, name), number))
        elif key == "batch":
            found.batch = value if value == "auto" else _amount((key,), value, "auto, 0, 4096, 64K")
        elif key.startswith("/"):
            groups[key] = value
        else:
            tables = "batch", "resources", "capacity"
            raise _unknown((key,), f'{_listed(tables)}, and groups by their paths, such as "/web"', tables)
    resources = found.resources or {"memory": "bytes"}
    reserved, reserved_in_root = (table.reserved_names(resources, root=root) for root in (False, True))
    described: dict[Keys, GroupDescription] = {}
    for key, value in groups.items():
        path = _path(key, reserved, reserved_in_root)
        if path in described:
            raise _Wrong((key,), "the group occurs twice: merge the tables")
        described[path] = _group(key, path, value, resources)
    found.tree = [described[path] for path in sorted(described)]
    _check_room(found)
    return found


def _resources(value: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, unit in _table(("resources",), value).items():
        keys = ("resources", key)
        if unit not in ("bytes", "count"):
            raise _Wrong(keys, f"{_shown(unit)} is not a unit (bytes, count)")
        try:
            if ":" in key:
                raise ValueError("a resource's name cannot contain a colon")
            parse_resource(f"{key}:{unit}")
        except ValueError as error:
            raise _Wrong(keys, str(error)) from None
        found[key] = unit
        if len(found) > RESOURCES_MAX:
            raise _Wrong(keys, f"too many resources, a tree has at most {RESOURCES_MAX}")
    if not found:
        raise _Wrong(("resources",), "no resource; leave the table out for memory alone")
    return found


def _path(key: str, reserved: frozenset[str], reserved_in_root: frozenset[str]) -> Keys:
    if key == "/":
        return ()
    names: list[str] = []
    for part in key[1:].split("/"):
        try:
            name = unescape(part)
        except ValueError as error:
            raise _Wrong((key,), str(error)) from None
        if not is_group_name(name):
            raise _Wrong(
                (key,),
                f"{_quoted(part)} is not a valid name of a group "
                f"(1 to {NAME_MAX} bytes, not . or .., no slash, newline or NUL)",
            )
        if name in (reserved if names else reserved_in_root):
            raise _Wrong((key,), f"{_quoted(part)} is the name of a control file")
        names.append(name)
    if len(names) > DEPTH_MAX:
        raise _Wrong((key,), f"{len(names)} levels deep, at most {DEPTH_MAX} are possible")
    return tuple(names)


def _group(key: str, path: Keys, value: Any, resources: Mapping[str, str]) -> GroupDescription:
    found = GroupDescription(path)
    seen = set()
    access = {}
    for name, said in _table((key,), value).items():
        keys = (key, name)
        if name == FILES:
            _files(keys, said, found, resources)
        elif name in GROUP_KEYS:
            access[name] = said
        else:
            resource = _resource(keys, resources)
            if resource in seen:
                raise _Wrong(keys, "the resource occurs twice: merge the tables")
            seen.add(resource)
            for setting, amount in _table(keys, said, tuple(table.SAVED)).items():
                found.settings[setting][resource] = _amount((*keys, setting), amount, "4096, 64K, max", limit=True)
    found.access = _access((key,), access)
    return found


def _resource(keys: Keys, resources: Mapping[str, str]) -> str:
    """The resource that a key names, as NAME or NAME:UNIT."""
    name, colon, unit = keys[-1].partition(":")
    if name not in resources or (colon and unit != resources[name]):
        raise _unknown(
            keys, f"the resources {_listed(resources)}, and {_listed(GROUP_KEYS)}", (*resources, *GROUP_KEYS)
        )
    return name


def _files(keys: Keys, value: Any, group: GroupDescription, resources: Mapping[str, str]) -> None:
    names = table.owned_files(resources)
    for key, said in _table(keys, value).items():
        at = (*keys, key)
        if key == ALL_FILES:
            group.all_files = _access(at, _table(at, said, (OWNER, GROUP)))
            continue
        if key not in names:
            raise _unknown(at, f"{_listed(names)}, and {_quoted(ALL_FILES)}; a name is quoted", names)
        group.files[key] = _access(at, _table(at, said, (OWNER, GROUP, MODE)))


def _access(keys: Keys, table: Mapping[str, Any]) -> Access:
    return Access(
        uid=_uid((*keys, OWNER), table[OWNER]) if OWNER in table else None,
        gid=_gid((*keys, GROUP), table[GROUP]) if GROUP in table else None,
        mode=_mode((*keys, MODE), table[MODE]) if MODE in table else None,
    )


def _uid(keys: Keys, value: Any) -> int:
    uid = _id(keys, value, "user", lambda name: pwd.getpwnam(name).pw_uid)
    if os.geteuid() not in (0, uid):
        raise _Wrong(keys, f"only root can give a group to another user, {_shown(value)}")
    return uid


def _gid(keys: Keys, value: Any) -> int:
    gid = _id(keys, value, "group", lambda name: grp.getgrnam(name).gr_gid)
    if os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
        raise _Wrong(keys, f"only root can give it to a group that you are not in, {_shown(value)}")
    return gid


def _id(keys: Keys, value: Any, kind: str, look_up: Callable[[str], int]) -> int:
    if isinstance(value, str):
        try:
            return look_up(value)
        except (KeyError, ValueError):
            raise _Wrong(keys, f"there is no {kind} {_shown(value)} here (a name, or a number)") from None
    if type(value) is not int or not 0 <= value <= _ID_MAX:
        raise _Wrong(keys, f"{_shown(value)} is not a {kind} (a name, or 0 to {_ID_MAX})")
    return value


def _mode(keys: Keys, value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{1,4}", value, re.ASCII):
        raise _Wrong(keys, f'{_shown(value)} is not a mode (octal and in quotes, such as "0750")')
    return int(value, 8)


def _amount(keys: Keys, value: Any, allowed: str, *, limit: bool = False) -> int:
    try:
        if type(value) is int:
            if value > UNLIMITED:
                raise OverflowError
            return parse(str(max(value, -2)).encode(), limit=limit)
        if isinstance(value, str):
            return parse(value.encode(), limit=limit)
    except OverflowError:
        raise _Wrong(keys, f"{_shown(value)} is above {UNLIMITED}") from None
    except OSError as error:
        if error.errno == errno.ERANGE:
            raise _Wrong(keys, f"{_shown(value)} is above {UNLIMITED}") from None
    raise _Wrong(keys, f"{_shown(value)} is not an amount ({allowed})")


def _capacity(keys: Keys, value: Any) -> int:
    maximum = _CAPACITIES[keys[-1]]
    if type(value) is not int or not 1 <= value <= maximum:
        raise _Wrong(keys, f"{_shown(value)} is not a capacity (1 to {maximum})")
    return value


def _check_room(found: TreeDescription) -> None:
    """Checks that all groups fit: the described ones, those above them, and the root."""
    if found.groups is None:
        return
    needed = {()} | {group.path[:depth] for group in found.tree for depth in range(len(group.path) + 1)}
    if len(needed) > found.groups:
        text = f"{found.groups} is too few: with the root there are {len(needed)} groups"
        raise _Wrong(("capacity", "groups"), text)


def _table(keys: Keys, value: Any, allowed: Mapping[str, Any] | Keys | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        what = f"a table with {_listed(allowed)}" if allowed else "a table"
        raise _Wrong(keys, f"{_shown(value)} is not a table; expected {what}")
    for key in value:
        if allowed is not None and key not in allowed:
            raise _unknown((*keys, key), _listed(allowed), allowed)
    return value


def _unknown(keys: Keys, allowed: str, names: Iterable[str]) -> _Wrong:
    return _Wrong(keys, f"unknown here; known are {allowed}{did_you_mean(keys[-1], names)}")


# ---- texts of errors --------------------------------------------------------------------------------------------


def _shown_keys(keys: Keys) -> str:
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _quoted(key) for key in keys)


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= 80 else text[:77] + "...", ensure_ascii=False)


def _shown(value: Any) -> str:
    """A value as in the file, or its kind."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 2**64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return _quoted(value)
    return "a table" if isinstance(value, dict) else "an array" if isinstance(value, list) else str(value)


def _listed(names: Mapping[str, Any] | Keys) -> str:
    return ", ".join(_shown_keys((name,)) for name in names)
